// y = W x + b over packed weights: the operation's native back end. See types.hpp for the layouts.
//
// The kernels are written once over sixteen columns (`columns`), which each instruction set brings.
#pragma once

#include "../../native/pool.hpp"
#if defined(OCTAVO_AVX512)
#include "columns_avx512.hpp"
#elif defined(OCTAVO_AVX2)
#include "columns_avx2.hpp"
#if defined(OCTAVO_AVXVNNI)
#include "dots_avxvnni.hpp"
#endif
#elif defined(OCTAVO_NEON)
#include "columns_neon.hpp"
#else
#include "columns_portable.hpp"
#endif

namespace octavo::OCTAVO_ISA {
namespace {
namespace columns {

// Sixteen columns of one row are done: bias, residual, out.
inline void finish(const Matrix& w, int tile, Floats y, const Output& out, float* to) {
    if (w.bias) y = add(y, load(w.bias + size_t(tile) * TILE));
    if (out.accumulate) y = add(load(to), y);
    store(to, y);
}

}  // namespace columns
}  // namespace
}  // namespace octavo::OCTAVO_ISA

#include "floats.hpp"
#include "quantised.hpp"
#include "quantize.hpp"
#include "unpack.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

void linear(const Matrix& w, const Activations& x, int row0, int row1, int tile0, int tile1, const Output& out) {
    OCTAVO_CHECK(0 <= row0 && row0 <= row1 && 0 <= tile0 && tile0 <= tile1 && tile1 <= w.num_tiles && x.groups == w.num_groups);
    const Range rows = {row0, row1}, tiles = {tile0, tile1};
    const bool floats = w.format == Format::F32 || w.format == Format::BF16;
    OCTAVO_CHECK(w.num_groups * GROUP >= w.k && (w.halves == 1 || w.format == Format::U8));
    OCTAVO_CHECK(floats ? x.floats != nullptr : w.scales != nullptr);
    switch (w.format) {
        case Format::F32: return columns::float_linear<columns::FormatF32>(w, x, rows, tiles, out);
        case Format::BF16: return columns::float_linear<columns::FormatBF16>(w, x, rows, tiles, out);
        case Format::Q8: return columns::quantised_linear<columns::FormatQ8>(w, x, rows, tiles, out);
        case Format::U4: return columns::quantised_linear<columns::FormatU4>(w, x, rows, tiles, out);
        case Format::U8:
            return w.halves == 2 ? columns::quantised_linear<columns::FormatU8<2>>(w, x, rows, tiles, out)
                                 : columns::quantised_linear<columns::FormatU8<1>>(w, x, rows, tiles, out);
    }
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
