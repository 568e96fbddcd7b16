// Matmul with F32 and BF16 weights. Of one row and one column: y = 0; for each element of K, ascending: y = fma(w, x, y).
#pragma once

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

struct FormatF32 {
    using Element = float;
    static Floats read(const float* p) { return load(p); }
};
struct FormatBF16 {
    using Element = uint16_t;
    static Floats read(const uint16_t* p) { return load_bf16(p); }
};

// acc[T][R][TILE] = R rows times T neighbouring tiles. Few rows take several tiles: one chain of additions waits for itself.
template <class F, int R, int T>
void float_block(const Matrix& w, const Activations& x, int row, int tile, float* acc) {
    const size_t k = size_t(w.num_groups) * GROUP, stride = size_t(x.groups) * GROUP;
    const auto* weight = (const typename F::Element*)w.elements + tile * k * TILE;
    const float* in = x.floats + row * stride;
    Floats y[T * R];
#pragma GCC unroll 16
    for (int i = 0; i < T * R; ++i) y[i] = all(0);
    for (size_t i = 0; i < k; ++i)
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
            const Floats element = F::read(weight + (t * k + i) * TILE);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) y[t * R + r] = fma(element, all(in[r * stride + i]), y[t * R + r]);
        }
#pragma GCC unroll 16
    for (int i = 0; i < T * R; ++i) store(acc + i * TILE, y[i]);
}

// The same for 1 to R rows and any number of tiles up to `num_tiles`; returns how many it took.
template <class F, int R = FLOAT_ROWS>
inline int float_blocks(const Matrix& w, const Activations& x, Range rows, Range tiles, float* acc) {
    if constexpr (R > 1)
        if (rows.end - rows.begin < R) return float_blocks<F, R - 1>(w, x, rows, tiles, acc);
    constexpr int T = R == 1 ? 4 : R <= FLOAT_ROWS / 2 ? 2 : 1;
    if (tiles.end - tiles.begin >= T) return float_block<F, R, T>(w, x, rows.begin, tiles.begin, acc), T;
    return float_block<F, R, 1>(w, x, rows.begin, tiles.begin, acc), 1;
}

template <class F>
void float_linear(const Matrix& w, const Activations& x, Range rows, Range tiles, const Output& out) {
    alignas(64) float acc[4 * FLOAT_ROWS * TILE];
    const int num_rows = rows.end - rows.begin, num_blocks = (num_rows + FLOAT_ROWS - 1) / FLOAT_ROWS;
    for (int tile = tiles.begin, taken = 1; tile < tiles.end; tile += taken)
        for (int b = 0; b < num_blocks; ++b) {
            const Range part = share(num_rows, num_blocks, b);
            const int n = part.end - part.begin, begin = rows.begin + part.begin;
            taken = float_blocks<F>(w, x, {begin, begin + n}, {tile, num_blocks == 1 ? tiles.end : tile + 1}, acc);
            float* to = out.to + part.begin * out.stride + size_t(tile - tiles.begin) * TILE;
            for (int t = 0; t < taken; ++t)
                for (int r = 0; r < n; ++r)
                    finish(w, tile + t, load(acc + (t * n + r) * TILE), out, to + r * out.stride + t * TILE);
        }
}

}  // namespace micro_kernel
}  // namespace
}  // namespace octavo::OCTAVO_ISA
