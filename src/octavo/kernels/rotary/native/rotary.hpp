// Rotary position embedding of one head, NeoX style: element i rotated with element i + head_dim / 2, in place.
#pragma once

#include "../../native/simd.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

void rotary(float* x, const float* cos, const float* sin, int head_dim) {
    const int half = head_dim / 2;
    float* y = x + half;
    int i = 0;
    for (; i + 8 <= half; i += 8) {
        const f32x8 a = load8(x + i), b = load8(y + i), c = load8(cos + i), s = load8(sin + i);
        store8(x + i, fma8(a, c, f32x8{} - b * s));
        store8(y + i, fma8(b, c, a * s));
    }
    if (const int rest = half - i; rest > 0) {
        const f32x8 a = load_part(x + i, rest), b = load_part(y + i, rest);
        const f32x8 c = load_part(cos + i, rest), s = load_part(sin + i, rest);
        store_part(x + i, fma8(a, c, f32x8{} - b * s), rest);
        store_part(y + i, fma8(b, c, a * s), rest);
    }
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
