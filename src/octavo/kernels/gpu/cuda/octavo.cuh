// What every kernel includes: element types and their conversions, 16-byte packs, warp reductions, activations.
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
// Two at once, the first in the low half.
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
DEVICE float to_float(float16 value) { return emulated::from_half(value.bits); }
DEVICE void convert(float value, bfloat16& out) { out.bits = emulated::to_bfloat16(value); }
DEVICE void convert(float value, float16& out) { out.bits = emulated::to_half(value); }
template <class T>
DEVICE uint32_t pack_pair(float low, float high, T) {
  T first, second;
  convert(low, first);
  convert(high, second);
  return first.bits | static_cast<uint32_t>(second.bits) << 16;
}
#endif

template <class T>
DEVICE T from_float(float value) {
  T out;
  convert(value, out);
  return out;
}

// ---- 16 bytes at a time ---------------------------------------------------------------------------------------------

// One 128-bit load or store is the widest that a thread has: fewest instructions for the bytes, and whole sectors.
template <class T>
struct Pack {
  static constexpr int SIZE = 16 / sizeof(T);
  union {
    uint4 raw;
    T values[SIZE];
  };
  DEVICE Pack() : raw{} {}
  DEVICE float operator[](int i) const { return to_float(values[i]); }
};

template <class T>
DEVICE Pack<T> load_pack(const T* from) {
  Pack<T> out;
  out.raw = *reinterpret_cast<const uint4*>(from);
  return out;
}
template <class T>
DEVICE void store_pack(T* to, const Pack<T>& pack) {
  *reinterpret_cast<uint4*>(to) = pack.raw;
}
// As above, past the caches' usual order: data that nobody reads again.
template <class T>
DEVICE Pack<T> load_pack_once(const T* from) {
  Pack<T> out;
  out.raw = __ldcs(reinterpret_cast<const uint4*>(from));
  return out;
}
template <class T>
DEVICE void store_pack_once(T* to, const Pack<T>& pack) {
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

// GELU is the exact one, x * Phi(x); GELU_TANH its approximation by tanh (Hendrycks and Gimpel, 2016).
template <int KIND>
DEVICE float activate(float x) {
  if constexpr (KIND == GELU) return 0.5f * x * (1.0f + erff(x * 0.70710678f));
  if constexpr (KIND == GELU_TANH) {
    float inner = 0.79788456f * (x + 0.044715f * x * x * x);
    return x / (1.0f + __expf(-2.0f * inner));  // (1 + tanh(y)) / 2 = 1 / (1 + exp(-2y))
  }
  if constexpr (KIND == SILU) return x / (1.0f + __expf(-x));
  return x;
}

constexpr DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
constexpr DEVICE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
