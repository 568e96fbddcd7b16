// Matmul with 4-bit and 8-bit weights: integer dot products in groups of 32, scaled and summed in float32.
//
// Of one row and one column it is always this, whatever else is computed with it:
//   y = 0; for each group (for each 16 elements of it where those have a scale of their own), in ascending order:
//       y = fma(float(integer dot product), w.scale * x.scale, y), then where weights have one y = fma(w.min, x.sum, y)
//
// so a row's result is the same bit for bit in any batch. What differs is where the weights come from: a few rows read them as
// they are stored, unpacked in registers (`Stored`); many rows share a panel of a tile unpacked once into the L1 cache (`Unpacked`).
#pragma once

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

constexpr int CHUNK_ROWS = 64;    // rows whose accumulators (4 KiB) stay in the L1 cache with ...
constexpr int PANEL_GROUPS = 24;  // ... this much of a tile, unpacked (at most 18 KiB), and some rows' activations (768 B each)
constexpr int MANY_ROWS = 16;     // from here on unpacking once pays
constexpr int WEIGHTS_BYTES = 4 * TILE;

struct FormatU4 {
    using Dot = DotU4;
    static constexpr int BYTES = GROUP * TILE / 2, SCALES = 1;  // bytes and scales of a group, for the tile's columns
    static constexpr bool MINS = true;
    static void pair(const uint8_t* group, int p, Weights4x16& w0, Weights4x16& w1) {
        const Weights4x16 both = load_weights(group + p * WEIGHTS_BYTES);
        w0 = low_nibbles(both), w1 = high_nibbles(both);
    }
};

template <class D, int H, bool M>
struct FormatBytes {
    using Dot = D;
    static constexpr int BYTES = GROUP * TILE, SCALES = H;
    static constexpr bool MINS = M;
    static void pair(const uint8_t* group, int p, Weights4x16& w0, Weights4x16& w1) {
        w0 = load_weights(group + 2 * p * WEIGHTS_BYTES), w1 = load_weights(group + (2 * p + 1) * WEIGHTS_BYTES);
    }
};
template <int SCALES>
using FormatU8 = FormatBytes<DotU8, SCALES, true>;
using FormatQ8 = FormatBytes<DotQ8, 1, false>;

// One tile from some group on, as it is stored.
template <class F>
struct Stored {
    using Format = F;
    static constexpr int GROUPS = 64;  // at most: 20 KiB of U4
    const uint8_t* bytes;
    const void* scales;
    const void* mins;
    bool is_f16;  // scales and mins are 16 bits wide

    Stored(const Matrix& w, int tile, int group, int) : is_f16(w.scale_type == ScaleType::F16) {
        const size_t g = size_t(tile) * w.num_groups + group, scale = g * F::SCALES * TILE * (is_f16 ? 2 : 4);
        bytes = (const uint8_t*)w.elements + g * F::BYTES;
        scales = (const char*)w.scales + scale;
        mins = F::MINS ? (const char*)w.mins + scale : nullptr;
    }
    Floats read(const void* p, int i) const {
        return is_f16 ? load_f16((const uint16_t*)p + i * TILE) : load((const float*)p + i * TILE);
    }
    Floats scale(int g, int h) const { return read(scales, g * F::SCALES + h); }
    Floats min(int g, int h) const { return read(mins, g * F::SCALES + h); }
    void pair(int g, int p, Weights4x16& w0, Weights4x16& w1) const { F::pair(bytes + size_t(g) * F::BYTES, p, w0, w1); }
};

// At most PANEL_GROUPS groups of one tile: nibbles as bytes, scales and mins as floats. Bytes stay where they are stored.
template <class F>
struct Unpacked {
    using Format = F;
    static constexpr int GROUPS = PANEL_GROUPS;
    static constexpr bool COPIES = F::BYTES != GROUP * TILE;
    const uint8_t* bytes = copy;
    alignas(64) uint8_t copy[COPIES ? PANEL_GROUPS * GROUP * TILE : 1];
    alignas(64) float scales[PANEL_GROUPS * F::SCALES * TILE];
    alignas(64) float mins[PANEL_GROUPS * F::SCALES * TILE];

    Unpacked(const Matrix& w, int tile, int group, int num_groups) {
        const Stored<F> from(w, tile, group, num_groups);
        if (!COPIES) bytes = from.bytes;
        for (int g = 0; g < num_groups; ++g) {
            for (int p = 0; COPIES && p < 4; ++p) {
                Weights4x16 w0, w1;
                from.pair(g, p, w0, w1);
                store(copy + ((g * 4 + p) * 2) * WEIGHTS_BYTES, w0), store(copy + ((g * 4 + p) * 2 + 1) * WEIGHTS_BYTES, w1);
            }
            for (int h = 0; h < F::SCALES; ++h) {
                store(scales + (g * F::SCALES + h) * TILE, from.scale(g, h));
                store(mins + (g * F::SCALES + h) * TILE, from.min(g, h));
            }
        }
    }
    Floats scale(int g, int h) const { return load(scales + (g * F::SCALES + h) * TILE); }
    Floats min(int g, int h) const { return load(mins + (g * F::SCALES + h) * TILE); }
    void pair(int g, int p, Weights4x16& w0, Weights4x16& w1) const {
        w0 = load_weights(bytes + ((g * 4 + p) * 2) * WEIGHTS_BYTES), w1 = load_weights(bytes + ((g * 4 + p) * 2 + 1) * WEIGHTS_BYTES);
    }
};

// Consecutive rows of activations from some group on.
struct Rows {
    const int8_t* q;
    const float* scales;
    const float* sums;  // one for each scale of a group
    const int32_t* offsets;
    int groups;  // from one row to the next

    Rows(const Activations& x, int row, int group, int scales_per_group) : groups(x.groups) {
        const size_t g = size_t(row) * x.groups + group;
        q = x.q + g * GROUP;
        scales = x.scales + g;
        offsets = x.offsets + g;
        sums = (scales_per_group == 2 ? x.sums_of_16 : x.sums) + g * scales_per_group;
    }
};

// acc[R][TILE] += R rows times some groups of one tile.
template <class Source, int R>
void block(const Source& w, const Rows& x, int num_groups, float* acc) {
    using F = typename Source::Format;
    constexpr int PAIRS = 4 / F::SCALES;
    const size_t row = x.groups;
    for (int g = 0; g < num_groups; ++g)
#pragma GCC unroll 2
        for (int h = 0; h < F::SCALES; ++h) {
            typename F::Dot dots[R];
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) dots[r].start(x.offsets + r * row + g);
            const int8_t* q = x.q + g * GROUP + h * (GROUP / 2);
#pragma GCC unroll 4
            for (int p = 0; p < PAIRS; ++p) {
                Weights4x16 w0, w1;
                w.pair(g, h * PAIRS + p, w0, w1);
                add_pair(dots, w0, w1, q + p * 8, row * GROUP);
            }
            const Floats scale = w.scale(g, h), min = F::MINS ? w.min(g, h) : scale;
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                Floats y = load(acc + r * TILE);
                y = fma(dots[r].finish(), mul(scale, all(x.scales[r * row + g])), y);
                if (F::MINS) y = fma(min, all(x.sums[(r * row + g) * F::SCALES + h]), y);
                store(acc + r * TILE, y);
                keep_memory(acc + r * TILE);
            }
        }
}

// The same for any number of rows up to R.
template <class Source, int R = Source::Format::Dot::ROWS>
inline void blocks(int num_rows, const Source& w, const Rows& x, int num_groups, float* acc) {
    if (num_rows == R) return block<Source, R>(w, x, num_groups, acc);
    if constexpr (R > 1) blocks<Source, R - 1>(num_rows, w, x, num_groups, acc);
}

// acc[num_rows][TILE] = rows from `row` on times one tile.
template <class Source>
void tile_rows(const Matrix& w, const Activations& x, int row, int num_rows, int tile, float* acc) {
    using F = typename Source::Format;
    constexpr int ROWS = F::Dot::ROWS;
    const int num_blocks = (num_rows + ROWS - 1) / ROWS;
    for (int i = 0; i < num_rows * TILE; ++i) acc[i] = 0;
    const int num_panels = (w.num_groups + Source::GROUPS - 1) / Source::GROUPS;
    for (int p = 0; p < num_panels; ++p) {
        const Range groups = share(w.num_groups, num_panels, p);
        const Source panel(w, tile, groups.begin, groups.end - groups.begin);
        for (int b = 0; b < num_blocks; ++b) {
            const Range rows = share(num_rows, num_blocks, b);
            const Rows part(x, row + rows.begin, groups.begin, F::SCALES);
            blocks(rows.end - rows.begin, panel, part, groups.end - groups.begin, acc + rows.begin * TILE);
        }
    }
}

template <class F>
void one_tile(const Matrix& w, const Activations& x, int row, int num_rows, int tile, float* acc) {
    if constexpr (F::MINS)  // bytes with a scale alone leave little to unpack
        if (num_rows >= MANY_ROWS) return tile_rows<Unpacked<F>>(w, x, row, num_rows, tile, acc);
    tile_rows<Stored<F>>(w, x, row, num_rows, tile, acc);
}

template <class F>
void quantized_linear(const Matrix& w, const Activations& x, Range rows, Range tiles, const Output& out) {
    alignas(64) float acc[CHUNK_ROWS * TILE];
    for (int row = rows.begin; row < rows.end; row += CHUNK_ROWS) {
        const int num_rows = rows.end - row < CHUNK_ROWS ? rows.end - row : CHUNK_ROWS;
        for (int tile = tiles.begin; tile < tiles.end; ++tile) {
            one_tile<F>(w, x, row, num_rows, tile, acc);
            float* to = out.to + (row - rows.begin) * out.stride + size_t(tile - tiles.begin) * TILE;
            for (int r = 0; r < num_rows; ++r) finish(w, tile, load(acc + r * TILE), out, to + r * out.stride);
        }
    }
}

}  // namespace micro_kernel
}  // namespace
}  // namespace octavo::OCTAVO_ISA
