// A HIP program like any other, for trying kfdsim:
//
//   hipcc --offload-arch=gfx906 tools/kfdsim/examples/saxpy.hip -o saxpy
//   kfdsim run -- ./saxpy                                # the kernel computes nothing
//   gcc -shared -fPIC -Itools/kfdsim tools/kfdsim/examples/saxpy_shadow.c -o saxpy_shadow.so
//   kfdsim run --shadow saxpy_shadow.so -- ./saxpy       # its shadow computes the result
#include <hip/hip_runtime.h>

#include <cstdio>
#include <vector>

__global__ void saxpy(float a, const float* x, float* y, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = a * x[i] + y[i];
}

namespace {

bool succeeds(hipError_t error, const char* what) {
  if (error != hipSuccess) std::fprintf(stderr, "%s: %s\n", what, hipGetErrorString(error));
  return error == hipSuccess;
}

}  // namespace

int main() {
  constexpr int n = 1 << 20;
  constexpr std::size_t bytes = n * sizeof(float);
  std::vector<float> x(n);
  std::vector<float> y(n, 1.0F);
  for (int i = 0; i < n; ++i) x[i] = static_cast<float>(i % 4096);

  float* device_x = nullptr;
  float* device_y = nullptr;
  hipEvent_t begin = nullptr;
  hipEvent_t end = nullptr;
  if (!succeeds(hipMalloc(reinterpret_cast<void**>(&device_x), bytes), "hipMalloc") ||
      !succeeds(hipMalloc(reinterpret_cast<void**>(&device_y), bytes), "hipMalloc") ||
      !succeeds(hipMemcpy(device_x, x.data(), bytes, hipMemcpyHostToDevice), "hipMemcpy") ||
      !succeeds(hipMemcpy(device_y, y.data(), bytes, hipMemcpyHostToDevice), "hipMemcpy") ||
      !succeeds(hipEventCreate(&begin), "hipEventCreate") ||
      !succeeds(hipEventCreate(&end), "hipEventCreate")) {
    return 1;
  }
  bool worked = succeeds(hipEventRecord(begin, nullptr), "hipEventRecord");
  saxpy<<<n / 256, 256>>>(2.0F, device_x, device_y, n);
  float milliseconds = 0;
  worked = worked && succeeds(hipGetLastError(), "saxpy") &&
           succeeds(hipEventRecord(end, nullptr), "hipEventRecord") &&
           succeeds(hipMemcpy(y.data(), device_y, bytes, hipMemcpyDeviceToHost), "hipMemcpy") &&
           succeeds(hipEventElapsedTime(&milliseconds, begin, end), "hipEventElapsedTime");
  if (!worked) return 1;
  std::printf("y[1000] = %.1f (2001.0 is right), between the events %.3f ms\n", y[1000],
              milliseconds);
  return 0;
}
