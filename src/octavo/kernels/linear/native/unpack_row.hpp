// Embedding lookup: one row of a packed matrix, dequantized to floats. A row is 1 / TILE of a tile, so this gathers.
#pragma once

namespace octavo::OCTAVO_ISA {
namespace {

inline float scalar(const void* p, ScaleType type, size_t i) {
    return type == ScaleType::F16 ? float_of_f16(((const uint16_t*)p)[i]) : ((const float*)p)[i];
}

inline int element(const Matrix& w, size_t group, int i, int column) {  // element i of a group of a tile, as an integer
    const int word = i / 4, byte = column * 4 + i % 4;
    const auto* elements = (const uint8_t*)w.elements;
    if (w.format == Format::U4) return elements[(group * 4 + word / 2) * 64 + byte] >> (word % 2 * 4) & 15;
    const uint8_t e = elements[(group * 8 + word) * 64 + byte];
    return w.format == Format::Q8 ? int8_t(e) : e;
}

void unpack_row(const Matrix& w, int n, float* out) {
    OCTAVO_CHECK(0 <= n && n < w.n);
    const int column = n % TILE;
    for (int k = 0; k < w.k; ++k) {
        const size_t group = size_t(n / TILE) * w.num_groups + k / GROUP;
        const size_t flat = (group * GROUP + k % GROUP) * TILE + column;
        if (w.format == Format::F32) {
            out[k] = ((const float*)w.elements)[flat];
        } else if (w.format == Format::BF16) {
            out[k] = float_of_bf16(((const uint16_t*)w.elements)[flat]);
        } else {
            const size_t scale = (group * w.scales_per_group + k % GROUP * w.scales_per_group / GROUP) * TILE + column;
            const float y = scalar(w.scales, w.scale_type, scale) * float(element(w, group, k % GROUP, column));
            out[k] = w.mins ? y + scalar(w.mins, w.scale_type, scale) : y;
        }
    }
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
