/* What saxpy.hip's kernel computes, for kfdsim (--shadow). */
#include "shadow_kernel.h"

static int run_saxpy(const kfdsim_launch* launch) {
  /* The kernel's arguments, laid out as in its signature. */
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
  if (x == NULL || y == NULL) return 1; /* the client gets a GPU memory fault */
  for (int32_t i = 0; i < arguments->n; ++i) y[i] += arguments->a * x[i];
  return 0;
}

const kfdsim_shadow_kernel kfdsim_shadow_kernels[] = {{"_Z5saxpyfPKfPfi", run_saxpy}, {NULL, NULL}};
