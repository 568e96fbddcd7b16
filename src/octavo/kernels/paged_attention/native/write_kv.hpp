// Store of one token's key and value in the paged KV cache, as float32, bfloat16 or int8. Layout: ../../native/types.hpp.
#pragma once

#include "../../native/simd.hpp"
#include "../../native/thread_pool.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

inline size_t kv_head_at(const KvShape& s, size_t sub_block, int head) { return sub_block * s.num_kv_heads + head; }

// Round to nearest, ties to even; a NaN stays one.
inline uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void store_as(float* to, float x) { *to = x; }
inline void store_as(uint16_t* to, float x) { *to = to_bf16(x); }

template <class T>
inline void write_floats(const KvShape& s, const KvLayer& layer, size_t sub_block, int token, Range heads, const float* k, const float* v) {
    for (int head = heads.begin; head < heads.end; ++head, k += s.head_dim, v += s.head_dim) {
        const size_t at = kv_head_at(s, sub_block, head) * s.head_dim * SUB_BLOCK;
        T* keys = static_cast<T*>(layer.keys) + at + token;
        T* values = static_cast<T*>(layer.values) + at + size_t(token) * s.head_dim;
        for (int d = 0; d < s.head_dim; ++d) store_as(keys + d * SUB_BLOCK, k[d]);
        for (int d = 0; d < s.head_dim; ++d) store_as(values + d, v[d]);
    }
}

// q = round(x * 127 / max|x|) to even, written every `step` bytes; returns the scale, max|x| / 127: NaN if an x is not finite.
inline float quantize_head(const float* x, int n, int8_t* q, int step) {
    float largest = 0, poison = 0;
    for (int d = 0; d < n; ++d) {
        const float a = __builtin_fabsf(x[d]);
        largest = a > largest ? a : largest;
        poison += x[d] * 0.0f;
    }
    const float factor = largest > 1e-35f ? 127.0f / largest : 0.0f;
    for (int d = 0; d < n; ++d) {
        const float shifted = x[d] * factor + 12582912.0f;  // + 1.5 * 2^23: the integer now stands in the low bits
        uint32_t bits;
        std::memcpy(&bits, &shifted, sizeof bits);
        q[d * step] = int8_t(bits);
    }
    return largest / 127.0f + poison;
}

inline void write_i8(const KvShape& s, const KvLayer& layer, size_t sub_block, int token, Range heads, const float* k, const float* v) {
    for (int head = heads.begin; head < heads.end; ++head, k += s.head_dim, v += s.head_dim) {
        const size_t at = kv_head_at(s, sub_block, head);
        int8_t* keys = static_cast<int8_t*>(layer.keys) + at * s.head_dim * SUB_BLOCK + token;
        int8_t* values = static_cast<int8_t*>(layer.values) + (at * SUB_BLOCK + token) * s.head_dim;
        layer.key_scales[at * SUB_BLOCK + token] = quantize_head(k, s.head_dim, keys, SUB_BLOCK);
        layer.value_scales[at * SUB_BLOCK + token] = quantize_head(v, s.head_dim, values, 1);
    }
}

// Heads [first, last); k and v point at the first of them.
void write_kv(const KvShape& s, const KvLayer& layer, int block, int offset, int first, int last, const float* k, const float* v) {
    OCTAVO_CHECK(0 <= first && last <= s.num_kv_heads);
    const size_t sub_block = kv_sub_block(s, block, offset);
    const int token = offset % SUB_BLOCK;
    const Range heads = {first, last};
    if (s.type == KvType::F32) write_floats<float>(s, layer, sub_block, token, heads, k, v);
    if (s.type == KvType::BF16) write_floats<uint16_t>(s, layer, sub_block, token, heads, k, v);
    if (s.type == KvType::I8) write_i8(s, layer, sub_block, token, heads, k, v);
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
