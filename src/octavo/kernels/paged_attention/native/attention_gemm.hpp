// Matmuls of attention, scores = Q K^T and output = weights V, register-blocked, with software prefetch.
//
// Every sum runs in ascending order of its index in one chain of fused multiply-adds, whatever the block: that, and skipping
// only what would add zero, is why a row's bits do not depend on what it is computed with.
#pragma once

#include "softmax.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

constexpr int MAX_TILE = 6;  // query vectors at a time: 6 x 2 accumulators, 2 operands and a broadcast fill 16 registers
inline int at_most(int a, int b) { return a < b ? a : b; }

constexpr int SUB_BLOCKS = ATTENTION_CHUNK / SUB_BLOCK;

// While one operand is multiplied, the next one is prefetched: `ahead` has the same shape, null for none.
template <class T>
inline void prefetch(const T* p) {
    __builtin_prefetch(p, 0, 2);
}

// scores[m][16 p + t] = sum_d q[m][d] keys[p][d][t] for P sub-blocks of keys, [head_dim][16] each.
template <int M, int P, bool AHEAD, class T>
inline void score_tile(const float* q, int head_dim, const T* const* keys, const T* const* ahead, float* scores) {
    constexpr int LINE = 4 / sizeof(T);  // rows of 16 keys in 64 bytes
    Pair acc[M][P] = {};
    for (int line = 0; line < head_dim; line += LINE) {
        if constexpr (AHEAD)
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) prefetch(ahead[p] + line * SUB_BLOCK);
#pragma GCC unroll 8
        for (int d = line; d < line + LINE; ++d) {
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                Pair k = load16(keys[p] + d * SUB_BLOCK);
                hold8(k.a), hold8(k.b);
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m) {
                    const f32x8 x = all8(q[m * head_dim + d]);
                    acc[m][p] = {fma8(x, k.a, acc[m][p].a), fma8(x, k.b, acc[m][p].b)};
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) store16(scores + m * ATTENTION_CHUNK + p * SUB_BLOCK, in_order(keys[p], acc[m][p]));
}

// Where the values of a chunk lie: token t's at base[t / 16] + t % 16 * step + column.
template <class T>
struct ValueColumns {
    const T* const* base;
    const T* const* ahead;
    int step, column;
    const T* at(int t) const { return base[t / SUB_BLOCK] + t % SUB_BLOCK * step + column; }
    // What to prefetch at token t: over all columns a chunk of `ahead`, [head_dim][16] a sub-block, from its begin to its end.
    const T* next(int t, int num_pairs) const {
        const int row = column / SUB_BLOCK * ATTENTION_CHUNK + t * num_pairs;
        return ahead[at_most(row / step, SUB_BLOCKS - 1)] + row % step * SUB_BLOCK;
    }
};

// out[m][0 .. 16 P) = sum over tokens of weights[m][t] values[t][0 .. 16 P).
template <int M, int P, bool AHEAD, class T>
inline void value_tile(const float* weights, const ValueColumns<T>& values, Tokens tokens, float* out, int out_step) {
    constexpr int LINE = 64 / sizeof(T);
    Pair acc[M][P] = {};
    for (int t = tokens.begin; t < tokens.end;) {
        const T* row = values.at(t);
        [[maybe_unused]] const T* next = AHEAD ? values.next(t, P) : row;
        const int stop = t / SUB_BLOCK * SUB_BLOCK + SUB_BLOCK < tokens.end ? t / SUB_BLOCK * SUB_BLOCK + SUB_BLOCK : tokens.end;
        for (; t < stop; ++t, row += values.step, next += 16 * P) {
            if constexpr (AHEAD)
#pragma GCC unroll 8
                for (int e = 0; e < 16 * P; e += LINE) prefetch(next + e);
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) {
                Pair v = load16(row + p * 16);
                hold8(v.a), hold8(v.b);
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m) {
                    const f32x8 w = all8(weights[m * ATTENTION_CHUNK + t]);
                    acc[m][p] = {fma8(w, v.a, acc[m][p].a), fma8(w, v.b, acc[m][p].b)};
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int p = 0; p < P; ++p) store16(out + m * out_step + 16 * p, in_order(values.base[0], acc[m][p]));
}

// The last 8 columns of a head_dim that is no multiple of 16.
template <int M, class T>
inline void narrow_value_tile(const float* weights, const ValueColumns<T>& values, Tokens tokens, float* out, int out_step) {
    f32x8 acc[M] = {};
    for (int t = tokens.begin; t < tokens.end; ++t) {
        const f32x8 v = load8(values.at(t));
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) acc[m] = fma8(all8(weights[m * ATTENTION_CHUNK + t]), v, acc[m]);
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) store8(out + m * out_step, acc[m]);
}

// How many pairs of vectors a tile is wide: chains enough to hide a multiply-add's latency, and all of them in 16 registers. For 3
// rows two pairs would be one register too many, and an accumulator in memory costs more than two chains too few.
constexpr int pairs_at_once(int m) { return m == 1 ? 4 : m == 2 ? 2 : 1; }

// Scores of M query vectors with sub-blocks [begin, end) of a chunk: q [M][head_dim], scores [M][ATTENTION_CHUNK].
template <int M, bool AHEAD, class T>
__attribute__((noinline)) void score_row(const float* q, int head_dim, const T* const* keys, const T* const* ahead, int begin,
                                         int end, float* scores) {
    constexpr int P = pairs_at_once(M);
    int s = begin;
    for (; s + P <= end; s += P) score_tile<M, P, AHEAD>(q, head_dim, keys + s, ahead + s, scores + s * SUB_BLOCK);
    for (; s < end; ++s) score_tile<M, 1, AHEAD>(q, head_dim, keys + s, ahead + s, scores + s * SUB_BLOCK);
}

// Weighted values of M query vectors, `width` columns (a multiple of 8).
template <int M, bool AHEAD, class T>
__attribute__((noinline)) void value_row(const float* weights, ValueColumns<T> values, int width, Tokens tokens, float* out,
                                         int out_step) {
    constexpr int P = pairs_at_once(M);
    for (; width >= 16 * P; width -= 16 * P, values.column += 16 * P, out += 16 * P)
        value_tile<M, P, AHEAD>(weights, values, tokens, out, out_step);
    for (; width >= 16; width -= 16, values.column += 16, out += 16)
        value_tile<M, 1, AHEAD>(weights, values, tokens, out, out_step);
    if (width) narrow_value_tile<M>(weights, values, tokens, out, out_step);
}

template <bool AHEAD, class T>
inline void scores_of(int m, const float* q, int head_dim, const T* const* keys, const T* const* ahead, int begin, int end,
                      float* scores) {
    switch (m) {
        case 1: return score_row<1, AHEAD>(q, head_dim, keys, ahead, begin, end, scores);
        case 2: return score_row<2, AHEAD>(q, head_dim, keys, ahead, begin, end, scores);
        case 3: return score_row<3, AHEAD>(q, head_dim, keys, ahead, begin, end, scores);
        case 4: return score_row<4, AHEAD>(q, head_dim, keys, ahead, begin, end, scores);
        case 5: return score_row<5, AHEAD>(q, head_dim, keys, ahead, begin, end, scores);
        default: return score_row<6, AHEAD>(q, head_dim, keys, ahead, begin, end, scores);
    }
}

template <bool AHEAD, class T>
inline void values_of(int m, const float* weights, const ValueColumns<T>& values, int width, Tokens tokens, float* out, int out_step) {
    switch (m) {
        case 1: return value_row<1, AHEAD>(weights, values, width, tokens, out, out_step);
        case 2: return value_row<2, AHEAD>(weights, values, width, tokens, out, out_step);
        case 3: return value_row<3, AHEAD>(weights, values, width, tokens, out, out_step);
        case 4: return value_row<4, AHEAD>(weights, values, width, tokens, out, out_step);
        case 5: return value_row<5, AHEAD>(weights, values, width, tokens, out, out_step);
        default: return value_row<6, AHEAD>(weights, values, width, tokens, out, out_step);
    }
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
