/* Host functions for the kernels of kernels.h, which kfdsim calls (--shadow). */
#include "tools/kfdsim/shadow_kernel.h"

static int run_axpy(const kfdsim_launch* launch) {
  const struct {
    float a;
    uint64_t x;
    uint64_t y;
    int32_t n;
  }* arguments = launch->read(launch, launch->kernarg, sizeof *arguments);
  if (arguments == NULL) return 1;
  const size_t bytes = (size_t)arguments->n * sizeof(float);
  const float* x = launch->read(launch, arguments->x, bytes);
  float* y = launch->write(launch, arguments->y, bytes);
  if (x == NULL || y == NULL) return 1;
  for (int32_t i = 0; i < arguments->n; ++i) y[i] += arguments->a * x[i];
  return 0;
}

static int run_iota(const kfdsim_launch* launch) {
  const struct {
    uint64_t out;
    uint32_t first;
    uint32_t n;
  }* arguments = launch->read(launch, launch->kernarg, sizeof *arguments);
  if (arguments == NULL) return 1;
  uint32_t* out = launch->write(launch, arguments->out, arguments->n * sizeof *out);
  if (out == NULL) return 1;
  for (uint32_t i = 0; i < arguments->n; ++i) out[i] = arguments->first + i;
  return 0;
}

const kfdsim_shadow_kernel kfdsim_shadow_kernels[] = {
    {"_Z4axpyfPKfPfi", run_axpy}, {"_Z4iotaPjjj", run_iota}, {NULL, NULL}};
