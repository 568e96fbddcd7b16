// Kernel table: one function pointer per operation, filled once per instruction set; shapes and guarantees of every operation.
//
// Each `isa_*.cpp` compiles the operations' own sources (in their folders beside this one) with its flags and fills one table;
// `dispatch.cpp` chooses once, by what the CPU says of itself.
#pragma once

#include "types.hpp"

namespace octavo {

struct Output {
    float* to;        // element (first row, first tile's first column)
    int64_t stride;   // elements from one row to the next; whole tiles are written, so rows are padded to TILE
    bool accumulate;  // add to what is there (the residual) instead of overwriting
};

struct KernelTable {
    const char* name;

    // linear: rows [row0, row1) of x times tiles [tile0, tile1) of w, bias added. A row's result does not depend on which other
    // rows are computed with it: bit for bit.
    void (*linear)(const Matrix& w, const Activations& x, int row0, int row1, int tile0, int tile1, const Output& out);
    // One row of a packed matrix as floats (an embedding): out[w.k].
    void (*unpack_row)(const Matrix& w, int n, float* out);
    // Row `row` of `to` from k floats: quantized, sums, and floats if `to` has them. Padding is written.
    void (*quantize)(const float* x, int k, const Activations& to, int row);

    // rms_norm: y = x / sqrt(mean(x^2) + eps) * weight. y may be x.
    void (*rms_norm)(const float* x, const float* weight, int k, float eps, float* y);
    // rotary, NeoX style: element i rotated with element i + head_dim / 2; x[head_dim], cos and sin [head_dim / 2], in place.
    void (*rotary)(float* x, const float* cos, const float* sin, int head_dim);
    // y[i] = act(gate[i]) * up[i]; gelu is the tanh approximation. y may be gate.
    void (*silu_mul)(const float* gate, const float* up, int n, float* y);
    void (*gelu_mul)(const float* gate, const float* up, int n, float* y);
    void (*scale)(float* x, float factor, int n);
    void (*add)(float* x, const float* y, int n);  // x += y

    // attention: store one token's key and value of kv heads [first, last): k, v [(last - first) * head_dim].
    void (*write_kv)(const KvShape& s, const KvLayer& layer, int block, int offset, int first, int last, const float* k,
                     const float* v);
    // `num_rows` consecutive rows of one request, the first at position `first_position`, for the query heads of one kv head, over
    // the request's cache (their own keys and values included, so write_kv comes first). q and out point at the first row's
    // head 0, [num_rows][num_heads * head_dim] with strides in floats. scratch: attention_scratch(a, num_rows) floats, 64-byte
    // aligned for speed. Tokens behind a row's position or before its window are not trusted: they may be unwritten.
    // A row's result depends on its position and on what it attends to, on nothing else, bit for bit: softmax is taken over
    // chunks [c * ATTENTION_CHUNK, (c + 1) * ATTENTION_CHUNK) of absolute positions, merged in ascending order.
    void (*attention)(const AttentionShape& a, const KvShape& s, const KvLayer& layer, const int32_t* block_table,
                      int first_position, int num_rows, int kv_head, const float* q, int64_t q_stride, float* out,
                      int64_t out_stride, float* scratch);
    size_t (*attention_scratch)(const AttentionShape& a, int max_rows);  // floats
    // The same with the KV split, for a long context and few rows: one chunk (of attention_chunks(a, first_position, num_rows)), by
    // whatever thread, into `partial`, [num_rows * group][head_dim + PARTIAL_EXTRA] ...
    void (*attention_chunk)(const AttentionShape& a, const KvShape& s, const KvLayer& layer, const int32_t* block_table,
                            int first_position, int num_rows, int kv_head, int chunk, const float* q, int64_t q_stride,
                            float* partial, float* scratch);
    // ... and then all of them together: partials [num_chunks][num_rows * group][head_dim + PARTIAL_EXTRA] in ascending order of
    // chunks, overwritten. The result is attention()'s bit for bit.
    void (*attention_merge)(const AttentionShape& a, int num_chunks, int num_rows, int kv_head, float* partials, float* out,
                            int64_t out_stride);

    // argmax of x[n], the first of equals; NaN counts as lowest.
    int (*argmax)(const float* x, int n);
    // sampling: to[i] = exp((x[i] - peak) * factor); returns their sum, NaN if any x is NaN or +inf.
    // `to` is padded with zeros to a multiple of eight, as the next two want it.
    double (*weights)(const float* x, int n, float peak, float factor, float* to);
    // The sum of the w that are at least `threshold`; chunks[c]: the share of w[c * SAMPLING_CHUNK ...].
    double (*kept_mass)(const float* w, int n, float threshold, double* chunks);
    // Those w, in their order; how many there are.
    int (*gather)(const float* w, int n, float threshold, float* to);
};

// Each is in its isa_<name>.cpp; all but the first only where build.py compiled that file.
const KernelTable* portable_table();
const KernelTable* avx2_table();
const KernelTable* avxvnni_table();
const KernelTable* avx512_table();
const KernelTable* neon_table();

// The best table this CPU can run, or the one called `name`; null if there is none, or the CPU cannot run it.
const KernelTable* choose_table(const char* name);

}  // namespace octavo
