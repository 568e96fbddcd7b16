// Matmul micro-kernel for AVX2, FMA and F16C: 16 output columns in two registers of eight.
// The names are explained in micro_kernel_portable.hpp.
#pragma once

#include <immintrin.h>

#include "float16.hpp"

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

constexpr int FLOAT_ROWS = 6;  // 12 accumulators, 2 registers of weights, activations

struct Floats {
    __m256 lo, hi;
};
inline Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x.lo), _mm256_storeu_ps(p + 8, x.hi); }
inline __m128i load_shorts(const uint16_t* p) { return _mm_loadu_si128((const __m128i*)p); }
inline Floats load_f16(const uint16_t* p) { return {_mm256_cvtph_ps(load_shorts(p)), _mm256_cvtph_ps(load_shorts(p + 8))}; }
inline __m256 widen_bf16(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_shorts(p)), 16));
}
inline Floats load_bf16(const uint16_t* p) { return {widen_bf16(p), widen_bf16(p + 8)}; }
inline Floats add(Floats a, Floats b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Floats mul(Floats a, Floats b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }

struct Weights4x16 {
    __m256i lo, hi;
};
inline Weights4x16 load_weights(const uint8_t* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
inline void store(uint8_t* p, Weights4x16 w) {
    _mm256_storeu_si256((__m256i*)p, w.lo), _mm256_storeu_si256((__m256i*)(p + 32), w.hi);
}
inline Weights4x16 low_nibbles(Weights4x16 w) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(w.lo, mask), _mm256_and_si256(w.hi, mask)};
}
inline Weights4x16 high_nibbles(Weights4x16 w) { return low_nibbles({_mm256_srli_epi16(w.lo, 4), _mm256_srli_epi16(w.hi, 4)}); }

inline __m256i four_bytes(const int8_t* a) {
    int32_t bits;
    std::memcpy(&bits, a, sizeof bits);
    return _mm256_set1_epi32(bits);
}
inline __m256i sum_pairs(__m256i shorts) { return _mm256_madd_epi16(shorts, _mm256_set1_epi16(1)); }
inline Floats to_floats(__m256i lo, __m256i hi) { return {_mm256_cvtepi32_ps(lo), _mm256_cvtepi32_ps(hi)}; }

inline void keep_memory(float* p) { __asm__("" : "+m"(*(float(*)[TILE])p)); }
// A sum under way stays one: compilers would turn a chain of additions into a tree and run out of registers for its leaves.
inline void keep(__m256i& sum) { __asm__("" : "+x"(sum)); }

#if !defined(OCTAVO_AVXVNNI)  // else micro_kernel_avxvnni.hpp
// Nibbles: a sum of two products is at most 2 * 15 * 127 = 3,810, so a group's eight of them (30,480) fit into 16 bits.
struct DotU4 {
    static constexpr int ROWS = 6;
    __m256i lo = _mm256_setzero_si256(), hi = _mm256_setzero_si256();
    void start(const int32_t*) {}
    void multiply_add(Weights4x16 w, const int8_t* a) {
        const __m256i x = four_bytes(a);
        lo = _mm256_add_epi16(lo, _mm256_maddubs_epi16(w.lo, x));
        hi = _mm256_add_epi16(hi, _mm256_maddubs_epi16(w.hi, x));
        keep(lo), keep(hi);
    }
    Floats finish() const { return to_floats(sum_pairs(lo), sum_pairs(hi)); }
};

// Up to 63: a sum of two products is at most 2 * 63 * 127 = 16,002, so two of them (32,004) fit into 16 bits.
struct DotU8 {
    static constexpr int ROWS = 4;
    __m256i lo = _mm256_setzero_si256(), hi = _mm256_setzero_si256();
    void start(const int32_t*) {}
    static void eight(__m256i& sum, __m256i w0, __m256i w1, const int8_t* a) {
        const __m256i first = _mm256_maddubs_epi16(w0, four_bytes(a)), second = _mm256_maddubs_epi16(w1, four_bytes(a + 4));
        sum = _mm256_add_epi32(sum, sum_pairs(_mm256_add_epi16(first, second)));
        keep(sum);
    }
    Floats finish() const { return to_floats(lo, hi); }
};

// Signed bytes: w * a = |w| * (a with the sign of w). A sum of two products is at most 2 * 128 * 127 = 32,512: it fits into 16
// bits (|-128| is 128 as an unsigned byte; activations are never -128).
struct DotQ8 {
    static constexpr int ROWS = 4;
    __m256i lo = _mm256_setzero_si256(), hi = _mm256_setzero_si256();
    void start(const int32_t*) {}
    static __m256i product(__m256i w, __m256i x) {
        return sum_pairs(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
    }
    void multiply_add(Weights4x16 w, const int8_t* a) {
        const __m256i x = four_bytes(a);
        lo = _mm256_add_epi32(lo, product(w.lo, x));
        hi = _mm256_add_epi32(hi, product(w.hi, x));
        keep(lo), keep(hi);
    }
    Floats finish() const { return to_floats(lo, hi); }
};
#endif

struct Group {
    __m256 v[4];
};
inline Group load_group(const float* p) {
    return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8), _mm256_loadu_ps(p + 16), _mm256_loadu_ps(p + 24)}};
}
inline void store(float* p, const Group& x) {
    for (int i = 0; i < 4; ++i) _mm256_storeu_ps(p + 8 * i, x.v[i]);
}
inline float largest(const Group& x) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i) m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_castps_si256(x.v[i]), magnitude));
    __m128i n = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    n = _mm_max_epi32(n, _mm_shuffle_epi32(n, _MM_SHUFFLE(1, 0, 3, 2)));
    n = _mm_max_epi32(n, _mm_shuffle_epi32(n, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtss_f32(_mm_castsi128_ps(n));
}
inline int32_t sum_of(__m256i v) {
    __m128i n = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    n = _mm_add_epi32(n, _mm_shuffle_epi32(n, _MM_SHUFFLE(1, 0, 3, 2)));
    n = _mm_add_epi32(n, _mm_shuffle_epi32(n, _MM_SHUFFLE(2, 3, 0, 1)));
    return _mm_cvtsi128_si32(n);
}
inline void round_group(const Group& x, float factor, int8_t* q, int32_t* sums) {
    __m256i i[4];
    for (int j = 0; j < 4; ++j) i[j] = _mm256_cvtps_epi32(_mm256_mul_ps(x.v[j], _mm256_set1_ps(factor)));
    sums[0] = sum_of(_mm256_add_epi32(i[0], i[1])), sums[1] = sum_of(_mm256_add_epi32(i[2], i[3]));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing goes by 128-bit lanes
    _mm256_storeu_si256((__m256i*)q, _mm256_permutevar8x32_epi32(bytes, order));
}

// One vector of weights, or eight of the columns, after the other for all rows: so the registers suffice for four rows and more.
template <class Dot, int R>
inline void add_pair(Dot (&dots)[R], Weights4x16 w0, Weights4x16 w1, const int8_t* a, size_t stride) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dots[r].multiply_add(w0, a + r * stride);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dots[r].multiply_add(w1, a + r * stride + 4);
}
#if !defined(OCTAVO_AVXVNNI)
template <int R>
inline void add_pair(DotU8 (&dots)[R], Weights4x16 w0, Weights4x16 w1, const int8_t* a, size_t stride) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) DotU8::eight(dots[r].lo, w0.lo, w1.lo, a + r * stride);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) DotU8::eight(dots[r].hi, w0.hi, w1.hi, a + r * stride);
}
#endif

}  // namespace micro_kernel
}  // namespace
}  // namespace octavo::OCTAVO_ISA
