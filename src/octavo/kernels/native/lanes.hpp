// Eight floats at once, in the compilers' own vector extension: written once, compiled for every instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(OCTAVO_AVX2)
#include <immintrin.h>
#endif

namespace octavo {

typedef float f32x8 __attribute__((vector_size(32)));
typedef int32_t i32x8 __attribute__((vector_size(32)));

}  // namespace octavo

namespace octavo::OCTAVO_ISA {
namespace {

inline f32x8 load8(const float* p) {
    f32x8 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store8(float* p, f32x8 v) { std::memcpy(p, &v, sizeof v); }
inline f32x8 all8(float x) { return f32x8{x, x, x, x, x, x, x, x}; }
inline float sum8(f32x8 v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// The first n < 8 floats of p, then zeros; and back. What lies behind them is neither read nor written.
inline f32x8 load_part(const float* p, int n) {
    f32x8 v = {};
    std::memcpy(&v, p, size_t(n) * sizeof(float));
    return v;
}
inline void store_part(float* p, f32x8 v, int n) { std::memcpy(p, &v, size_t(n) * sizeof(float)); }

// Numbers as the cache keeps them: bfloat16 is the upper half of a float.
inline f32x8 load8(const uint16_t* p) {
    typedef uint16_t u16x8 __attribute__((vector_size(16)));
    u16x8 v;
    std::memcpy(&v, p, sizeof v);
    return (f32x8)(__builtin_convertvector(v, i32x8) << 16);
}
inline f32x8 load8(const int8_t* p) {
#if defined(OCTAVO_AVX2)
    return (f32x8)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
#else
    f32x8 v;
    for (int i = 0; i < 8; ++i) v[i] = float(p[i]);
    return v;
#endif
}

// a * b + c, spelled out: a compiler that fuses here and not there would make a row's result depend on how it was blocked.
inline f32x8 fma8(f32x8 a, f32x8 b, f32x8 c) {
#if defined(OCTAVO_AVX2)
    return (f32x8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}
inline f32x8 max8(f32x8 a, f32x8 b) { return a > b ? a : b; }
inline float highest8(f32x8 v) {
    float best = v[0];
    for (int i = 1; i < 8; ++i) best = v[i] > best ? v[i] : best;
    return best;
}
inline i32x8 first8() { return i32x8{0, 1, 2, 3, 4, 5, 6, 7}; }
inline i32x8 all8i(int32_t x) { return i32x8{x, x, x, x, x, x, x, x}; }

}  // namespace
}  // namespace octavo::OCTAVO_ISA
