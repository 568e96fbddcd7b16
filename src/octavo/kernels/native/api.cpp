// C interface of the library, called from Python through ctypes: plain functions over plain structs, errors as return values.
#include "step.hpp"

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

using octavo::Activations;
using octavo::Matrix;
using octavo::Output;
using octavo::KernelTable;

// What the library was built from: build.py reads it out of the file, for nobody should load a stale one.
#ifndef OCTAVO_SOURCE_HASH
#define OCTAVO_SOURCE_HASH ""
#endif
extern "C" __attribute__((visibility("default"), used)) const char octavo_built_from[] = "octavo-source-hash:" OCTAVO_SOURCE_HASH;

OCTAVO_API const KernelTable* octavo_kernel_table(const char* name) { return octavo::choose_table(name); }
OCTAVO_API const char* octavo_kernel_table_name(const KernelTable* table) { return table->name; }

OCTAVO_API void octavo_linear(const KernelTable* table, const Matrix* w, const Activations* x, const int32_t* rows_tiles,
                              const Output* out) {
    table->linear(*w, *x, rows_tiles[0], rows_tiles[1], rows_tiles[2], rows_tiles[3], *out);
}
OCTAVO_API void octavo_quantize(const KernelTable* table, const float* x, int k, const Activations* to, int row) {
    table->quantize(x, k, *to, row);
}
OCTAVO_API void octavo_unpack_row(const KernelTable* table, const Matrix* w, int n, float* out) { table->unpack_row(*w, n, out); }

OCTAVO_API octavo::StepState* octavo_step_state_new(const octavo::Model* model, const KernelTable* table, int num_threads, int max_rows,
                                               int max_logit_rows) {
    return octavo::new_step_state(model, table, num_threads, max_rows, max_logit_rows);
}
OCTAVO_API void octavo_step_state_delete(octavo::StepState* state) { octavo::delete_step_state(state); }
// `ints`: the arrays of the batch one after the other, in the order of the struct, each with the length that it has there.
OCTAVO_API int octavo_step(octavo::StepState* state, const int32_t* ints, int num_rows, int num_requests, int max_blocks,
                           int num_logit_rows, const octavo::StepOutput* output) {
    const int32_t *positions = ints + num_rows, *query_starts = positions + num_rows;
    const int32_t *context_lens = query_starts + num_requests + 1, *block_tables = context_lens + num_requests;
    const int32_t* logit_rows = block_tables + size_t(num_requests) * max_blocks;
    const octavo::Batch batch = {num_rows,     num_requests, max_blocks,   num_logit_rows, ints,
                                 positions,    query_starts, context_lens, block_tables,   logit_rows};
    return octavo::run_step(*state, batch, *output);
}
OCTAVO_API void octavo_sample(octavo::StepState* state, const octavo::StepOutput* output, const octavo::SamplingRow* rows, int n,
                              int32_t* tokens) {
    octavo::run_sampling(*state, *output, rows, n, tokens);
}
