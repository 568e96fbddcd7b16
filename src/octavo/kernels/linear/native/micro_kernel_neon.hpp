// Matmul micro-kernel for ARM NEON with dot products: 16 output columns in four registers of four.
// The names are explained in micro_kernel_portable.hpp.
#pragma once

#include <arm_neon.h>

#include "float16.hpp"

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

constexpr int FLOAT_ROWS = 4;  // 16 of 32 registers for sums, 4 for weights

struct Floats {
    float32x4_t v[4];
};
template <class F>
inline Floats each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
}
inline Floats all(float x) {
    return each([&](int) { return vdupq_n_f32(x); });
}
inline Floats load(const float* p) {
    return each([&](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store(float* p, const Floats& x) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
}
inline Floats load_f16(const uint16_t* p) {
    return each([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
inline Floats load_bf16(const uint16_t* p) {
    return each([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
inline Floats add(const Floats& a, const Floats& b) {
    return each([&](int i) { return vaddq_f32(a.v[i], b.v[i]); });
}
inline Floats mul(const Floats& a, const Floats& b) {
    return each([&](int i) { return vmulq_f32(a.v[i], b.v[i]); });
}
inline Floats fma(const Floats& a, const Floats& b, const Floats& c) {
    return each([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); });
}
inline void keep_memory(float*) {}

struct Weights4x16 {
    uint8x16_t v[4];
};
inline Weights4x16 load_weights(const uint8_t* p) { return {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}}; }
inline void store(uint8_t* p, const Weights4x16& w) {
    for (int i = 0; i < 4; ++i) vst1q_u8(p + 16 * i, w.v[i]);
}
inline Weights4x16 low_nibbles(Weights4x16 w) {
    for (uint8x16_t& e : w.v) e = vandq_u8(e, vdupq_n_u8(15));
    return w;
}
inline Weights4x16 high_nibbles(Weights4x16 w) {
    for (uint8x16_t& e : w.v) e = vshrq_n_u8(e, 4);
    return w;
}

// Four products of signed bytes and their sum in 32 bits. Weights without sign are at most 63: signed bytes as well.
struct DotSigned {
    static constexpr int ROWS = 4;  // 16 sums, 4 registers of weights, activations
    int32x4_t v[4] = {};
    void start(const int32_t*) {}
    Floats finish() const {
        return each([&](int i) { return vcvtq_f32_s32(v[i]); });
    }
};
using DotU4 = DotSigned;
using DotU8 = DotSigned;
using DotQ8 = DotSigned;

template <int R>
inline void add_pair(DotSigned (&dots)[R], const Weights4x16& w0, const Weights4x16& w1, const int8_t* a, size_t stride) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        const int8x8_t x = vld1_s8(a + r * stride);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            dots[r].v[i] = vdotq_lane_s32(dots[r].v[i], vreinterpretq_s8_u8(w0.v[i]), x, 0);
            dots[r].v[i] = vdotq_lane_s32(dots[r].v[i], vreinterpretq_s8_u8(w1.v[i]), x, 1);
        }
    }
}

struct Group {
    Floats part[2];
};
inline Group load_group(const float* p) { return {{load(p), load(p + 16)}}; }
inline void store(float* p, const Group& x) { store(p, x.part[0]), store(p + 16, x.part[1]); }
inline float largest(const Group& x) {
    uint32x4_t most = vdupq_n_u32(0);
    for (const Floats& part : x.part)
        for (const float32x4_t e : part.v) most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(e), vdupq_n_u32(0x7fffffff)));
    return float_of_bits(vmaxvq_u32(most));
}
inline void round_group(const Group& x, float factor, int8_t* q, int32_t* sums) {
    for (int h = 0; h < 2; ++h) {
        int32x4_t n[4];
        for (int i = 0; i < 4; ++i) n[i] = vcvtnq_s32_f32(vmulq_n_f32(x.part[h].v[i], factor));  // ties to even
        sums[h] = vaddvq_s32(vaddq_s32(vaddq_s32(n[0], n[1]), vaddq_s32(n[2], n[3])));
        const int16x8_t low = vcombine_s16(vmovn_s32(n[0]), vmovn_s32(n[1])), high = vcombine_s16(vmovn_s32(n[2]), vmovn_s32(n[3]));
        vst1q_s8(q + 16 * h, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }
}

}  // namespace micro_kernel
}  // namespace
}  // namespace octavo::OCTAVO_ISA
