// gelu(layer_norm(x)): each row is read once, kept in registers, and written once.
//
// ROW_THREADS threads have a row: a warp for a short one (no barrier), else a block. With PACKS packs of 16 bytes a thread the
// row lies in registers, so mean and variance take two passes without reading again: the sum of squares of what is already
// centred does not cancel. About 30 instructions an element: 1.1e12 elements/s on an H200, 4.5 TB/s of 16-bit values in and
// out, so the memory (4.3 TB/s) is the bound, but not by much: an exact erff, 20 instructions more, would be.
// PACKS = 0 takes any row, element by element, and reads it three times (from the caches).
#include "octavo.cuh"

constexpr bool ONE_WARP = ROW_THREADS == WARP;

// Over the threads of this row; each call with an array of its own.
DEVICE float row_sum(float value, float* sums) {
  value = warp_sum(value);
  if constexpr (ONE_WARP) {
    return value;
  } else {
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = value;
    __syncthreads();
    return warp_sum(threadIdx.x % WARP < THREADS / WARP ? sums[threadIdx.x % WARP] : 0.0f);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS)
layer_norm_gelu(const T* __restrict__ x, const T* __restrict__ weight, const T* __restrict__ bias, T* __restrict__ out,
                int64_t rows, int size, float eps) {
  __shared__ float for_mean[THREADS / WARP], for_variance[THREADS / WARP];
  int me = threadIdx.x % ROW_THREADS;
  int64_t row = static_cast<int64_t>(blockIdx.x) * (THREADS / ROW_THREADS) + threadIdx.x / ROW_THREADS;
  if (row >= rows) return;  // a whole warp, or nobody
  x += row * size;
  out += row * size;
#if PACKS
  constexpr int SIZE = Pack<T>::SIZE;
  int packs = size / SIZE;
  Pack<T> loaded[PACKS];  // zeros where there is nothing to load
  float values[PACKS][SIZE], sum = 0.0f, squares = 0.0f;
#pragma unroll
  for (int i = 0; i < PACKS; i++)
    if (me + i * ROW_THREADS < packs) loaded[i] = load_pack_once(x + (me + i * ROW_THREADS) * SIZE);
#pragma unroll
  for (int i = 0; i < PACKS; i++)
#pragma unroll
    for (int j = 0; j < SIZE; j++) sum += values[i][j] = loaded[i][j];
  float mean = row_sum(sum, for_mean) / size;
#pragma unroll
  for (int i = 0; i < PACKS; i++)
    if (me + i * ROW_THREADS < packs)
#pragma unroll
      for (int j = 0; j < SIZE; j++) {
        values[i][j] -= mean;
        squares += values[i][j] * values[i][j];
      }
  float scale = rsqrtf(row_sum(squares, for_variance) / size + eps);
#pragma unroll
  for (int i = 0; i < PACKS; i++) {
    int at = (me + i * ROW_THREADS) * SIZE;
    if (at < size) {
      Pack<T> weights = load_pack(weight + at), biases = load_pack(bias + at);
#pragma unroll
      for (int j = 0; j < SIZE; j++)
        values[i][j] = activate<ACTIVATION, T>(values[i][j] * (scale * weights[j]) + biases[j]);
      store_pack_once(out + at, pack_floats<T>(values[i]));
    }
  }
#else
  float sum = 0.0f, squares = 0.0f;
  for (int at = me; at < size; at += ROW_THREADS) sum += to_float(x[at]);
  float mean = row_sum(sum, for_mean) / size;
  for (int at = me; at < size; at += ROW_THREADS) squares += (to_float(x[at]) - mean) * (to_float(x[at]) - mean);
  float scale = rsqrtf(row_sum(squares, for_variance) / size + eps);
  for (int at = me; at < size; at += ROW_THREADS) {
    float normed = (to_float(x[at]) - mean) * scale * to_float(weight[at]) + to_float(bias[at]);
    out[at] = from_float<T>(activate<ACTIVATION, T>(normed));
  }
#endif
}
