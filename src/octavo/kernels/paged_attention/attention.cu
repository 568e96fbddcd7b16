// out = softmax(scale q K^T) V of single query rows over a paged KV cache (decode), split over the context; bound by memory.
//
// A block takes one query row, one KV head with HEADS of the query heads that share it, and one split of the context: every key
// and value is read once for all of them.
//
// TEAM lanes hold one token: a pack of 16 bytes each, EACH packs where a row is longer. A team takes TOKENS tokens at a time, so
// 2 * TOKENS packs a lane are on their way, and keeps a running maximum, sum and output (online softmax: Milakov and
// Gimelshein, 2018). Teams meet in shared memory at the end, splits in a second kernel (split-KV: Dao et al., 2023).
#include "octavo.cuh"

constexpr int SIZE = VECTOR ? 16 / sizeof(C) : 1;  // elements a load
constexpr int LOADS = HEAD_DIM / SIZE, TEAMS = THREADS / TEAM;
constexpr int RECORD = HEAD_DIM + 2;  // of a partial result: maximum, sum, output
static_assert(EACH * TEAM >= LOADS);

DEVICE float nothing() { return __uint_as_float(0xff800000u); }  // -infinity

struct Loaded {
  Pack<C> packs[EACH];
  DEVICE float at(int i, int j) const { return VECTOR ? packs[i][j] : packs[i][0]; }
};

// This lane's part of a token's row. `inside`: the token is there.
DEVICE Loaded load_row(const C* __restrict__ row, bool inside) {
  Loaded out;
  int lane = threadIdx.x % TEAM;
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (inside && lane + i * TEAM < LOADS) {
      if constexpr (VECTOR != 0)
        out.packs[i] = load_pack_once(row + (lane + i * TEAM) * SIZE);
      else
        out.packs[i].values[0] = row[lane + i * TEAM];
    }
  return out;
}

DEVICE float team_sum(float value) {
#pragma unroll
  for (int offset = TEAM / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
  return value;
}

// The request that has this row: the last whose first row is not behind it.
DEVICE int request_of(const int* __restrict__ starts, int requests, int row) {
  int low = 0, high = requests;  // starts[low] <= row < starts[high]
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (starts[middle] <= row)
      low = middle;
    else
      high = middle;
  }
  return low;
}

struct Cache {
  const C *keys, *values;
  const int* table;  // of this request
  int blocks, kv_heads, kv_head;
  // Where a token's row begins; -1: in no block of the cache (DEBUG).
  DEVICE int64_t offset(int token) const {
    int block = table[token / BLOCK_SIZE];
    if (DEBUG && (block < 0 || block >= blocks)) return -1;
    return ((static_cast<int64_t>(block) * BLOCK_SIZE + token % BLOCK_SIZE) * kv_heads + kv_head) * HEAD_DIM;
  }
};

// What one team knows of HEADS query heads.
struct State {
  float maximum[HEADS], sum[HEADS], out[HEADS][EACH][SIZE];

  // TOKENS more tokens, the first `first`, each TEAMS behind the one before; those from `end` on are not there.
  DEVICE void add(const float (&q)[HEADS][EACH][SIZE], const Cache& cache, int first, int end, float scale, float soft_cap) {
    Loaded keys[TOKENS], values[TOKENS];
    float poison[TOKENS];  // NaN where a block id is out of range
#pragma unroll
    for (int u = 0; u < TOKENS; u++) {
      int token = first + u * TEAMS;
      int64_t offset = token < end ? cache.offset(token) : 0;
      bool inside = token < end && offset >= 0;
      poison[u] = offset < 0 ? __uint_as_float(0x7fc00000u) : 0.0f;
      keys[u] = load_row(cache.keys + offset, inside);
      values[u] = load_row(cache.values + offset, inside);
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
      float scores[TOKENS], most = maximum[h];
#pragma unroll
      for (int u = 0; u < TOKENS; u++) {
        float dot = poison[u];
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
          for (int j = 0; j < SIZE; j++) dot += q[h][i][j] * keys[u].at(i, j);
        float score = team_sum(dot) * scale;
        if (soft_cap > 0.0f) score = soft_cap * tanhf(score / soft_cap);
        scores[u] = first + u * TEAMS < end ? LOG2_E * score : nothing();
        most = fmaxf(most, scores[u]);
      }
      float base = most == nothing() ? 0.0f : most, kept = fast_exp2(maximum[h] - base);
      maximum[h] = most;
      sum[h] *= kept;
#pragma unroll
      for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < SIZE; j++) out[h][i][j] *= kept;
#pragma unroll
      for (int u = 0; u < TOKENS; u++) {
        float weight = fast_exp2(scores[u] - base);
        sum[h] += weight;
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
          for (int j = 0; j < SIZE; j++) out[h][i][j] += weight * values[u].at(i, j);
      }
    }
  }
};

// `num_splits` of `split_tokens` tokens; grid: rows * kv_heads * parts * num_splits, a part being HEADS of the query heads of a
// kv head.
// `partial`: float32 [rows, heads, num_splits, RECORD].
extern "C" __global__ void __launch_bounds__(THREADS)
attention_pieces(const T* __restrict__ q, const C* __restrict__ keys, const C* __restrict__ values,
                 const int* __restrict__ starts, const int* __restrict__ contexts, const int* __restrict__ tables,
                 const float* __restrict__ key_scale, float* __restrict__ partial, int requests, int rows, int heads,
                 int kv_heads, int blocks, int max_blocks, int num_splits, int split_tokens, int window, float scale,
                 float soft_cap) {
  DYNAMIC_SHARED(memory);
  float* records = reinterpret_cast<float*>(memory);  // [TEAMS, HEADS, RECORD]
  int group = heads / kv_heads, parts = ceil_div(group, HEADS);
  unsigned index = blockIdx.x;
  int split = index % num_splits, part = index / num_splits % parts, kv_head = index / num_splits / parts % kv_heads;
  int row = index / num_splits / parts / kv_heads, first_head = kv_head * group + part * HEADS;
  int team = threadIdx.x / TEAM, lane = threadIdx.x % TEAM;

  int request = request_of(starts, requests, row), past = starts[request + 1];
  int end = row < past ? contexts[request] - (past - row) + 1 : 0;  // a row that nobody has sees nothing
  int begin = max(window ? max(0, end - window) : 0, split * split_tokens);
  end = min(end, (split + 1) * split_tokens);

  float query[HEADS][EACH][SIZE];
  State state;
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    state.maximum[h] = nothing();
    state.sum[h] = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
      for (int j = 0; j < SIZE; j++) {
        int element = (lane + i * TEAM) * SIZE + j;
        bool inside = element < HEAD_DIM && part * HEADS + h < group;
        query[h][i][j] = inside ? to_float(q[(static_cast<int64_t>(row) * heads + first_head + h) * HEAD_DIM + element]) : 0.0f;
        state.out[h][i][j] = 0.0f;
      }
  }
  Cache cache{keys, values, tables + static_cast<int64_t>(request) * max_blocks, blocks, kv_heads, kv_head};
  if (key_scale != nullptr) scale *= key_scale[kv_head];
  for (int token = begin; token < end; token += TEAMS * TOKENS)  // all warps as often: the shuffles need every lane
    state.add(query, cache, token + team, end, scale, soft_cap);

#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    float* record = records + (team * HEADS + h) * RECORD;
    if (lane == 0) {
      record[0] = state.maximum[h];
      record[1] = state.sum[h];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
      for (int j = 0; j < SIZE; j++) {
        int element = (lane + i * TEAM) * SIZE + j;
        if (element < HEAD_DIM) record[2 + element] = state.out[h][i][j];
      }
  }
  __syncthreads();
  for (int h = 0; h < HEADS && part * HEADS + h < group; h++) {
    float most = nothing(), sum = 0.0f;
    for (int i = 0; i < TEAMS; i++) most = fmaxf(most, records[(i * HEADS + h) * RECORD]);
    float base = most == nothing() ? 0.0f : most;
    float* to = partial + ((static_cast<int64_t>(row) * heads + first_head + h) * num_splits + split) * RECORD;
    for (int element = threadIdx.x; element < HEAD_DIM; element += THREADS) {
      float out = 0.0f;
      for (int i = 0; i < TEAMS; i++) {
        const float* record = records + (i * HEADS + h) * RECORD;
        out += fast_exp2(record[0] - base) * record[2 + element];
      }
      to[2 + element] = out;
    }
    if (threadIdx.x == 0) {
      for (int i = 0; i < TEAMS; i++)
        sum += fast_exp2(records[(i * HEADS + h) * RECORD] - base) * records[(i * HEADS + h) * RECORD + 1];
      to[0] = most;
      to[1] = sum;
    }
  }
}

// A warp merges the splits of one row and head. `total`: rows * heads.
extern "C" __global__ void __launch_bounds__(THREADS)
attention_together(const float* __restrict__ partial, const float* __restrict__ value_scale, T* __restrict__ out, int64_t total,
                   int heads, int kv_heads, int num_splits) {
  int64_t index = static_cast<int64_t>(blockIdx.x) * (THREADS / WARP) + threadIdx.x / WARP;
  if (index >= total) return;
  const float* records = partial + index * num_splits * RECORD;
  float most = nothing(), sum = 0.0f;
  for (int i = 0; i < num_splits; i++) most = fmaxf(most, records[i * RECORD]);
  float base = most == nothing() ? 0.0f : most;
  for (int i = 0; i < num_splits; i++) sum += fast_exp2(records[i * RECORD] - base) * records[i * RECORD + 1];
  float scale = sum == 0.0f ? 0.0f : 1.0f / sum;  // nothing was seen: zeros
  if (value_scale != nullptr) scale *= value_scale[index % heads / (heads / kv_heads)];
  for (int element = threadIdx.x % WARP; element < HEAD_DIM; element += WARP) {
    float value = 0.0f;
    for (int i = 0; i < num_splits; i++) value += fast_exp2(records[i * RECORD] - base) * records[i * RECORD + 2 + element];
    out[index * HEAD_DIM + element] = from_float<T>(value * scale);
  }
}
