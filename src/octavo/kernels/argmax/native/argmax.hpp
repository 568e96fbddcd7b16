// argmax of a row of logits, the first of equals: greedy sampling.
#pragma once

#include "../../native/simd_math.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

int argmax(const float* x, int n) {
    // Per lane the first place of the greatest so far; NaN compares as not greater.
    f32x8 best = all8(MINUS_INFINITY);
    i32x8 best_at = all8i(INT32_MAX), at = first8();
    int i = 0;
    for (; i + 8 <= n; i += 8, at += 8) {
        const f32x8 v = load8(x + i);
        const i32x8 greater = v > best;
        best = greater ? v : best;
        best_at = greater ? at : best_at;
    }
    float greatest = MINUS_INFINITY;
    int place = INT32_MAX;
    for (int lane = 0; lane < 8; ++lane)
        if (best[lane] > greatest || (best[lane] == greatest && best_at[lane] < place))
            greatest = best[lane], place = best_at[lane];
    for (; i < n; ++i)
        if (x[i] > greatest) greatest = x[i], place = i;
    if (place != INT32_MAX) return place;
    for (i = 0; i < n; ++i)  // nothing but -infinity and NaN
        if (x[i] == MINUS_INFINITY) return i;
    return 0;
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
