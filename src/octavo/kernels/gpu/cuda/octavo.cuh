// Common device code of the CUDA kernels: element types, conversions, 16-byte packs, warp reductions, activations.
// Self-contained, so that NVRTC compiles it without a CUDA toolkit; with OCTAVO_EMULATED a C++ compiler does (emulated.h).
#pragma once

#ifdef OCTAVO_EMULATED
#include "emulated.h"
#else
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define DEVICE __device__ __forceinline__
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;
#endif

struct float16 {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};
struct float8_e4m3fn {
  uint8_t bits;
};
typedef float float32;

constexpr int WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffffu;

// ---- conversions; rounding to nearest even --------------------------------------------------------------------------

DEVICE float to_float(float value) { return value; }
DEVICE float to_float(bfloat16 value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }

DEVICE void convert(float value, float& out) { out = value; }

#ifndef OCTAVO_EMULATED
DEVICE float to_float(float16 value) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(value.bits));
  return out;
}
DEVICE void convert(float value, bfloat16& out) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(value)); }
DEVICE void convert(float value, float16& out) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value)); }
// Two at once, the first in the low 16 bits.
DEVICE uint32_t pack_pair(float low, float high, bfloat16) {
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
DEVICE uint32_t pack_pair(float low, float high, float16) {
  uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}
#else
DEVICE float to_float(float16 value) { return emulated::from_float16(value.bits); }
DEVICE void convert(float value, bfloat16& out) { out.bits = emulated::to_bfloat16(value); }
DEVICE void convert(float value, float16& out) { out.bits = emulated::to_float16(value); }
template <class U>
DEVICE uint32_t pack_pair(float low, float high, U) {
  U first, second;
  convert(low, first);
  convert(high, second);
  return first.bits | static_cast<uint32_t>(second.bits) << 16;
}
#endif

// As a float16 with the exponent's bias corrected: exact, subnormals included; all ones is the one NaN. For any architecture.
DEVICE float to_float(float8_e4m3fn value) {
  uint32_t size = value.bits & 0x7f;
  float out = to_float(float16{static_cast<uint16_t>((value.bits & 0x80) << 8 | size << 7)}) * 256.0f;
  return size == 0x7f ? __uint_as_float(0x7fc00000u) : out;
}

// The special function unit's own, 2 units in the last place off; without the handling of denormals, which costs 5 instructions.
#ifndef OCTAVO_EMULATED
DEVICE float fast_exp2(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}
DEVICE float fast_reciprocal(float x) {
  float out;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}
#else
DEVICE float fast_exp2(float x) { return exp2f(x); }
DEVICE float fast_reciprocal(float x) { return 1.0f / x; }
#endif
constexpr float LOG2_E = 1.44269504f;
DEVICE float fast_exp(float x) { return fast_exp2(LOG2_E * x); }

template <class U>
DEVICE U from_float(float value) {
  U out;
  convert(value, out);
  return out;
}

// ---- 16 bytes at a time ---------------------------------------------------------------------------------------------

// One 128-bit load or store is the widest that a thread has: fewest instructions for the bytes, and whole sectors.
template <class U>
struct Pack {
  static constexpr int SIZE = 16 / sizeof(U);
  union {
    uint4 raw;
    U values[SIZE];
  };
  DEVICE Pack() : raw{} {}
  DEVICE float operator[](int i) const { return to_float(values[i]); }
};

// Each rounded; 16-bit types by an instruction for two.
template <class U>
DEVICE Pack<U> pack_floats(const float (&values)[Pack<U>::SIZE]) {
  Pack<U> out;
  if constexpr (sizeof(U) == 2) {
    out.raw = {pack_pair(values[0], values[1], U{}), pack_pair(values[2], values[3], U{}),
               pack_pair(values[4], values[5], U{}), pack_pair(values[6], values[7], U{})};
  } else {
    for (int i = 0; i < Pack<U>::SIZE; i++) out.values[i] = values[i];
  }
  return out;
}

template <class U>
DEVICE Pack<U> load_pack(const U* from) {
  Pack<U> out;
  out.raw = *reinterpret_cast<const uint4*>(from);
  return out;
}
template <class U>
DEVICE void store_pack(U* to, const Pack<U>& pack) {
  *reinterpret_cast<uint4*>(to) = pack.raw;
}
// As above, past the caches' usual order: data that nobody reads again.
template <class U>
DEVICE Pack<U> load_pack_once(const U* from) {
  Pack<U> out;
  out.raw = __ldcs(reinterpret_cast<const uint4*>(from));
  return out;
}
template <class U>
DEVICE void store_pack_once(U* to, const Pack<U>& pack) {
  __stcs(reinterpret_cast<uint4*>(to), pack.raw);
}

// ---- warps ----------------------------------------------------------------------------------------------------------

// Butterfly: after five exchanges every lane has the sum of all, always added in the same order.
DEVICE float warp_sum(float value) {
#pragma unroll
  for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
  return value;
}
DEVICE float warp_max(float value) {
#pragma unroll
  for (int offset = WARP / 2; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, offset));
  return value;
}

// ---- activations ----------------------------------------------------------------------------------------------------

constexpr int IDENTITY = 0, GELU = 1, GELU_TANH = 2, SILU = 3;

// x * Phi(x) = max(x, 0) - |x| * erfc(|x| / sqrt(2)) / 2, erfc by 7.1.26 of Abramowitz and Stegun (1964): off by at most
// 1.5e-7, far below one rounding of a 16-bit result, in a third of erff's instructions, which would bound a row-wise kernel.
DEVICE float gelu_fast(float x) {
  float size = fabsf(x), t = fast_reciprocal(fmaf(size, 0.3275911f * 0.70710678f, 1.0f));
  float series = fmaf(fmaf(fmaf(fmaf(0.5307027145f, t, -0.7265760135f), t, 0.7107068705f), t, -0.142248368f), t, 0.127414796f);
  return fmaf(-size * t, series * fast_exp2(-0.5f * LOG2_E * x * x), fmaxf(x, 0.0f));  // the halved coefficients
}

// For a result of type U. GELU is x * Phi(x), GELU_TANH its approximation by tanh (Hendrycks and Gimpel, 2016).
template <int KIND, class U>
DEVICE float activate(float x) {
  if constexpr (KIND == GELU) return sizeof(U) == 2 ? gelu_fast(x) : 0.5f * x * (1.0f + erff(x * 0.70710678f));
  if constexpr (KIND == GELU_TANH) {
    float inner = 0.79788456f * (x + 0.044715f * x * x * x);
    return x * fast_reciprocal(1.0f + fast_exp(-2.0f * inner));  // (1 + tanh(y)) / 2 = 1 / (1 + exp(-2y))
  }
  if constexpr (KIND == SILU) return x * fast_reciprocal(1.0f + fast_exp(-x));
  return x;
}

constexpr DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
constexpr DEVICE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
