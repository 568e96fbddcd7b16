// Activation of a gated MLP: y = silu(gate) * up, or y = gelu_tanh(gate) * up.
#pragma once

#include "../../native/simd_math.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

inline f32x8 silu8(f32x8 x) { return x * sigmoid8(x); }

// x / 2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
inline f32x8 gelu8(f32x8 x) {
    const f32x8 inner = fma8(x * x, all8(0.044715f), all8(1.0f));
    return x * sigmoid8(x * all8(1.5957691f) * inner);
}

template <f32x8 (*activation)(f32x8)>
inline void gated(const float* gate, const float* up, int n, float* y) {
    int i = 0;
    for (; i + 8 <= n; i += 8) store8(y + i, activation(load8(gate + i)) * load8(up + i));
    if (i < n) store_part(y + i, activation(load_part(gate + i, n - i)) * load_part(up + i, n - i), n - i);
}

void silu_mul(const float* gate, const float* up, int n, float* y) { gated<silu8>(gate, up, n, y); }
void gelu_mul(const float* gate, const float* up, int n, float* y) { gated<gelu8>(gate, up, n, y); }

}  // namespace
}  // namespace octavo::OCTAVO_ISA
