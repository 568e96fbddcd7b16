// out[row] = sum of x[row, :], in five optimisation steps; bound by memory: sizeof(T) bytes for one addition.
//
// Every block sums one split of one row; a row's partial sums are summed by another launch, so the order of additions is fixed
// and the same input gives the same bits.
#include "octavo.cuh"

// The part of a row that this block sums. Splits are contiguous; the last of a row may be shorter, or empty.
struct Split {
  int64_t begin, end;
  DEVICE Split(int64_t size, int num_splits) {
    int64_t row = blockIdx.x / static_cast<unsigned>(num_splits), length = ceil_div(size, static_cast<int64_t>(num_splits));
    int64_t first = blockIdx.x % static_cast<unsigned>(num_splits) * length;
    begin = row * size + min(first, size);
    end = row * size + min(first + length, size);
  }
};

// Step 1. One element a thread, then a tree in shared memory. Neighbours are added first: in each round every second of the
// threads that still work drops out, so all warps stay busy with few lanes, and a round's accesses share banks.
extern "C" __global__ void __launch_bounds__(THREADS)
reduce_interleaved(const T* __restrict__ x, float* __restrict__ out, int64_t size, int num_splits) {
  __shared__ float sums[THREADS];
  Split split(size, num_splits);
  int me = threadIdx.x;
  sums[me] = split.begin + me < split.end ? to_float(x[split.begin + me]) : 0.0f;
  __syncthreads();
  for (int distance = 1; distance < THREADS; distance *= 2) {
    if (me % (2 * distance) == 0) sums[me] += sums[me + distance];
    __syncthreads();
  }
  if (me == 0) out[blockIdx.x] = sums[0];
}

// The same tree from the other end: the first half of the threads adds the second half. Whole warps drop out, and
// neighbouring threads read neighbouring banks.
DEVICE float tree(float mine, float* sums) {
  int me = threadIdx.x;
  sums[me] = mine;
  __syncthreads();
#pragma unroll
  for (int distance = THREADS / 2; distance > 0; distance /= 2) {
    if (me < distance) sums[me] += sums[me + distance];
    __syncthreads();
  }
  return sums[0];
}

// Step 2. Still one element a thread.
extern "C" __global__ void __launch_bounds__(THREADS)
reduce_sequential(const T* __restrict__ x, float* __restrict__ out, int64_t size, int num_splits) {
  __shared__ float sums[THREADS];
  Split split(size, num_splits);
  int64_t at = split.begin + threadIdx.x;
  float sum = tree(at < split.end ? to_float(x[at]) : 0.0f, sums);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Step 3. Each thread first adds many elements, a block's width apart: one tree for all of them.
DEVICE float strided_sum(const T* __restrict__ x, const Split& split) {
  float sum = 0.0f;
#pragma unroll 4
  for (int64_t at = split.begin + threadIdx.x; at < split.end; at += THREADS) sum += to_float(x[at]);
  return sum;
}
extern "C" __global__ void __launch_bounds__(THREADS)
reduce_strided(const T* __restrict__ x, float* __restrict__ out, int64_t size, int num_splits) {
  __shared__ float sums[THREADS];
  Split split(size, num_splits);
  float sum = tree(strided_sum(x, split), sums);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Registers instead of shared memory: five shuffles a warp, then one warp adds what the warps have. One barrier, not eight.
DEVICE float block_sum(float mine, float* sums) {
  float sum = warp_sum(mine);
  if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
  __syncthreads();
  return warp_sum(threadIdx.x % WARP < THREADS / WARP ? sums[threadIdx.x % WARP] : 0.0f);
}

// Step 4.
extern "C" __global__ void __launch_bounds__(THREADS)
reduce_shuffle(const T* __restrict__ x, float* __restrict__ out, int64_t size, int num_splits) {
  __shared__ float sums[THREADS / WARP];
  Split split(size, num_splits);
  float sum = block_sum(strided_sum(x, split), sums);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Elements [begin, end) by `width` threads, of which this is number `me`: 16 bytes a load, PACKS loads in flight. What lies
// before the first and behind the last multiple of 16 bytes is taken one by one, so any row of any tensor may come.
DEVICE float packed_sum(const T* __restrict__ x, int64_t begin, int64_t end, int me, int width) {
  constexpr int SIZE = Pack<T>::SIZE;
  int behind = static_cast<int>(reinterpret_cast<uint64_t>(x + begin) % 16 / sizeof(T));
  int64_t body = min(begin + (SIZE - behind) % SIZE, end), packs = (end - body) / SIZE, tail = body + packs * SIZE;
  float sums[PACKS] = {};
  for (int64_t at = me; at < packs; at += static_cast<int64_t>(PACKS) * width) {
    Pack<T> loaded[PACKS];  // zeros where nothing is left
#pragma unroll
    for (int i = 0; i < PACKS; i++)
      if (at + i * width < packs) loaded[i] = load_pack_once(x + body + (at + i * width) * SIZE);
#pragma unroll
    for (int i = 0; i < PACKS; i++)
#pragma unroll
      for (int j = 0; j < SIZE; j++) sums[i] += loaded[i][j];
  }
#pragma unroll
  for (int i = 1; i < PACKS; i++) sums[0] += sums[i];
  if (begin + me < body) sums[0] += to_float(x[begin + me]);  // fewer than SIZE <= width, on either side
  if (tail + me < end) sums[0] += to_float(x[tail + me]);
  return sums[0];
}

// Step 5: nothing left but the memory.
extern "C" __global__ void __launch_bounds__(THREADS)
reduce_packs(const T* __restrict__ x, float* __restrict__ out, int64_t size, int num_splits) {
  __shared__ float sums[THREADS / WARP];
  Split split(size, num_splits);
  float sum = block_sum(packed_sum(x, split.begin, split.end, threadIdx.x, THREADS), sums);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Rows too short for a block: one warp each, and no barrier at all.
extern "C" __global__ void __launch_bounds__(THREADS)
reduce_short_rows(const T* __restrict__ x, float* __restrict__ out, int64_t size, int64_t rows) {
  int64_t row = static_cast<int64_t>(blockIdx.x) * (THREADS / WARP) + threadIdx.x / WARP;
  if (row >= rows) return;
  float sum = warp_sum(packed_sum(x, row * size, (row + 1) * size, threadIdx.x % WARP, WARP));
  if (threadIdx.x % WARP == 0) out[row] = sum;
}
