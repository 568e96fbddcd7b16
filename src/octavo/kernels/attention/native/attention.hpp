// Attention over the paged cache: the native back end. table.hpp says what the functions promise, types.hpp how the cache lies.
//
// A kv head's query heads are vectors like any other: `group` of them a row, all rows' together, taken MAX_TILE at a time by the
// products. With many vectors a chunk's keys and values are turned to float once for all of them; with few (decode) they are
// turned as they are read. Both give the same bits, since that conversion is exact.
#pragma once

#include "softmax.hpp"
#include "tiles.hpp"
#include "write_kv.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

constexpr int BLOCK_VECTORS = 96;   // query vectors whose chunk is worked off together: they and their scores stay in L2
constexpr int UNPACK_VECTORS = 24;  // from so many on, converting first costs less than converting for every tile

inline int at_most(int a, int b) { return a < b ? a : b; }
inline int at_least(int a, int b) { return a > b ? a : b; }

// The call's arguments that stay the same.
struct Source {
    const AttentionShape& a;
    const KvShape& s;
    const KvLayer& layer;
    const int32_t* block_table;
    int kv_head;
    int group() const { return a.num_heads / a.num_kv_heads; }
};

// Query vectors: vector i is head i % group of row i / group.
struct Queries {
    const float* q;  // [num][head_dim], scaled
    int num, group, head_dim, first_position, window;

    Tokens attends(int vector, int chunk) const {
        const int position = first_position + vector / group - chunk * ATTENTION_CHUNK;
        const int first = window > 0 ? position - window + 1 : 0;
        return {at_most(at_least(first, 0), ATTENTION_CHUNK), at_most(at_least(position + 1, 0), ATTENTION_CHUNK)};
    }
    // Of vectors [i, i + n): from the first that the first one attends to, to the last that the last one does.
    Tokens attend(int i, int n, int chunk) const { return {attends(i, chunk).begin, attends(i + n - 1, chunk).end}; }
};

struct Scratch {
    float *q, *scores, *partial, *running, *keys, *values;
};

inline int block_rows(const AttentionShape& a) { return at_least(1, BLOCK_VECTORS * a.num_kv_heads / a.num_heads); }

inline size_t scratch_of(const AttentionShape& a, int max_rows, float* base, Scratch* scratch) {
    const size_t vectors = size_t(at_most(max_rows, block_rows(a))) * (a.num_heads / a.num_kv_heads);
    const size_t sizes[] = {vectors * a.head_dim, vectors * ATTENTION_CHUNK, vectors * (a.head_dim + PARTIAL_EXTRA),
                            vectors * (a.head_dim + PARTIAL_EXTRA), size_t(SUB) * a.head_dim, size_t(ATTENTION_CHUNK) * SUB};
    size_t at[7] = {};
    for (int i = 0; i < 6; ++i) at[i + 1] = at[i] + (sizes[i] + 15) / 16 * 16;
    if (scratch) *scratch = {base, base + at[1], base + at[2], base + at[3], base + at[4], base + at[5]};
    return at[6];
}

size_t attention_scratch(const AttentionShape& a, int max_rows) { return scratch_of(a, max_rows, nullptr, nullptr); }

// Where the sub-blocks of one chunk lie; only those that are attended to are looked up.
template <class T>
struct Chunk {
    const T *keys[SUBS], *values[SUBS];
    const float *key_scales[SUBS], *value_scales[SUBS];
};

template <class T>
inline void find_chunk(const Source& source, int chunk, Tokens tokens, Chunk<T>* found) {
    const KvShape& s = source.s;
    for (int i = tokens.first_sub(); i < tokens.end_sub(); ++i) {
        const int position = chunk * ATTENTION_CHUNK + i * SUB;
        const size_t sub = kv_sub_block(s, source.block_table[position / s.block_size], position % s.block_size);
        const size_t at = kv_head_at(s, sub, source.kv_head) * SUB;
        found->keys[i] = static_cast<const T*>(source.layer.keys) + at * s.head_dim;
        found->values[i] = static_cast<const T*>(source.layer.values) + at * s.head_dim;
        if (s.type != KvType::I8) continue;
        found->key_scales[i] = source.layer.key_scales + at;
        found->value_scales[i] = source.layer.value_scales + at;
    }
}

// Vectors [0, num) in tiles as equal as can be: f(first vector, how many).
template <class F>
inline void for_tiles(int num, const F& f) {
    const int tiles = (num + MAX_TILE - 1) / MAX_TILE;
    for (int i = 0, left = tiles; i < num; --left) {
        const int m = (num - i + left - 1) / left;
        f(i, m);
        i += m;
    }
}

// 16 columns of the values of tokens [begin, end) as floats, [token][16].
template <class T>
inline void unpack_values(const T* const* values, int head_dim, int column, int width, Tokens tokens, float* to) {
    for (int t = tokens.begin; t < tokens.end; ++t) {
        const T* from = values[t / SUB] + t % SUB * head_dim + column;
        for (int j = 0; j < width; j += 8) store8(to + t * SUB + j, load8(from + j));
    }
}

// What one chunk gives `queries`, into partial [num][head_dim + PARTIAL_EXTRA].
template <class T>
void chunk_of(const Source& source, const Queries& queries, int chunk, const Scratch& scratch, float* partial) {
    const int head_dim = queries.head_dim, step = head_dim + PARTIAL_EXTRA;
    const Tokens all = queries.attend(0, queries.num, chunk);
    const bool unpack = queries.num >= UNPACK_VECTORS;
    Chunk<T> found;
    find_chunk(source, chunk, all, &found);
    if (unpack) {
        for (int s = all.first_sub(); s < all.end_sub(); ++s) {
            for (int e = 0; e < SUB * head_dim; e += 8) store8(scratch.keys + e, load8(found.keys[s] + e));
            const float* keys = scratch.keys;
            for_tiles(queries.num, [&](int i, int m) {
                const Tokens tile = queries.attend(i, m, chunk);
                if (s < tile.first_sub() || s >= tile.end_sub()) return;
                scores_of(m, queries.q + i * head_dim, head_dim, &keys, 0, 1, scratch.scores + i * ATTENTION_CHUNK + s * SUB);
            });
        }
    } else {
        for_tiles(queries.num, [&](int i, int m) {
            const Tokens tile = queries.attend(i, m, chunk);
            scores_of(m, queries.q + i * head_dim, head_dim, found.keys, tile.first_sub(), tile.end_sub(),
                      scratch.scores + i * ATTENTION_CHUNK);
        });
    }
    const bool scaled = source.s.type == KvType::I8;
    const ScoreRules rules = {scaled ? found.key_scales : nullptr, scaled ? found.value_scales : nullptr, source.a.soft_cap};
    for_tiles(queries.num, [&](int i, int m) {
        const Tokens tile = queries.attend(i, m, chunk);
        for (int j = i; j < i + m; ++j)
            soften(scratch.scores + j * ATTENTION_CHUNK, queries.attends(j, chunk), tile, rules, partial + j * step + head_dim);
    });
    const int width = unpack ? SUB : head_dim;
    for (int column = 0; column < head_dim; column += width) {
        const int columns = at_most(width, head_dim - column);
        const float* slice[SUBS];
        for (int s = 0; s < SUBS; ++s) slice[s] = scratch.values + s * SUB * SUB;
        if (unpack) unpack_values(found.values, head_dim, column, columns, all, scratch.values);
        for_tiles(queries.num, [&](int i, int m) {
            const Tokens tile = queries.attend(i, m, chunk);
            const float* weights = scratch.scores + i * ATTENTION_CHUNK;
            float* out = partial + i * step + column;
            if (unpack)
                values_of(m, weights, slice, 0, columns, SUB, tile.begin, tile.end, out, step);
            else
                values_of(m, weights, found.values, 0, columns, head_dim, tile.begin, tile.end, out, step);
        });
    }
}

inline void any_chunk_of(const Source& source, const Queries& queries, int chunk, const Scratch& scratch, float* partial) {
    if (source.s.type == KvType::F32) chunk_of<float>(source, queries, chunk, scratch, partial);
    if (source.s.type == KvType::BF16) chunk_of<uint16_t>(source, queries, chunk, scratch, partial);
    if (source.s.type == KvType::I8) chunk_of<int8_t>(source, queries, chunk, scratch, partial);
}

// Rows as scaled query vectors, one after the other.
inline Queries gather(const Source& source, int first_position, int num_rows, const float* q, int64_t q_stride, float* to) {
    const int group = source.group(), width = group * source.a.head_dim;
    const f32x8 factor = all8(source.a.scale);
    for (int row = 0; row < num_rows; ++row) {
        const float* from = q + row * q_stride + size_t(source.kv_head) * width;
        for (int d = 0; d < width; d += 8) store8(to + size_t(row) * width + d, load8(from + d) * factor);
    }
    return {to, num_rows * group, group, source.a.head_dim, first_position, source.a.window};
}

// Partials of num_rows rows, [num_rows * group][head_dim + PARTIAL_EXTRA], to rows of out.
inline void finish(const AttentionShape& a, int num_rows, int kv_head, const float* partials, float* out, int64_t out_stride) {
    const int group = a.num_heads / a.num_kv_heads;
    for (int row = 0; row < num_rows; ++row)
        for (int head = 0; head < group; ++head, partials += a.head_dim + PARTIAL_EXTRA)
            finish_partial(partials, a.head_dim, out + row * out_stride + size_t(kv_head * group + head) * a.head_dim);
}

void attention(const AttentionShape& a, const KvShape& s, const KvLayer& layer, const int32_t* block_table, int first_position,
               int num_rows, int kv_head, const float* q, int64_t q_stride, float* out, int64_t out_stride, float* base) {
    const Source source = {a, s, layer, block_table, kv_head};
    const int step = a.head_dim + PARTIAL_EXTRA, rows_at_once = block_rows(a);
    Scratch scratch;
    scratch_of(a, num_rows, base, &scratch);
    for (int row = 0; row < num_rows; row += rows_at_once) {
        const int rows = at_most(rows_at_once, num_rows - row), position = first_position + row;
        const Queries queries = gather(source, position, rows, q + row * q_stride, q_stride, scratch.q);
        const Chunks chunks = attention_chunks(a, position, rows);
        any_chunk_of(source, queries, chunks.begin, scratch, scratch.running);
        for (int chunk = chunks.begin + 1; chunk < chunks.end; ++chunk) {
            any_chunk_of(source, queries, chunk, scratch, scratch.partial);
            for (int i = 0; i < queries.num; ++i) merge_partial(scratch.running + i * step, scratch.partial + i * step, a.head_dim);
        }
        finish(a, rows, kv_head, scratch.running, out + row * out_stride, out_stride);
    }
}

void attention_chunk(const AttentionShape& a, const KvShape& s, const KvLayer& layer, const int32_t* block_table,
                     int first_position, int num_rows, int kv_head, int chunk, const float* q, int64_t q_stride, float* partial,
                     float* base) {
    const Source source = {a, s, layer, block_table, kv_head};
    const int rows_at_once = block_rows(a);
    Scratch scratch;
    scratch_of(a, num_rows, base, &scratch);
    for (int row = 0; row < num_rows; row += rows_at_once) {
        const int rows = at_most(rows_at_once, num_rows - row);
        const Queries queries = gather(source, first_position + row, rows, q + row * q_stride, q_stride, scratch.q);
        any_chunk_of(source, queries, chunk, scratch, partial + size_t(row) * source.group() * (a.head_dim + PARTIAL_EXTRA));
    }
}

void attention_merge(const AttentionShape& a, int num_chunks, int num_rows, int kv_head, float* partials, float* out,
                     int64_t out_stride) {
    const int num = num_rows * (a.num_heads / a.num_kv_heads), step = a.head_dim + PARTIAL_EXTRA;
    for (int i = 0; i < num; ++i)
        for (int chunk = 1; chunk < num_chunks; ++chunk)
            merge_partial(partials + size_t(i) * step, partials + (size_t(chunk) * num + i) * step, a.head_dim);
    finish(a, num_rows, kv_head, partials, out, out_stride);
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
