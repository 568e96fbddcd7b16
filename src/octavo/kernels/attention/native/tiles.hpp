// The two products of attention, scores = Q K^T and weights V, in blocks that live in registers.
//
// Every sum runs in ascending order of its index in one chain of fused multiply-adds, whatever the block: that, and skipping
// only what would add zero, is why a row's bits do not depend on what it is computed with.
#pragma once

#include "../../native/lanes.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

constexpr int MAX_TILE = 6;  // query vectors at a time: 6 x 2 accumulators, 2 operands and a broadcast fill 16 registers
constexpr int SUBS = ATTENTION_CHUNK / SUB;

// scores[m][16 p + t] = sum_d q[m][d] keys[p][d][t] for P sub-blocks of keys, [head_dim][16] each.
template <int M, int P, class T>
inline void score_tile(const float* q, int head_dim, const T* const* keys, float* scores) {
    f32x8 acc[M][2 * P] = {};
    for (int d = 0; d < head_dim; ++d) {
        f32x8 k[2 * P];
#pragma GCC unroll 8
        for (int j = 0; j < 2 * P; ++j) k[j] = load8(keys[j / 2] + d * SUB + j % 2 * 8);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const f32x8 x = all8(q[m * head_dim + d]);
#pragma GCC unroll 8
            for (int j = 0; j < 2 * P; ++j) acc[m][j] = fma8(x, k[j], acc[m][j]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int j = 0; j < 2 * P; ++j) store8(scores + m * ATTENTION_CHUNK + 8 * j, acc[m][j]);
}

// out[m][0 .. 8 V) = sum over tokens t in [begin, end) of weights[m][t] values[t / 16][t % 16][0 .. 8 V); a token's values start
// `step` elements after its predecessor's.
template <int M, int V, class T>
inline void value_tile(const float* weights, const T* const* values, int column, int step, int begin, int end, float* out,
                       int out_step) {
    f32x8 acc[M][V] = {};
    for (int t = begin; t < end;) {
        const T* row = values[t / SUB] + t % SUB * step + column;
        const int stop = t / SUB * SUB + SUB < end ? t / SUB * SUB + SUB : end;
        for (; t < stop; ++t, row += step) {
            f32x8 v[V];
#pragma GCC unroll 8
            for (int j = 0; j < V; ++j) v[j] = load8(row + 8 * j);
#pragma GCC unroll 8
            for (int m = 0; m < M; ++m) {
                const f32x8 w = all8(weights[m * ATTENTION_CHUNK + t]);
#pragma GCC unroll 8
                for (int j = 0; j < V; ++j) acc[m][j] = fma8(w, v[j], acc[m][j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int j = 0; j < V; ++j) store8(out + m * out_step + 8 * j, acc[m][j]);
}

// Enough independent chains to hide a multiply-add's latency: fewer rows take more columns at once.
constexpr int sub_blocks_at_once(int m) { return m == 1 ? 4 : m <= 3 ? 2 : 1; }
constexpr int vectors_at_once(int m) { return m == 1 ? 8 : m <= 3 ? 4 : 2; }

// Scores of M query vectors with sub-blocks [begin, end) of a chunk: q [M][head_dim], scores [M][ATTENTION_CHUNK].
template <int M, class T>
void score_row(const float* q, int head_dim, const T* const* keys, int begin, int end, float* scores) {
    constexpr int P = sub_blocks_at_once(M);
    int s = begin;
    for (; s + P <= end; s += P) score_tile<M, P>(q, head_dim, keys + s, scores + s * SUB);
    for (; s < end; ++s) score_tile<M, 1>(q, head_dim, keys + s, scores + s * SUB);
}

// Weighted values of M query vectors, `width` (a multiple of 8) columns from `column`, tokens [begin, end) of a chunk.
template <int M, class T>
void value_row(const float* weights, const T* const* values, int column, int width, int step, int begin, int end, float* out,
               int out_step) {
    constexpr int V = vectors_at_once(M);
    const int stop = column + width;
    for (; column + 8 * V <= stop; column += 8 * V, out += 8 * V)
        value_tile<M, V>(weights, values, column, step, begin, end, out, out_step);
    for (; column < stop; column += 8, out += 8) value_tile<M, 1>(weights, values, column, step, begin, end, out, out_step);
}

template <class T>
inline void scores_of(int m, const float* q, int head_dim, const T* const* keys, int begin, int end, float* scores) {
    switch (m) {
        case 1: return score_row<1>(q, head_dim, keys, begin, end, scores);
        case 2: return score_row<2>(q, head_dim, keys, begin, end, scores);
        case 3: return score_row<3>(q, head_dim, keys, begin, end, scores);
        case 4: return score_row<4>(q, head_dim, keys, begin, end, scores);
        case 5: return score_row<5>(q, head_dim, keys, begin, end, scores);
        default: return score_row<6>(q, head_dim, keys, begin, end, scores);
    }
}

template <class T>
inline void values_of(int m, const float* weights, const T* const* values, int column, int width, int step, int begin, int end,
                      float* out, int out_step) {
    switch (m) {
        case 1: return value_row<1>(weights, values, column, width, step, begin, end, out, out_step);
        case 2: return value_row<2>(weights, values, column, width, step, begin, end, out, out_step);
        case 3: return value_row<3>(weights, values, column, width, step, begin, end, out, out_step);
        case 4: return value_row<4>(weights, values, column, width, step, begin, end, out, out_step);
        case 5: return value_row<5>(weights, values, column, width, step, begin, end, out, out_step);
        default: return value_row<6>(weights, values, column, width, step, begin, end, out, out_step);
    }
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
