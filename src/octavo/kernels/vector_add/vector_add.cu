// out = a + b, element by element; bound by memory: 3 * sizeof(T) bytes for one addition, so enough bytes have to be in flight.
//
// Each thread loads PACKS packs of 16 bytes of a and of b before it uses the first: at PACKS = 2, 64 bytes a thread and, with
// 2,048 threads, 128 KB a multiprocessor. By Little's law an H200 needs about 4.8 TB/s * 0.7 us / 132 = 25 KB there.
#include "octavo.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
vector_add(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ out, int64_t count) {
#if VECTOR
  constexpr int SIZE = Pack<T>::SIZE;
  int64_t packs = count / SIZE, stride = static_cast<int64_t>(gridDim.x) * THREADS;
  int64_t first = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
  for (int64_t at = first; at < packs; at += PACKS * stride) {
    Pack<T> x[PACKS], y[PACKS];
#pragma unroll
    for (int i = 0; i < PACKS; i++)
      if (at + i * stride < packs) {
        x[i] = load_pack_once(a + (at + i * stride) * SIZE);
        y[i] = load_pack_once(b + (at + i * stride) * SIZE);
      }
#pragma unroll
    for (int i = 0; i < PACKS; i++)
      if (at + i * stride < packs) {
        float sums[SIZE];
#pragma unroll
        for (int j = 0; j < SIZE; j++) sums[j] = x[i][j] + y[i][j];
        store_pack_once(out + (at + i * stride) * SIZE, pack_floats<T>(sums));
      }
  }
  int64_t last = packs * SIZE + first;  // fewer than SIZE elements are left: the first threads of the grid take one each
  if (last < count) out[last] = from_float<T>(to_float(a[last]) + to_float(b[last]));
#else  // some pointer is no multiple of 16 bytes
  int64_t stride = static_cast<int64_t>(gridDim.x) * THREADS;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; i < count; i += stride)
    out[i] = from_float<T>(to_float(a[i]) + to_float(b[i]));
#endif
}
