// One chunk's softmax, and how chunks' results become one: the native back end of attention.
//
// A partial is what one query vector got from one chunk, head_dim + PARTIAL_EXTRA floats: the values weighted with
// e^(score - maximum), the weights' sum, the maximum, zeros. A vector that attends to nothing in a chunk has sum 0 and maximum
// -infinity. (Milakov and Gimelshein 2018; Dao et al. 2022 for the chunks.)
#pragma once

#include "../../native/functions.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

// Which tokens of a chunk: [begin, end), both in 0 .. ATTENTION_CHUNK.
struct Tokens {
    int begin, end;
    int first_sub() const { return begin / SUB; }
    int end_sub() const { return (end + SUB - 1) / SUB; }
    bool none() const { return begin >= end; }
};

// A chunk's scales for int8 caches, null otherwise, and the soft cap.
struct ScoreRules {
    const float* const* key_scales;  // [SUBS] x [16]
    const float* const* value_scales;
    float soft_cap;
};

// Scores of one query vector to weights in place, where `mine` are the tokens it attends to and `tile` those that the product
// with the values visits: weights of tile's others are 0. Writes sum and maximum behind `partial`'s values.
inline void soften(float* scores, Tokens mine, Tokens tile, const ScoreRules& rules, float* extra) {
    const i32x8 begin = all8i(mine.begin), end = all8i(mine.end);
    const int from = mine.none() ? tile.end_sub() * SUB : mine.first_sub() * SUB;
    const int to = mine.none() ? from : mine.end_sub() * SUB;
    const f32x8 cap = all8(rules.soft_cap), inverse_cap = all8(rules.soft_cap > 0 ? 1.0f / rules.soft_cap : 0.0f);
    f32x8 highest = all8(MINUS_INFINITY);
    for (int t = from; t < to; t += 8) {
        f32x8 v = load8(scores + t);
        if (rules.key_scales) v = v * load8(rules.key_scales[t / SUB] + t % SUB);
        if (rules.soft_cap > 0) v = cap * tanh8(v * inverse_cap);
        if (t < mine.begin || t + 8 > mine.end) {
            const i32x8 at = first8() + t;
            v = at >= begin & at < end ? v : all8(MINUS_INFINITY);
        }
        store8(scores + t, v);
        highest = max8(highest, v);
    }
    const float maximum = highest8(highest);
    const f32x8 zero = all8(maximum == MINUS_INFINITY ? 0.0f : maximum);
    f32x8 sums[2] = {};
    for (int t = from; t < to; t += 8) {
        f32x8 p = exp8(load8(scores + t) - zero);
        sums[t / 8 % 2] = sums[t / 8 % 2] + p;
        if (rules.value_scales) p = p * load8(rules.value_scales[t / SUB] + t % SUB);
        store8(scores + t, p);
    }
    for (int t = tile.first_sub() * SUB; t < from; t += 8) store8(scores + t, f32x8{});
    for (int t = to; t < tile.end_sub() * SUB; t += 8) store8(scores + t, f32x8{});
    store8(extra, f32x8{sum8(sums[0] + sums[1]), maximum, 0, 0, 0, 0, 0, 0});
}

// into = into and from together; the sum travels with the values.
inline void merge_partial(float* into, const float* from, int head_dim) {
    const float a = into[head_dim + 1], b = from[head_dim + 1];
    if (b == MINUS_INFINITY) return;
    if (a == MINUS_INFINITY) {
        std::memcpy(into, from, size_t(head_dim + PARTIAL_EXTRA) * sizeof(float));
        return;
    }
    const float maximum = a > b ? a : b;
    const f32x8 weights = exp8(f32x8{a, b, 0, 0, 0, 0, 0, 0} - all8(maximum));
    const f32x8 old_weight = all8(weights[0]), new_weight = all8(weights[1]);
    for (int d = 0; d < head_dim + PARTIAL_EXTRA; d += 8)
        store8(into + d, fma8(load8(from + d), new_weight, load8(into + d) * old_weight));
    into[head_dim + 1] = maximum;
}

inline void finish_partial(const float* partial, int head_dim, float* out) {
    const f32x8 factor = all8(1.0f / partial[head_dim]);
    for (int d = 0; d < head_dim; d += 8) store8(out + d, load8(partial + d) * factor);
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
