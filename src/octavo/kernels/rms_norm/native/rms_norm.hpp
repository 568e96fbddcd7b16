// RMSNorm of one row: y = x / sqrt(mean(x^2) + eps) * weight.
#pragma once

#include "../../native/simd.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

void rms_norm(const float* x, const float* weight, int k, float eps, float* y) {
    f32x8 sums[4] = {};  // four chains: the additions of one would wait for each other
    int i = 0;
    for (; i + 32 <= k; i += 32)
        for (int j = 0; j < 4; ++j) {
            const f32x8 v = load8(x + i + 8 * j);
            sums[j] = fma8(v, v, sums[j]);
        }
    for (; i < k; i += 8) {
        const f32x8 v = i + 8 <= k ? load8(x + i) : load_part(x + i, k - i);
        sums[0] = fma8(v, v, sums[0]);
    }
    const float mean = sum8((sums[0] + sums[1]) + (sums[2] + sums[3])) / float(k);
    const f32x8 factor = all8(1.0f / __builtin_sqrtf(mean + eps));
    for (i = 0; i + 8 <= k; i += 8) store8(y + i, load8(x + i) * factor * load8(weight + i));
    if (i < k) store_part(y + i, load_part(x + i, k - i) * factor * load_part(weight + i, k - i), k - i);
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
