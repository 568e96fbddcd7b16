// The C interface of the library: what Python calls through ctypes. Plain functions over plain structs; errors are return values.
#include "step.hpp"

#define OCTAVO_API extern "C" __attribute__((visibility("default")))

using octavo::Activations;
using octavo::Matrix;
using octavo::Output;
using octavo::Table;

// What the library was built from: build.py reads it out of the file, for nobody should load a stale one.
#ifndef OCTAVO_SOURCE_HASH
#define OCTAVO_SOURCE_HASH ""
#endif
extern "C" __attribute__((visibility("default"), used)) const char octavo_built_from[] = "octavo-source-hash:" OCTAVO_SOURCE_HASH;

OCTAVO_API const Table* octavo_table(const char* name) { return octavo::choose_table(name); }
OCTAVO_API const char* octavo_table_name(const Table* table) { return table->name; }

OCTAVO_API void octavo_linear(const Table* table, const Matrix* w, const Activations* x, const int32_t* rows_tiles,
                              const Output* out) {
    table->linear(*w, *x, rows_tiles[0], rows_tiles[1], rows_tiles[2], rows_tiles[3], *out);
}
OCTAVO_API void octavo_quantize(const Table* table, const float* x, int k, const Activations* to, int row) {
    table->quantize(x, k, *to, row);
}
OCTAVO_API void octavo_unpack_row(const Table* table, const Matrix* w, int n, float* out) { table->unpack_row(*w, n, out); }

OCTAVO_API octavo::Session* octavo_session_new(const octavo::Model* model, const Table* table, int num_threads, int max_rows,
                                               int max_logit_rows) {
    return octavo::new_session(model, table, num_threads, max_rows, max_logit_rows);
}
OCTAVO_API void octavo_session_delete(octavo::Session* session) { octavo::delete_session(session); }
// `ints`: the arrays of the batch one after the other, in the order of the struct, each with the length that it has there.
OCTAVO_API int octavo_step(octavo::Session* session, const int32_t* ints, int num_rows, int num_requests, int max_blocks,
                           int num_logit_rows, const octavo::StepOutput* output) {
    const int32_t *positions = ints + num_rows, *query_starts = positions + num_rows;
    const int32_t *context_lens = query_starts + num_requests + 1, *block_tables = context_lens + num_requests;
    const int32_t* logit_rows = block_tables + size_t(num_requests) * max_blocks;
    const octavo::Batch batch = {num_rows,     num_requests, max_blocks,   num_logit_rows, ints,
                                 positions,    query_starts, context_lens, block_tables,   logit_rows};
    return octavo::run_step(*session, batch, *output);
}
OCTAVO_API void octavo_sample(octavo::Session* session, const octavo::StepOutput* output, const octavo::SamplingRow* rows, int n,
                              int32_t* tokens) {
    octavo::run_sampling(*session, *output, rows, n, tokens);
}
