// A profile as code that the GPU can run: a replay image and the order of a request's kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "daemon/model/profile.h"
#include "ipc/result.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::replay {

struct Program {
  ReplayImage image;                       ///< each distinct kernel once
  std::vector<model::LaunchShape> shapes;  ///< of the distinct kernels
  std::vector<std::uint32_t> order;        ///< a request, as indices of distinct kernels
};

/// Errc::invalid_argument when a kernel cannot be encoded, named by its distinct index.
Result<Program> build_program(const model::Profile& profile, bool mixes);

}  // namespace eclip::replay
