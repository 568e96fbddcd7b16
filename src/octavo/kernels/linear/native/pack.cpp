// Stored rows of a weight -> a packed matrix (types.hpp has the layouts). Runs once at load, so it is portable: no ISA flags.
//
// Block types keep every bit: w = scale * q + min in exact arithmetic is what the file says. Float rows are kept as floats, or
// quantised where the matrix asks for Q8 or U4. Block layouts: ggml's own documentation of its types (ggml-common.h, MIT).
#include <bit>
#include <cmath>
#include <cstring>

#include "../../native/types.hpp"

namespace octavo {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF and safetensors are little endian");

enum Result : int { OK = 0, UNSUPPORTED = 1, WRONG_SIZE = 2, NOT_FINITE = 3, SCALE_RANGE = 4 };

// 32 elements of K of one row. Bytes of `quads` in order are the elements: signed for Q8, unsigned for U8 and U4.
struct Group {
    uint32_t quads[8];
    float scale[2], min[2];  // one each, or one for each half
};

// --- half precision, without the types and instructions that not every compiler and CPU has ---------------------------------

float from_half(uint16_t h) {  // exact; infinite and NaN come out as such
    const uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7FFF;
    if (rest < 0x0400) return std::copysign(float(rest) * 0x1p-24f, std::bit_cast<float>(sign | 0x3F800000u));
    return std::bit_cast<float>(sign | ((rest << 13) + (rest < 0x7C00 ? 112u << 23 : 224u << 23)));
}

float read_half(const uint8_t* p) {
    uint16_t h;
    std::memcpy(&h, p, sizeof h);
    return from_half(h);
}

// The nearest half, ties to even; false beyond its range.
bool nearest_half(float x, uint16_t* h) {
    const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7FFFFFFF;
    const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
    if (magnitude < 113u << 23) {  // below 2^-14: multiples of 2^-24, and their count is the half's bits
        *h = uint16_t(sign | uint16_t(std::lrintf(std::fabs(x) * 0x1p24f)));
        return true;
    }
    const uint32_t rounded = (magnitude - (112u << 23) + 0x0FFF + (magnitude >> 13 & 1)) >> 13;
    *h = uint16_t(sign | rounded);
    return rounded < 0x7C00;
}

// --- stored blocks -> groups ------------------------------------------------------------------------------------------------

constexpr uint32_t NIBBLES = 0x0F0F0F0F, PAIRS = 0x03030303, BITS = 0x01010101;

uint32_t word(const uint8_t* p) {
    uint32_t w;
    std::memcpy(&w, p, sizeof w);
    return w;
}

// Blocks of 32: d, [m], [32 high bits], 16 bytes whose low nibbles are elements 0..15 and whose high ones 16..31.
void nibble_block(const uint8_t* block, bool has_min, bool has_high, Group* out) {
    const float d = read_half(block);
    const uint8_t* high = block + (has_min ? 4 : 2);
    const uint8_t* low = high + (has_high ? 4 : 0);
    for (int i = 0; i < 4; ++i) {
        const uint32_t w = word(low + 4 * i);
        out->quads[i] = w & NIBBLES;
        out->quads[4 + i] = w >> 4 & NIBBLES;
    }
    if (has_high) {
        const uint32_t bits = word(high);
        for (int i = 0; i < 8; ++i) out->quads[i] |= ((bits >> 4 * i & 15) * 0x00204081u & BITS) << 4;
    }
    out->scale[0] = d;
    out->min[0] = has_min ? read_half(block + 2) : d * (has_high ? -16.f : -8.f);
}

void q4_0(const uint8_t* block, int, Group* out) { nibble_block(block, false, false, out); }
void q4_1(const uint8_t* block, int, Group* out) { nibble_block(block, true, false, out); }
void q5_0(const uint8_t* block, int, Group* out) { nibble_block(block, false, true, out); }
void q5_1(const uint8_t* block, int, Group* out) { nibble_block(block, true, true, out); }

void q8_0(const uint8_t* block, int, Group* out) {
    out->scale[0] = read_half(block);
    out->min[0] = 0;
    std::memcpy(out->quads, block + 2, 32);
}

// Q4_K and Q5_K: d, dmin, 12 bytes of eight 6-bit scales and eight 6-bit mins, [32 bytes of high bits], 128 bytes of nibbles.
void k_scales(const uint8_t* block, int g, Group* out) {
    const uint8_t* p = block + 4;
    const int scale = g < 4 ? p[g] & 63 : (p[g + 4] & 15) | (p[g - 4] >> 6) << 4;
    const int min = g < 4 ? p[g + 4] & 63 : p[g + 4] >> 4 | (p[g] >> 6) << 4;
    out->scale[0] = read_half(block) * float(scale);
    out->min[0] = -(read_half(block + 2) * float(min));
}

void q4_k(const uint8_t* block, int g, Group* out) {
    k_scales(block, g, out);
    const uint8_t* low = block + 16 + 32 * (g / 2);
    for (int i = 0; i < 8; ++i) out->quads[i] = word(low + 4 * i) >> 4 * (g % 2) & NIBBLES;
}

void q5_k(const uint8_t* block, int g, Group* out) {
    k_scales(block, g, out);
    const uint8_t *high = block + 16, *low = block + 48 + 32 * (g / 2);
    for (int i = 0; i < 8; ++i)
        out->quads[i] = (word(low + 4 * i) >> 4 * (g % 2) & NIBBLES) | (word(high + 4 * i) >> g & BITS) << 4;
}

// Q6_K: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales of 16 elements each, d. w = d * scale * (q - 32).
void q6_k(const uint8_t* block, int g, Group* out) {
    const int half = g / 4, quarter = g % 4;
    const uint8_t *low = block + 64 * half + 32 * (quarter % 2), *high = block + 128 + 32 * half;
    for (int i = 0; i < 8; ++i)
        out->quads[i] = (word(low + 4 * i) >> 4 * (quarter / 2) & NIBBLES) | (word(high + 4 * i) >> 2 * quarter & PAIRS) << 4;
    for (int h = 0; h < 2; ++h) {
        out->scale[h] = read_half(block + 208) * float(int8_t(block[192 + 2 * g + h]));
        out->min[h] = -32.f * out->scale[h];
    }
}

struct BlockType {
    int id, elements, bytes;
    Format format;
    int halves;
    void (*decode)(const uint8_t* block, int group, Group* out);
};

constexpr BlockType BLOCK_TYPES[] = {
    {2, 32, 18, Format::U4, 1, q4_0},     {3, 32, 20, Format::U4, 1, q4_1},     {6, 32, 22, Format::U8, 1, q5_0},
    {7, 32, 24, Format::U8, 1, q5_1},     {8, 32, 34, Format::Q8, 1, q8_0},     {12, 256, 144, Format::U4, 1, q4_k},
    {13, 256, 176, Format::U8, 1, q5_k},  {14, 256, 210, Format::U8, 2, q6_k},
};

// --- groups -> a packed matrix ----------------------------------------------------------------------------------------------

Result store_number(ScaleType type, const void* array, int64_t index, float x) {
    if (!std::isfinite(x)) return NOT_FINITE;
    if (type == ScaleType::F32) {
        static_cast<float*>(const_cast<void*>(array))[index] = x;
        return OK;
    }
    uint16_t h;
    if (!nearest_half(x, &h) || from_half(h) != x) return SCALE_RANGE;
    static_cast<uint16_t*>(const_cast<void*>(array))[index] = h;
    return OK;
}

Result store_group(const Matrix& to, int64_t tile, int64_t g, int column, const Group& group) {
    const int words = to.format == Format::U4 ? 4 : 8;
    auto* elements = static_cast<uint32_t*>(const_cast<void*>(to.elements)) + (tile * to.num_groups + g) * words * TILE + column;
    for (int i = 0; i < words; ++i)
        elements[i * TILE] = words == 8 ? group.quads[i] : group.quads[2 * i] | group.quads[2 * i + 1] << 4;
    for (int half = 0; half < to.halves; ++half) {
        const int64_t index = ((tile * to.num_groups + g) * to.halves + half) * TILE + column;
        if (const Result result = store_number(to.scale_type, to.scales, index, group.scale[half])) return result;
        if (to.format == Format::Q8) continue;
        if (const Result result = store_number(to.scale_type, to.mins, index, group.min[half])) return result;
    }
    return OK;
}

Result pack_blocks(const BlockType& type, const uint8_t* rows, int tile0, int tile1, const Matrix& to) {
    const int groups_a_block = type.elements / GROUP;
    const int64_t row_bytes = int64_t(to.k) / type.elements * type.bytes;
    for (int tile = tile0; tile < tile1; ++tile)
        for (int g = 0; g < to.num_groups; ++g)
            for (int column = 0; column < TILE; ++column) {
                const int64_t row = int64_t(tile) * TILE + column;
                Group group = {};
                if (row < to.n)
                    type.decode(rows + (row - int64_t(tile0) * TILE) * row_bytes + int64_t(g / groups_a_block) * type.bytes,
                                g % groups_a_block, &group);
                if (const Result result = store_group(to, tile, g, column, group)) return result;
            }
    return OK;
}

// --- floats: kept, or quantised ---------------------------------------------------------------------------------------------

struct FloatType {
    int id, bytes;
};
constexpr FloatType FLOAT_TYPES[] = {{0, 4}, {1, 2}, {30, 2}};  // F32, F16, BF16

float read_float(const FloatType& type, const uint8_t* p) {
    if (type.bytes == 4) return std::bit_cast<float>(word(p));
    uint16_t h;
    std::memcpy(&h, p, sizeof h);
    return type.id == 1 ? from_half(h) : std::bit_cast<float>(uint32_t(h) << 16);
}

Result keep_floats(const FloatType& type, const uint8_t* rows, int tile0, int tile1, const Matrix& to) {
    const int64_t padded_k = int64_t(to.num_groups) * GROUP;
    auto* floats = static_cast<float*>(const_cast<void*>(to.elements));
    auto* shorts = static_cast<uint16_t*>(const_cast<void*>(to.elements));
    bool finite = true;
    for (int tile = tile0; tile < tile1; ++tile)
        for (int64_t k = 0; k < padded_k; ++k)
            for (int column = 0; column < TILE; ++column) {
                const int64_t row = int64_t(tile) * TILE + column, at = (tile * padded_k + k) * TILE + column;
                const bool inside = row < to.n && k < to.k;
                const uint8_t* p = rows + ((row - int64_t(tile0) * TILE) * to.k + k) * type.bytes;
                const float x = inside ? read_float(type, p) : 0.f;
                finite &= std::isfinite(x);
                if (to.format == Format::F32) floats[at] = x;
                else shorts[at] = uint16_t(std::bit_cast<uint32_t>(x) >> 16);
            }
    return finite ? OK : NOT_FINITE;
}

// The value that the matrix will hold for a scale or min; halves are rounded to nearest.
bool as_stored(ScaleType type, float* x) {
    if (type == ScaleType::F32) return true;
    uint16_t h;
    const bool fits = nearest_half(*x, &h);
    *x = from_half(h);
    return fits;
}

// The same for a scale >= 0: where halves have few bits left it is rounded up, so that the grid still reaches every weight.
bool scale_as_stored(ScaleType type, float* x) {
    if (type == ScaleType::F16 && *x < 0x1p-14f) *x = std::ceil(*x * 0x1p24f) * 0x1p-24f;
    return as_stored(type, x);
}

float nearest(float x) {  // |x| < 2^22; ties to even, without a call into the C library
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

void set_byte(Group* group, int index, int value) { group->quads[index / 4] |= uint32_t(value & 0xFF) << 8 * (index % 4); }

// Symmetric: scale = max|x| / 127.
Result quantise_q8(const float* x, int count, ScaleType type, Group* out) {
    float largest = 0;
    for (int i = 0; i < count; ++i) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
    float scale = largest / 127.f;
    if (!scale_as_stored(type, &scale)) return SCALE_RANGE;
    *out = {};
    out->scale[0] = scale;
    if (scale == 0) return OK;
    for (int i = 0; i < count; ++i) set_byte(out, i, int(clamp(nearest(x[i] / scale), -127.f, 127.f)));
    return OK;
}

// 32 elements, of which the first `count` are real; the others have weight 0 in every sum.
constexpr int VECTORS = GROUP / 4;
typedef float f32x4 __attribute__((vector_size(16)));

struct Elements {
    f32x4 x[VECTORS], weight[VECTORS];
    float count;
};

struct Fit {
    float scale, min, error;
    f32x4 q[VECTORS];
};

float total(f32x4 v) { return (v[0] + v[1]) + (v[2] + v[3]); }

// q for this scale and min, and the squared error.
void assign(const Elements& e, Fit* fit) {
    const float inverse = fit->scale > 1e-37f ? 1 / fit->scale : 0;  // of a smaller one it would be infinite
    f32x4 error = {};
    for (int i = 0; i < VECTORS; ++i) {
        f32x4 q = (e.x[i] - fit->min) * inverse;
        q = q < 0.f ? f32x4{} : q > 15.f ? f32x4{} + 15.f : q;
        q = (q + 0x1.8p23f) - 0x1.8p23f;
        const f32x4 miss = (fit->scale * q + fit->min - e.x[i]) * e.weight[i];
        fit->q[i] = q;
        error += miss * miss;
    }
    fit->error = total(error);
}

// Scale and min of least squared error for the q that `fit` has.
void refit(const Elements& e, Fit* fit) {
    f32x4 q_sum = {}, qq_sum = {}, x_sum = {}, xq_sum = {};
    for (int i = 0; i < VECTORS; ++i) {
        const f32x4 q = fit->q[i] * e.weight[i], x = e.x[i] * e.weight[i];
        q_sum += q, qq_sum += q * q, x_sum += x, xq_sum += x * q;
    }
    const float sum_q = total(q_sum), sum_x = total(x_sum);
    const float determinant = e.count * total(qq_sum) - sum_q * sum_q;
    if (determinant <= 0) return;
    const float scale = (e.count * total(xq_sum) - sum_x * sum_q) / determinant;
    fit->scale = scale > 0 ? scale : 0;
    fit->min = (sum_x - fit->scale * sum_q) / e.count;
}

// Asymmetric, 4 bits: from lowest to highest, and some grids a little wider or narrower, each refitted by least squares; the one
// of least squared error as it will be stored.
Result quantise_u4(const float* x, int count, ScaleType type, Group* out) {
    constexpr float STEPS[] = {15.f, 13.6f, 14.2f, 14.6f, 15.4f, 15.8f, 16.4f};
    float low = x[0], high = x[0];
    Elements elements = {};
    elements.count = float(count);
    for (int i = 0; i < count; ++i) {
        low = x[i] < low ? x[i] : low, high = x[i] > high ? x[i] : high;
        elements.x[i / 4][i % 4] = x[i];
        elements.weight[i / 4][i % 4] = 1;
    }
    Fit best = {};
    best.error = INFINITY;
    for (int round = 0; round < 8; ++round) {  // round 0: the plain grid; then every grid refitted
        Fit fit = {};
        fit.scale = (high - low) / STEPS[round > 0 ? round - 1 : 0];
        fit.min = low;
        if (round > 0) {
            assign(elements, &fit);
            refit(elements, &fit);
        }
        if (!scale_as_stored(type, &fit.scale) || !as_stored(type, &fit.min)) continue;
        assign(elements, &fit);
        if (fit.error < best.error) best = fit;
    }
    if (!(best.error < INFINITY)) return SCALE_RANGE;
    *out = {};
    out->scale[0] = best.scale;
    out->min[0] = best.min;
    for (int i = 0; i < count; ++i) set_byte(out, i, int(best.q[i / 4][i % 4]));
    return OK;
}

Result quantise_floats(const FloatType& type, const uint8_t* rows, int tile0, int tile1, const Matrix& to) {
    for (int tile = tile0; tile < tile1; ++tile)
        for (int g = 0; g < to.num_groups; ++g)
            for (int column = 0; column < TILE; ++column) {
                const int64_t row = int64_t(tile) * TILE + column;
                const int count = to.k - g * GROUP < GROUP ? to.k - g * GROUP : GROUP;
                Group group = {};
                if (row < to.n) {
                    float x[GROUP];
                    const uint8_t* from = rows + ((row - int64_t(tile0) * TILE) * to.k + int64_t(g) * GROUP) * type.bytes;
                    bool finite = true;
                    for (int i = 0; i < count; ++i) {
                        x[i] = read_float(type, from + i * type.bytes);
                        finite &= std::isfinite(x[i]);
                    }
                    if (!finite) return NOT_FINITE;
                    const auto quantise = to.format == Format::Q8 ? quantise_q8 : quantise_u4;
                    if (const Result result = quantise(x, count, to.scale_type, &group)) return result;
                }
                if (const Result result = store_group(to, tile, g, column, group)) return result;
            }
    return OK;
}

Result pack(int type_id, const uint8_t* rows, int64_t num_bytes, int tile0, int tile1, const Matrix& to) {
    if (tile0 < 0 || tile1 > to.num_tiles || tile0 >= tile1 || to.n < 1 || to.k < 1) return WRONG_SIZE;
    if (to.num_tiles != (to.n + TILE - 1) / TILE || to.num_groups != (to.k + GROUP - 1) / GROUP) return WRONG_SIZE;
    const int64_t last = int64_t(tile1) * TILE < to.n ? int64_t(tile1) * TILE : to.n, num_rows = last - int64_t(tile0) * TILE;
    for (const BlockType& type : BLOCK_TYPES)
        if (type.id == type_id) {
            if (to.format != type.format || to.halves != type.halves) return UNSUPPORTED;
            if (to.k % type.elements || num_bytes != num_rows * (to.k / type.elements) * type.bytes) return WRONG_SIZE;
            return pack_blocks(type, rows, tile0, tile1, to);
        }
    for (const FloatType& type : FLOAT_TYPES)
        if (type.id == type_id) {
            if (num_bytes != num_rows * to.k * type.bytes) return WRONG_SIZE;
            const bool quantised = (to.format == Format::Q8 || to.format == Format::U4) && to.halves == 1;
            if (quantised) return quantise_floats(type, rows, tile0, tile1, to);
            const bool kept = to.format == Format::F32 || (to.format == Format::BF16 && type.id == 30);
            return kept ? keep_floats(type, rows, tile0, tile1, to) : UNSUPPORTED;
        }
    return UNSUPPORTED;
}

}  // namespace
}  // namespace octavo

// Packs tiles [tile0, tile1) of `to` from `rows`: exactly the stored bytes of rows [16 * tile0, min(n, 16 * tile1)) of ggml type
// `type`. Padding is written too. Several threads may pack different tiles of a matrix. Returns a Result; on an error the tiles'
// contents are undefined.
extern "C" __attribute__((visibility("default"))) int octavo_pack(int type, const uint8_t* rows, int64_t num_bytes, int tile0,
                                                                   int tile1, const octavo::Matrix* to) {
    return octavo::pack(type, rows, num_bytes, tile0, tile1, *to);
}
