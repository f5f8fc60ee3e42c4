// The HIP tests' kernels, launched from plain C++. axpy and iota have shadows (shadow_kernels.c).
#pragma once

#include <hip/hip_runtime_api.h>

namespace eclip::test {

/// y[i] = a x[i] + y[i], i < n; 256 work items in a workgroup.
void launch_axpy(hipStream_t stream, float a, const float* x, float* y, int n);
/// out[i] = first + i, i < n; 256 work items in a workgroup.
void launch_iota(hipStream_t stream, unsigned* out, unsigned first, unsigned n);
/// Writes ones to out[0..63], on a GPU that executes instructions.
void launch_unshadowed(hipStream_t stream, unsigned* out);

}  // namespace eclip::test
