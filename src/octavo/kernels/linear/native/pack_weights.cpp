// Packing of weights: rows as a GGUF or safetensors file stores them -> the tiled layout that the linear kernels read (types.hpp).
//
// Quantized blocks keep every bit (ggml_blocks.hpp). Float rows are kept as floats, or quantized where the matrix asks for Q8 or
// U4 (quantize_weights.hpp). Runs once at load, so it is portable: no instruction-set flags.
#include "quantize_weights.hpp"

namespace octavo {
namespace {

// --- groups -> a packed matrix ----------------------------------------------------------------------------------------------

Result store_number(ScaleType type, const void* array, int64_t index, float x) {
    if (!std::isfinite(x)) return NOT_FINITE;
    if (type == ScaleType::F32) {
        static_cast<float*>(const_cast<void*>(array))[index] = x;
        return OK;
    }
    uint16_t h;
    if (!nearest_f16(x, &h) || f16_to_float(h) != x) return SCALE_RANGE;
    static_cast<uint16_t*>(const_cast<void*>(array))[index] = h;
    return OK;
}

Result store_group(const Matrix& to, int64_t tile, int64_t g, int column, const Group& group) {
    const int num_words = to.format == Format::U4 ? 4 : 8;
    auto* elements = static_cast<uint32_t*>(const_cast<void*>(to.elements)) + (tile * to.num_groups + g) * num_words * TILE + column;
    for (int i = 0; i < num_words; ++i)
        elements[i * TILE] = num_words == 8 ? group.words[i] : group.words[2 * i] | group.words[2 * i + 1] << 4;
    for (int part = 0; part < to.scales_per_group; ++part) {
        const int64_t index = ((tile * to.num_groups + g) * to.scales_per_group + part) * TILE + column;
        if (const Result result = store_number(to.scale_type, to.scales, index, group.scale[part])) return result;
        if (to.format == Format::Q8) continue;
        if (const Result result = store_number(to.scale_type, to.mins, index, group.min[part])) return result;
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

// --- floats: kept, or quantized ---------------------------------------------------------------------------------------------

struct FloatType {
    int id, bytes;
};
constexpr FloatType FLOAT_TYPES[] = {{0, 4}, {1, 2}, {30, 2}};  // F32, F16, BF16

float read_float(const FloatType& type, const uint8_t* p) {
    if (type.bytes == 4) return std::bit_cast<float>(word(p));
    uint16_t h;
    std::memcpy(&h, p, sizeof h);
    return type.id == 1 ? f16_to_float(h) : std::bit_cast<float>(uint32_t(h) << 16);
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

Result quantize_floats(const FloatType& type, const uint8_t* rows, int tile0, int tile1, const Matrix& to) {
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
                    const auto quantize = to.format == Format::Q8 ? quantize_q8 : quantize_u4;
                    if (const Result result = quantize(x, count, to.scale_type, &group)) return result;
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
            if (to.format != type.format || to.scales_per_group != type.scales_per_group) return UNSUPPORTED;
            if (to.k % type.elements || num_bytes != num_rows * (to.k / type.elements) * type.bytes) return WRONG_SIZE;
            return pack_blocks(type, rows, tile0, tile1, to);
        }
    for (const FloatType& type : FLOAT_TYPES)
        if (type.id == type_id) {
            if (num_bytes != num_rows * to.k * type.bytes) return WRONG_SIZE;
            const bool quantized = (to.format == Format::Q8 || to.format == Format::U4) && to.scales_per_group == 1;
            if (quantized) return quantize_floats(type, rows, tile0, tile1, to);
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
