// Attention of rows of one request over the paged KV cache, for the query heads of one KV head: softmax(q K^T) V in chunks.
//
// Contracts of the functions: ../../native/kernel_table.hpp; layout of the cache: ../../native/types.hpp.
// A kv head's query heads are vectors like any other: `group` of them a row, all rows' together, up to BLOCK_VECTORS at a time,
// MAX_TILE in each product. With many vectors a chunk's keys and values are converted to float once for all of them; with few
// (decode) they are converted as they are read. Both give the same bits, since that conversion is exact.
#pragma once

#include "softmax.hpp"
#include "attention_gemm.hpp"
#include "write_kv.hpp"

namespace octavo::OCTAVO_ISA {
namespace {

constexpr int BLOCK_VECTORS = 96;   // query vectors that attend to a chunk together: they and their scores stay in L2
constexpr int UNPACK_VECTORS = 24;  // from so many on, converting first costs less than converting for every tile
constexpr int MAX_TILES = BLOCK_VECTORS / MAX_TILE;

inline int within_chunk(int t) { return t < 0 ? 0 : at_most(t, ATTENTION_CHUNK); }

// The arguments that are the same for every row.
struct Source {
    const AttentionShape& a;
    const KvShape& s;
    const KvLayer& layer;
    const int32_t* block_table;
    int kv_head;
    int group() const { return a.num_heads / a.num_kv_heads; }
};

struct Scratch {
    float *q, *scores, *partial, *running, *keys, *values;
};

// The scratch's arrays behind `base` (null: none yet); returns their size in floats.
inline size_t scratch_of(const AttentionShape& a, int max_rows, float* base, Scratch* scratch) {
    const int64_t all = int64_t(max_rows) * (a.num_heads / a.num_kv_heads);
    const size_t vectors = size_t(all < BLOCK_VECTORS ? all : BLOCK_VECTORS), partials = vectors * (a.head_dim + PARTIAL_EXTRA);
    const size_t sizes[6] = {vectors * a.head_dim, vectors * ATTENTION_CHUNK, partials, partials, size_t(SUB_BLOCK) * a.head_dim,
                             size_t(ATTENTION_CHUNK) * SUB_BLOCK};
    size_t at[7] = {};
    for (int i = 0; i < 6; ++i) at[i + 1] = at[i] + (sizes[i] + 15) / 16 * 16;
    if (base) *scratch = {base, base + at[1], base + at[2], base + at[3], base + at[4], base + at[5]};
    return at[6];
}

size_t attention_scratch(const AttentionShape& a, int max_rows) { return scratch_of(a, max_rows, nullptr, nullptr); }

// Query vectors that attend together, [num][head_dim] and scaled, and the position of each.
struct Queries {
    const float* q;
    int num, window, positions[BLOCK_VECTORS];

    Tokens attends(int vector, int chunk) const {
        const int last = positions[vector] - chunk * ATTENTION_CHUNK;
        return {window > 0 ? within_chunk(last - window + 1) : 0, within_chunk(last + 1)};
    }
};

// Vectors [first, first + num) of a block, and the tokens of a chunk that any of them attends to.
struct Tile {
    int first, num;
    Tokens tokens;
};

// A block's vectors in tiles as equal as can be; returns how many.
inline int tiles_of(const Queries& queries, int chunk, Tile* tiles) {
    const int n = (queries.num + MAX_TILE - 1) / MAX_TILE;
    for (int i = 0, first = 0; i < n; ++i) {
        const int num = (queries.num - first + n - i - 1) / (n - i);
        tiles[i] = {first, num, {queries.attends(first, chunk).begin, queries.attends(first + num - 1, chunk).end}};
        first += num;
    }
    return n;
}

// Where the sub-blocks of one chunk lie; only those that are attended to are looked up.
template <class T>
struct Chunk {
    const T *keys[SUB_BLOCKS], *values[SUB_BLOCKS];
    const float *key_scales[SUB_BLOCKS], *value_scales[SUB_BLOCKS];
};

template <class T>
inline void find_chunk(const Source& source, int chunk, Tokens tokens, Chunk<T>* found) {
    const KvShape& s = source.s;
    for (int i = tokens.first_sub_block(); i < tokens.end_sub_block(); ++i) {
        const int position = chunk * ATTENTION_CHUNK + i * SUB_BLOCK, block = source.block_table[position / s.block_size];
        OCTAVO_CHECK(block >= 0 && block < s.num_blocks);
        const size_t at = kv_head_at(s, kv_sub_block(s, block, position % s.block_size), source.kv_head) * SUB_BLOCK;
        found->keys[i] = static_cast<const T*>(source.layer.keys) + at * s.head_dim;
        found->values[i] = static_cast<const T*>(source.layer.values) + at * s.head_dim;
        if (s.type != KvType::I8) continue;
        found->key_scales[i] = source.layer.key_scales + at;
        found->value_scales[i] = source.layer.value_scales + at;
    }
}

// A chunk, and what few and what many vectors do with it.
template <class T>
struct ChunkAttention {
    const Source& source;
    const Queries& queries;
    const Scratch& scratch;
    float* partial;  // [num][head_dim + PARTIAL_EXTRA]
    int chunk, num_tiles;
    Tokens tokens;  // that any vector attends to
    Tile tiles[MAX_TILES];
    Chunk<T> found;

    int head_dim() const { return source.a.head_dim; }
    int step() const { return source.a.head_dim + PARTIAL_EXTRA; }
    const float* q(const Tile& tile) const { return queries.q + tile.first * head_dim(); }
    float* scores(const Tile& tile) const { return scratch.scores + tile.first * ATTENTION_CHUNK; }

    void score_few() const {
        for (int i = 0; i < num_tiles; ++i) {
            const Tile& tile = tiles[i];
            scores_of<true>(tile.num, q(tile), head_dim(), found.keys, found.values, tile.tokens.first_sub_block(),
                            tile.tokens.end_sub_block(), scores(tile));
        }
    }

    void score_many() const {
        for (int s = tokens.first_sub_block(); s < tokens.end_sub_block(); ++s) {
            for (int e = 0; e < SUB_BLOCK * head_dim(); e += 8) store8(scratch.keys + e, load8(found.keys[s] + e));
            const float* keys = scratch.keys;
            for (int i = 0; i < num_tiles; ++i) {
                const Tile& tile = tiles[i];
                if (s < tile.tokens.first_sub_block() || s >= tile.tokens.end_sub_block()) continue;
                scores_of<false>(tile.num, q(tile), head_dim(), &keys, &keys, 0, 1, scores(tile) + s * SUB_BLOCK);
            }
        }
    }

    void softmax_all() const {
        const bool scaled = source.s.type == KvType::I8;
        const ScoreRules rules = {scaled ? found.key_scales : nullptr, scaled ? found.value_scales : nullptr, source.a.soft_cap};
        for (int i = 0; i < num_tiles; ++i)
            for (int j = tiles[i].first; j < tiles[i].first + tiles[i].num; ++j)
                softmax_in_place(scratch.scores + j * ATTENTION_CHUNK, queries.attends(j, chunk), tiles[i].tokens, rules,
                       partial + j * step() + head_dim());
    }

    void weigh_few(const T* const* next_keys) const {
        for (int i = 0; i < num_tiles; ++i) {
            const Tile& tile = tiles[i];
            const ValueColumns<T> values = {found.values, next_keys, head_dim(), 0};
            values_of<true>(tile.num, scores(tile), values, head_dim(), tile.tokens, partial + tile.first * step(), step());
        }
    }

    void weigh_many() const {
        const float* base[SUB_BLOCKS];
        for (int s = 0; s < SUB_BLOCKS; ++s) base[s] = scratch.values + s * SUB_BLOCK * SUB_BLOCK;
        for (int column = 0; column < head_dim(); column += SUB_BLOCK) {
            const int width = at_most(SUB_BLOCK, head_dim() - column);
            const ValueColumns<T> from = {found.values, nullptr, head_dim(), column};
            for (int t = tokens.begin; t < tokens.end; ++t)
                for (int j = 0; j < width; j += 8) store8(scratch.values + t * SUB_BLOCK + j, load8(from.at(t) + j));
            const ValueColumns<float> values = {base, nullptr, SUB_BLOCK, 0};
            for (int i = 0; i < num_tiles; ++i) {
                const Tile& tile = tiles[i];
                values_of<false>(tile.num, scores(tile), values, width, tile.tokens, partial + tile.first * step() + column, step());
            }
        }
    }
};

// What one chunk gives `queries`, into partial [num][head_dim + PARTIAL_EXTRA]; the next one's keys are prefetched meanwhile.
template <class T>
inline void chunk_of(const Source& source, const Queries& queries, int chunk, const Scratch& scratch, float* partial) {
    ChunkAttention<T> work = {source, queries, scratch, partial, chunk, 0, {}, {}, {}};
    work.num_tiles = tiles_of(queries, chunk, work.tiles);
    work.tokens = {work.tiles[0].tokens.begin, work.tiles[work.num_tiles - 1].tokens.end};
    find_chunk(source, chunk, work.tokens, &work.found);
    if (queries.num >= UNPACK_VECTORS) {
        work.score_many();
        work.softmax_all();
        work.weigh_many();
        return;
    }
    Chunk<T> next = work.found;
    find_chunk(source, chunk + 1, queries.attends(queries.num - 1, chunk + 1), &next);
    work.score_few();
    work.softmax_all();
    work.weigh_few(next.keys);
}

inline void any_chunk_of(const Source& source, const Queries& queries, int chunk, const Scratch& scratch, float* partial) {
    if (source.s.type == KvType::F32) chunk_of<float>(source, queries, chunk, scratch, partial);
    if (source.s.type == KvType::BF16) chunk_of<uint16_t>(source, queries, chunk, scratch, partial);
    if (source.s.type == KvType::I8) chunk_of<int8_t>(source, queries, chunk, scratch, partial);
}

// Vectors [begin, end) of a call's rows, vector v being head v % group of row v / group, scaled and one after the other.
inline void gather(const Source& source, int first_position, int begin, int end, const float* q, int64_t q_stride, float* to,
                   Queries* queries) {
    const int group = source.group(), head_dim = source.a.head_dim;
    const f32x8 factor = all8(ScoreRules::query_scale(source.a));
    queries->q = to;
    queries->num = end - begin;
    queries->window = source.a.window;
    for (int v = begin; v < end; ++v, to += head_dim) {
        const int row = v / group, head = source.kv_head * group + v % group;
        const float* from = q + row * q_stride + size_t(head) * head_dim;
        for (int d = 0; d < head_dim; d += 8) store8(to + d, load8(from + d) * factor);
        queries->positions[v - begin] = first_position + row;
    }
}

// Partials of vectors [begin, end), divided by their sums, to where they belong in `out`.
inline void finish(const AttentionShape& a, int kv_head, int begin, int end, const float* partials, float* out, int64_t out_stride) {
    const int group = a.num_heads / a.num_kv_heads;
    for (int v = begin; v < end; ++v, partials += a.head_dim + PARTIAL_EXTRA)
        finish_partial(partials, a.head_dim, out + v / group * out_stride + size_t(kv_head * group + v % group) * a.head_dim);
}

void attention(const AttentionShape& a, const KvShape& s, const KvLayer& layer, const int32_t* block_table, int first_position,
               int num_rows, int kv_head, const float* q, int64_t q_stride, float* out, int64_t out_stride, float* base) {
    const Source source = {a, s, layer, block_table, kv_head};
    const int step = a.head_dim + PARTIAL_EXTRA, num = num_rows * source.group();
    Scratch scratch;
    scratch_of(a, num_rows, base, &scratch);
    Queries queries;
    for (int begin = 0; begin < num; begin += BLOCK_VECTORS) {
        const int end = at_most(begin + BLOCK_VECTORS, num);
        gather(source, first_position, begin, end, q, q_stride, scratch.q, &queries);
        const int first = queries.positions[0], last = queries.positions[queries.num - 1];
        const Chunks chunks = attention_chunks(a, first, last - first + 1);
        any_chunk_of(source, queries, chunks.begin, scratch, scratch.running);
        for (int chunk = chunks.begin + 1; chunk < chunks.end; ++chunk) {
            any_chunk_of(source, queries, chunk, scratch, scratch.partial);
            for (int i = 0; i < queries.num; ++i) merge_partial(scratch.running + i * step, scratch.partial + i * step, a.head_dim);
        }
        finish(a, kv_head, begin, end, scratch.running, out, out_stride);
    }
}

void attention_chunk(const AttentionShape& a, const KvShape& s, const KvLayer& layer, const int32_t* block_table,
                     int first_position, int num_rows, int kv_head, int chunk, const float* q, int64_t q_stride, float* partial,
                     float* base) {
    const Source source = {a, s, layer, block_table, kv_head};
    const int num = num_rows * source.group();
    Scratch scratch;
    scratch_of(a, num_rows, base, &scratch);
    Queries queries;
    for (int begin = 0; begin < num; begin += BLOCK_VECTORS) {
        gather(source, first_position, begin, at_most(begin + BLOCK_VECTORS, num), q, q_stride, scratch.q, &queries);
        any_chunk_of(source, queries, chunk, scratch, partial + size_t(begin) * (a.head_dim + PARTIAL_EXTRA));
    }
}

void attention_merge(const AttentionShape& a, int num_chunks, int num_rows, int kv_head, float* partials, float* out,
                     int64_t out_stride) {
    const int num = num_rows * (a.num_heads / a.num_kv_heads), step = a.head_dim + PARTIAL_EXTRA;
    for (int i = 0; i < num; ++i)
        for (int chunk = 1; chunk < num_chunks; ++chunk)
            merge_partial(partials + size_t(i) * step, partials + (size_t(chunk) * num + i) * step, a.head_dim);
    finish(a, kv_head, 0, num, partials, out, out_stride);
}

}  // namespace
}  // namespace octavo::OCTAVO_ISA
