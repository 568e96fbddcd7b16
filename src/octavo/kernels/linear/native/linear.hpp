// Linear layer y = W x + b over packed weights (float, 8-bit or 4-bit): dispatch on the weight format.
//
// The matmuls are written once over a micro-kernel of 16 columns (namespace micro_kernel), which each instruction set brings.
// Layouts: ../../native/types.hpp.
#pragma once

#include "../../native/thread_pool.hpp"
#if defined(OCTAVO_AVX512)
#include "micro_kernel_avx512.hpp"
#elif defined(OCTAVO_AVX2)
#include "micro_kernel_avx2.hpp"
#if defined(OCTAVO_AVXVNNI)
#include "micro_kernel_avxvnni.hpp"
#endif
#elif defined(OCTAVO_NEON)
#include "micro_kernel_neon.hpp"
#else
#include "micro_kernel_portable.hpp"
#endif

namespace octavo::OCTAVO_ISA {
namespace {
namespace micro_kernel {

// Epilogue of 16 columns of one row: bias, residual, store.
inline void finish(const Matrix& w, int tile, Floats y, const Output& out, float* to) {
    if (w.bias) y = add(y, load(w.bias + size_t(tile) * TILE));
    if (out.accumulate) y = add(load(to), y);
    store(to, y);
}

}  // namespace micro_kernel
}  // namespace
}  // namespace octavo::OCTAVO_ISA

#include "gemm_float.hpp"
#include "gemm_quantized.hpp"
#include "quantize_activations.hpp"
#include "unpack_row.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

void linear(const Matrix& w, const Activations& x, int row0, int row1, int tile0, int tile1, const Output& out) {
    OCTAVO_CHECK(0 <= row0 && row0 <= row1 && 0 <= tile0 && tile0 <= tile1 && tile1 <= w.num_tiles && x.groups == w.num_groups);
    const Range rows = {row0, row1}, tiles = {tile0, tile1};
    const bool floats = w.format == Format::F32 || w.format == Format::BF16;
    OCTAVO_CHECK(w.num_groups * GROUP >= w.k && (w.scales_per_group == 1 || w.format == Format::U8));
    OCTAVO_CHECK(floats ? x.floats != nullptr : w.scales != nullptr);
    switch (w.format) {
        case Format::F32: return micro_kernel::float_linear<micro_kernel::FormatF32>(w, x, rows, tiles, out);
        case Format::BF16: return micro_kernel::float_linear<micro_kernel::FormatBF16>(w, x, rows, tiles, out);
        case Format::Q8: return micro_kernel::quantized_linear<micro_kernel::FormatQ8>(w, x, rows, tiles, out);
        case Format::U4: return micro_kernel::quantized_linear<micro_kernel::FormatU4>(w, x, rows, tiles, out);
        case Format::U8:
            return w.scales_per_group == 2 ? micro_kernel::quantized_linear<micro_kernel::FormatU8<2>>(w, x, rows, tiles, out)
                                 : micro_kernel::quantized_linear<micro_kernel::FormatU8<1>>(w, x, rows, tiles, out);
    }
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
