// Data types of the native CPU kernels: packed weights, quantized activations, paged KV cache, ragged batch.
//
// Everything here is plain data. Sizes are in elements unless a name says bytes; pointers are borrowed, never owned.
// No header of the C++ library with templates is included by code that is compiled once per instruction set: the linker
// would be free to keep the AVX copy of an inline function for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

// Bounds checks of the debug build (`make sanitize`): a false one names its place and aborts.
// Elsewhere they cost nothing: the condition is compiled, never evaluated.
#ifdef OCTAVO_DEBUG
#define OCTAVO_CHECK(condition) ((condition) ? (void)0 : octavo::check_failed(#condition, __FILE__, __LINE__))
#else
#define OCTAVO_CHECK(condition) ((void)sizeof((condition)))
#endif

namespace octavo {

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

constexpr int TILE = 16;             // output columns (rows of the weight) that are stored together
constexpr int GROUP = 32;            // elements of K that share a scale, of weights and of activations
constexpr int SAMPLING_CHUNK = 256;  // tokens of the vocabulary whose weights are summed together
constexpr int SUB_BLOCK = 16;        // tokens of the cache that are stored together

// How a packed matrix stores its elements. K is padded with zeros to a multiple of GROUP, N to a multiple of TILE.
//
//   F32, BF16   [N/16][K][16]              y += x[k] * w
//   Q8          [N/16][K/32][8][16][4]     signed bytes; w = scale * q
//   U8          [N/16][K/32][8][16][4]     unsigned bytes 0..63; w = scale * q + min, one pair for 16 or for 32 elements of K
//   U4          [N/16][K/32][4][64]        two nibbles a byte; w = scale * q + min
//
// In Q8 and U8 byte (word, column, i) is element 4 * word + i of the group: the 64 bytes of one word of 16 columns are what a
// 512-bit dot product takes (Weights4x16 of the micro-kernels). In U4 byte j of pair p holds in its low nibble byte j of word 2p,
// in its high nibble byte j of word 2p + 1.
enum class Format : int32_t { F32 = 0, BF16 = 1, Q8 = 2, U8 = 3, U4 = 4 };

enum class ScaleType : int32_t { F16 = 0, F32 = 1 };

// A weight [n, k]: y[n] = sum_k w[n, k] x[k] (+ bias[n]).
struct Matrix {
    Format format;
    ScaleType scale_type;
    int32_t n, k;        // logical
    int32_t num_tiles;   // ceil(n / TILE)
    int32_t num_groups;  // ceil(k / GROUP)
    int32_t scales_per_group;  // 1, or 2 where 16 elements share a scale (U8 from Q6_K)
    int32_t unused;
    const void* elements;  // 64-byte aligned
    const void* scales;    // [N/16][K/32][scales_per_group][16], F16 or F32; null for F32 and BF16
    const void* mins;      // the same shape; null unless U8 or U4
    const float* bias;     // [num_tiles * 16] or null
};

// Activations of T rows as a matrix product takes them: bytes for quantized weights, floats for F32 and BF16.
// Group g of row t: x ~= scale * q, |q| <= 127, scale = max|x| / 127 (0 for a group of zeros).
struct Activations {
    int8_t* q;        // [T][groups * 32], padded with zeros
    float* scales;    // [T][groups]
    float* sums;      // [T][groups]: scale * sum(q), what a weight's min is multiplied by
    float* sums_of_16; // [T][groups * 2]: the same over 16 elements each
    int32_t* offsets; // [T][groups]: -128 * sum(q): a dot product with w + 128 that starts there ends as the one with w
    float* floats;    // [T][groups * 32], padded with zeros; null where no float weight reads these rows
    int32_t groups;
};

enum class KvType : int32_t { F32 = 0, BF16 = 1, I8 = 2 };

// One layer's keys and values. A block of `block_size` tokens (a multiple of SUB_BLOCK) is block_size / SUB_BLOCK sub-blocks; of each, for
// every kv head, keys lie transposed, [head_dim][16], and values as they are, [16][head_dim]: both products then run along
// lanes, without a horizontal sum. I8: value = scale * q, one scale per token and head, [sub-block][head][16].
struct KvLayer {
    void* keys;
    void* values;
    float* key_scales;    // null unless I8
    float* value_scales;
};

struct KvShape {
    KvType type;
    int32_t num_blocks, block_size, num_kv_heads, head_dim;
};

// Static, as every function in a header that an isa_*.cpp includes: the linker would keep one copy of an inline one for all.
static inline size_t kv_sub_block(const KvShape& s, int block, int offset) {  // which sub-block holds token `offset` of `block`
    OCTAVO_CHECK(0 <= block && block < s.num_blocks && 0 <= offset && offset < s.block_size);
    return size_t(block) * (s.block_size / SUB_BLOCK) + offset / SUB_BLOCK;
}

// A ragged batch: T rows of B requests, request after request.
struct Batch {
    int32_t num_rows, num_requests, max_blocks, num_logit_rows;
    const int32_t* token_ids;     // [T]
    const int32_t* positions;     // [T]
    const int32_t* query_starts;  // [B + 1]
    const int32_t* context_lens;  // [B], the step's own tokens included
    const int32_t* block_tables;  // [B][max_blocks]
    const int32_t* logit_rows;    // [num_logit_rows]
};

struct AttentionShape {
    int32_t num_heads, num_kv_heads, head_dim;
    int32_t window;  // a row attends to its last `window` positions, itself included; 0: all
    float scale;
    float soft_cap;  // scores become cap * tanh(score / cap); 0: off
};

constexpr int ATTENTION_CHUNK = 128;  // positions that share one softmax before chunks are merged
constexpr int PARTIAL_EXTRA = 8;      // floats behind a chunk's weighted values: sum, maximum, zeros

// The chunks [begin, end) that rows of consecutive positions attend to.
struct Chunks {
    int begin, end;
};
static inline Chunks attention_chunks(const AttentionShape& a, int first_position, int num_rows) {
    const int first = a.window > 0 && first_position >= a.window ? first_position - a.window + 1 : 0;
    return {first / ATTENTION_CHUNK, (first_position + num_rows - 1) / ATTENTION_CHUNK + 1};
}

}  // namespace octavo
