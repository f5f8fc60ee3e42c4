#include <hip/hip_runtime.h>

#include "tests/integration/hip/kernels.h"

__global__ void axpy(float a, const float* x, float* y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = a * x[i] + y[i];
}

__global__ void iota(unsigned* out, unsigned first, unsigned n) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = first + i;
}

__global__ void unshadowed(unsigned* out) {
  out[threadIdx.x] = 1;
}

namespace eclip::test {

void launch_axpy(hipStream_t stream, float a, const float* x, float* y, int n) {
  axpy<<<(static_cast<unsigned>(n) + 255) / 256, 256, 0, stream>>>(a, x, y, n);
}

void launch_iota(hipStream_t stream, unsigned* out, unsigned first, unsigned n) {
  iota<<<(n + 255) / 256, 256, 0, stream>>>(out, first, n);
}

void launch_unshadowed(hipStream_t stream, unsigned* out) {
  unshadowed<<<1, 64, 0, stream>>>(out);
}

}  // namespace eclip::test
