// Softmax of attention scores chunk by chunk, and the merge of chunks' partial results (online softmax).
//
// A partial is what one query vector got from one chunk, head_dim + PARTIAL_EXTRA floats: the values weighted with
// 2^(score - maximum), the weights' sum, the maximum, zeros; scores in units of ln 2. A vector that attends to nothing in a chunk has sum 0 and maximum
// -infinity. (Milakov and Gimelshein 2018; Dao et al. 2022 for the chunks.)
#pragma once

#include "../../native/simd_math.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

constexpr float LOG2_E = 1.44269504088896341f;

// Which tokens of a chunk: [begin, end), both in 0 .. ATTENTION_CHUNK.
struct Tokens {
    int begin, end;
    bool none() const { return begin >= end; }
    int first_sub_block() const { return begin / SUB_BLOCK; }
    int end_sub_block() const { return (end + SUB_BLOCK - 1) / SUB_BLOCK; }
};

// What turns products into scores, in units of ln 2: a chunk's scales for int8 caches, null otherwise, and the soft cap.
struct ScoreRules {
    const float* const* key_scales;  // [SUB_BLOCKS] x [16]
    const float* const* value_scales;
    float soft_cap;

    bool plain() const { return !key_scales && !(soft_cap > 0); }
    // Queries are scaled with this beforehand. Under a soft cap scores become units of ln 2 after it.
    static float query_scale(const AttentionShape& a) { return a.soft_cap > 0 ? a.scale : a.scale * LOG2_E; }
    f32x8 apply(f32x8 v, int t) const {
        if (key_scales) v = v * load8(key_scales[t / SUB_BLOCK] + t % SUB_BLOCK);
        if (soft_cap > 0) v = all8(soft_cap * LOG2_E) * tanh8(v * all8(1.0f / soft_cap));
        return v;
    }
};

// Products of one query vector to weights in place, where `mine` are the tokens it attends to and `tile` those that the product
// with the values visits: weights of tile's others are 0. Writes sum and maximum behind the partial's values.
__attribute__((noinline)) void softmax_in_place(float* scores, Tokens mine, Tokens tile, const ScoreRules& rules, float* extra) {
    const int from = mine.begin / 8 * 8, to = mine.none() ? from : (mine.end + 7) / 8 * 8;
    if (!rules.plain())
        for (int t = from; t < to; t += 8) store8(scores + t, rules.apply(load8(scores + t), t));
    const int edges[2] = {from, to - 8};
    for (int t : edges) {
        if (from == to || (t >= mine.begin && t + 8 <= mine.end)) continue;
        const i32x8 at = first8() + t;
        const i32x8 seen = (at >= all8i(mine.begin)) & (at < all8i(mine.end));
        store8(scores + t, seen ? load8(scores + t) : all8(MINUS_INFINITY));
    }
    f32x8 highest = all8(MINUS_INFINITY);
    for (int t = from; t < to; t += 8) highest = max8(highest, load8(scores + t));
    const float maximum = highest8(highest);
    const f32x8 zero = all8(maximum == MINUS_INFINITY ? 0.0f : maximum);
    f32x8 sum = {};
    for (int t = from; t < to; t += 8) {
        f32x8 p = exp2_negative8(load8(scores + t) - zero);
        sum = sum + p;
        if (rules.value_scales) p = p * load8(rules.value_scales[t / SUB_BLOCK] + t % SUB_BLOCK);
        store8(scores + t, p);
    }
    for (int t = tile.begin / 8 * 8; t < from; t += 8) store8(scores + t, f32x8{});
    for (int t = to; t < tile.end; t += 8) store8(scores + t, f32x8{});
    store8(extra, f32x8{sum8(sum), maximum, 0, 0, 0, 0, 0, 0});
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
    const f32x8 weights = exp2_negative8(f32x8{a, b, 0, 0, 0, 0, 0, 0} - all8(maximum));
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
