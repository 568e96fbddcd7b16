// Quantized blocks of GGUF files (Q4_0 to Q6_K) decoded to groups of 32 integers with exact scale and min.
//
// w = scale * q + min in exact arithmetic is what the file says. Block layouts: ggml's own documentation of its types
// (ggml-common.h, MIT). Included by pack_weights.cpp alone.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>

#include "../../native/types.hpp"

namespace octavo {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF and safetensors are little endian");

// GROUP elements of K of one row of the weight, before they are interleaved with other rows. Bytes of `words` in order are the
// elements: signed for Q8, unsigned for U8 and U4.
struct Group {
    uint32_t words[8];
    float scale[2], min[2];  // one each, or one for each 16 elements
};

// --- float16, without the types and instructions that not every compiler and CPU has -----------------------------------------

float f16_to_float(uint16_t h) {  // exact; infinite and NaN come out as such
    const uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7FFF;
    if (rest < 0x0400) return std::copysign(float(rest) * 0x1p-24f, std::bit_cast<float>(sign | 0x3F800000u));
    return std::bit_cast<float>(sign | ((rest << 13) + (rest < 0x7C00 ? 112u << 23 : 224u << 23)));
}

float read_f16(const uint8_t* p) {
    uint16_t h;
    std::memcpy(&h, p, sizeof h);
    return f16_to_float(h);
}

// The nearest float16, ties to even; false beyond its range.
bool nearest_f16(float x, uint16_t* h) {
    const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7FFFFFFF;
    const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
    if (magnitude < 113u << 23) {  // below 2^-14: multiples of 2^-24, and their count is the float16's bits
        *h = uint16_t(sign | uint16_t(std::lrintf(std::fabs(x) * 0x1p24f)));
        return true;
    }
    const uint32_t rounded = (magnitude - (112u << 23) + 0x0FFF + (magnitude >> 13 & 1)) >> 13;
    *h = uint16_t(sign | rounded);
    return rounded < 0x7C00;
}

// --- blocks -> groups --------------------------------------------------------------------------------------------------------

constexpr uint32_t NIBBLES = 0x0F0F0F0F, PAIRS = 0x03030303, BITS = 0x01010101;

uint32_t word(const uint8_t* p) {
    uint32_t w;
    std::memcpy(&w, p, sizeof w);
    return w;
}

// Blocks of 32: d, [m], [32 high bits], 16 bytes whose low nibbles are elements 0..15 and whose high ones 16..31.
void nibble_block(const uint8_t* block, bool has_min, bool has_high, Group* out) {
    const float d = read_f16(block);
    const uint8_t* high = block + (has_min ? 4 : 2);
    const uint8_t* low = high + (has_high ? 4 : 0);
    for (int i = 0; i < 4; ++i) {
        const uint32_t w = word(low + 4 * i);
        out->words[i] = w & NIBBLES;
        out->words[4 + i] = w >> 4 & NIBBLES;
    }
    if (has_high) {
        const uint32_t bits = word(high);
        for (int i = 0; i < 8; ++i) out->words[i] |= ((bits >> 4 * i & 15) * 0x00204081u & BITS) << 4;
    }
    out->scale[0] = d;
    out->min[0] = has_min ? read_f16(block + 2) : d * (has_high ? -16.f : -8.f);
}

void q4_0(const uint8_t* block, int, Group* out) { nibble_block(block, false, false, out); }
void q4_1(const uint8_t* block, int, Group* out) { nibble_block(block, true, false, out); }
void q5_0(const uint8_t* block, int, Group* out) { nibble_block(block, false, true, out); }
void q5_1(const uint8_t* block, int, Group* out) { nibble_block(block, true, true, out); }

void q8_0(const uint8_t* block, int, Group* out) {
    out->scale[0] = read_f16(block);
    out->min[0] = 0;
    std::memcpy(out->words, block + 2, 32);
}

// Q4_K and Q5_K: d, dmin, 12 bytes of eight 6-bit scales and eight 6-bit mins, [32 bytes of high bits], 128 bytes of nibbles.
void k_scales(const uint8_t* block, int g, Group* out) {
    const uint8_t* p = block + 4;
    const int scale = g < 4 ? p[g] & 63 : (p[g + 4] & 15) | (p[g - 4] >> 6) << 4;
    const int min = g < 4 ? p[g + 4] & 63 : p[g + 4] >> 4 | (p[g] >> 6) << 4;
    out->scale[0] = read_f16(block) * float(scale);
    out->min[0] = -(read_f16(block + 2) * float(min));
}

void q4_k(const uint8_t* block, int g, Group* out) {
    k_scales(block, g, out);
    const uint8_t* low = block + 16 + 32 * (g / 2);
    for (int i = 0; i < 8; ++i) out->words[i] = word(low + 4 * i) >> 4 * (g % 2) & NIBBLES;
}

void q5_k(const uint8_t* block, int g, Group* out) {
    k_scales(block, g, out);
    const uint8_t *high = block + 16, *low = block + 48 + 32 * (g / 2);
    for (int i = 0; i < 8; ++i)
        out->words[i] = (word(low + 4 * i) >> 4 * (g % 2) & NIBBLES) | (word(high + 4 * i) >> g & BITS) << 4;
}

// Q6_K: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales of 16 elements each, d. w = d * scale * (q - 32).
void q6_k(const uint8_t* block, int g, Group* out) {
    const int part = g / 4, quarter = g % 4;
    const uint8_t *low = block + 64 * part + 32 * (quarter % 2), *high = block + 128 + 32 * part;
    for (int i = 0; i < 8; ++i)
        out->words[i] = (word(low + 4 * i) >> 4 * (quarter / 2) & NIBBLES) | (word(high + 4 * i) >> 2 * quarter & PAIRS) << 4;
    for (int h = 0; h < 2; ++h) {
        out->scale[h] = read_f16(block + 208) * float(int8_t(block[192 + 2 * g + h]));
        out->min[h] = -32.f * out->scale[h];
    }
}

struct BlockType {
    int id, elements, bytes;
    Format format;
    int scales_per_group;
    void (*decode)(const uint8_t* block, int group, Group* out);
};

constexpr BlockType BLOCK_TYPES[] = {
    {2, 32, 18, Format::U4, 1, q4_0},     {3, 32, 20, Format::U4, 1, q4_1},     {6, 32, 22, Format::U8, 1, q5_0},
    {7, 32, 24, Format::U8, 1, q5_1},     {8, 32, 34, Format::Q8, 1, q8_0},     {12, 256, 144, Format::U4, 1, q4_k},
    {13, 256, 176, Format::U8, 1, q5_k},  {14, 256, 210, Format::U8, 2, q6_k},
};

}  // namespace
}  // namespace octavo
