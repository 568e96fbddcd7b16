// x *= factor and x += y over any length: embedding scale and residual addition of the native step.
#pragma once

#include "../../native/simd.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

void scale(float* x, float factor, int n) {
    const f32x8 f = all8(factor);
    int i = 0;
    for (; i + 8 <= n; i += 8) store8(x + i, load8(x + i) * f);
    if (i < n) store_part(x + i, load_part(x + i, n - i) * f, n - i);
}

void add(float* x, const float* y, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) store8(x + i, load8(x + i) + load8(y + i));
    if (i < n) store_part(x + i, load_part(x + i, n - i) + load_part(y + i, n - i), n - i);
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
