// CUB's DeviceReduce sum in float32 as a shared library: the baseline of `reduce`. Needs nvcc and its headers.
#include <cub/device/device_reduce.cuh>
#include <cuda_bf16.h>

struct ToFloat {
  template <class T>
  __device__ float operator()(T value) const {
    return static_cast<float>(value);
  }
};

template <class T>
static int sum(const void* in, float* out, long long count, void* scratch, size_t* scratch_bytes, cudaStream_t stream) {
  return cub::DeviceReduce::TransformReduce(scratch, *scratch_bytes, static_cast<const T*>(in), out, count, cuda::std::plus<>{},
                                            ToFloat{}, 0.0f, stream);
}

// With scratch = nullptr: only says how many bytes of scratch it wants. Returns a cudaError_t.
extern "C" int octavo_cub_sum(const void* in, float* out, long long count, int bfloat16, void* scratch, size_t* scratch_bytes,
                              cudaStream_t stream) {
  return bfloat16 ? sum<__nv_bfloat16>(in, out, count, scratch, scratch_bytes, stream)
                  : sum<float>(in, out, count, scratch, scratch_bytes, stream);
}
