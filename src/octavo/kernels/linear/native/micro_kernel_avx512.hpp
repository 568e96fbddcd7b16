// Matmul micro-kernel for AVX-512 with VNNI: 16 output columns in one register.
// The names are explained in micro_kernel_portable.hpp.
#pragma once

#include "avx512_intrinsics.hpp"

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

namespace l = avx512_ops;

constexpr int FLOAT_ROWS = 8;

using l::Floats;
inline Floats all(float x) { return l::set1_ps(x); }
inline Floats load(const float* p) { return l::loadu_ps(p); }
inline void store(float* p, const Floats& x) { l::storeu_ps(p, x); }
inline Floats load_f16(const uint16_t* p) { return l::cvtph_ps(p); }
inline Floats load_bf16(const uint16_t* p) { return l::castsi512_ps(l::slli_epi32_16(l::cvtepu16_epi32(p))); }
inline Floats add(const Floats& a, const Floats& b) { return l::add_ps(a, b); }
inline Floats mul(const Floats& a, const Floats& b) { return l::mul_ps(a, b); }
inline Floats fma(const Floats& a, const Floats& b, const Floats& c) { return l::fmadd_ps(a, b, c); }
inline void keep_memory(float*) {}  // 32 registers hold the sums of ROWS rows

struct Weights4x16 {
    l::Ints v;
};
inline Weights4x16 load_weights(const uint8_t* p) { return {l::loadu_si512(p)}; }
inline void store(uint8_t* p, const Weights4x16& w) { l::storeu_si512(p, w.v); }
inline Weights4x16 low_nibbles(const Weights4x16& w) { return {l::and_si512(w.v, l::set1_epi32(0x0f0f0f0f))}; }
inline Weights4x16 high_nibbles(const Weights4x16& w) { return low_nibbles({l::srli_epi32_4(w.v)}); }

inline l::Ints four_bytes(const int8_t* a) {
    int32_t bits;
    std::memcpy(&bits, a, sizeof bits);
    return l::set1_epi32(bits);
}

// vpdpbusd adds four products of unsigned and signed bytes to 32 bits without saturating: at most 32 * 255 * 127 (1,036,320) in
// a group.
struct DotUnsigned {
    static constexpr int ROWS = 8;  // 8 integer and 8 float sums, a weight, scales, mins
    l::Ints sum;
    void start(const int32_t*) { sum = l::set1_epi32(0); }
    Floats finish() const { return l::cvtepi32_ps(sum); }
};
using DotU4 = DotUnsigned;
using DotU8 = DotUnsigned;

// Signed weights as w + 128, which flips their highest bit, from the offset that takes 128 * sum(a) back.
struct DotQ8 : DotUnsigned {
    void start(const int32_t* offset) { sum = l::set1_epi32(*offset); }
};

template <int R, class Dot>
inline void add_unsigned(Dot (&dots)[R], const l::Ints& w, const int8_t* a, size_t stride) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) dots[r].sum = l::dpbusd_epi32(dots[r].sum, w, four_bytes(a + r * stride));
}
template <int R>
inline void add_pair(DotUnsigned (&dots)[R], const Weights4x16& w0, const Weights4x16& w1, const int8_t* a, size_t stride) {
    add_unsigned<R>(dots, w0.v, a, stride);
    add_unsigned<R>(dots, w1.v, a + 4, stride);
}
template <int R>
inline void add_pair(DotQ8 (&dots)[R], const Weights4x16& w0, const Weights4x16& w1, const int8_t* a, size_t stride) {
    const l::Ints flip = l::set1_epi32(int32_t(0x80808080));
    add_unsigned<R>(dots, l::xor_si512(w0.v, flip), a, stride);
    add_unsigned<R>(dots, l::xor_si512(w1.v, flip), a + 4, stride);
}

struct Group {
    Floats v[2];
};
inline Group load_group(const float* p) { return {{load(p), load(p + 16)}}; }
inline void store(float* p, const Group& x) { store(p, x.v[0]), store(p + 16, x.v[1]); }
inline float largest(const Group& x) {
    const l::Ints magnitude = l::set1_epi32(0x7fffffff);
    const l::Ints a = l::and_si512(l::castps_si512(x.v[0]), magnitude), b = l::and_si512(l::castps_si512(x.v[1]), magnitude);
    return float_of_bits(uint32_t(l::reduce_max_epi32(l::max_epi32(a, b))));
}
inline void round_group(const Group& x, float factor, int8_t* q, int32_t* sums) {
    for (int i = 0; i < 2; ++i) {
        const l::Ints rounded = l::cvtps_epi32(l::mul_ps(x.v[i], l::set1_ps(factor)));
        l::cvtepi32_storeu_epi8(q + 16 * i, rounded);
        sums[i] = l::reduce_add_epi32(rounded);
    }
}

}  // namespace micro_kernel
}  // namespace
}  // namespace octavo::OCTAVO_ISA
