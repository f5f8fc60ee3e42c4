#include "tools/eclip-replay/program.h"

#include <map>

namespace eclip::replay {

Result<Program> build_program(const model::Profile& profile, bool mixes) {
  Program program;
  std::vector<ReplayKernel> distinct;
  // A model repeats its layers: equal curves and shapes are one kernel.
  std::map<std::vector<double>, std::uint32_t> known;
  for (const model::ProfiledKernel& profiled : profile.kernels) {
    const model::LaunchShape& shape = profiled.kernel.shape();
    std::vector<double> key{static_cast<double>(shape.workgroups),
                            static_cast<double>(shape.workgroup_size),
                            static_cast<double>(shape.registers_per_thread),
                            static_cast<double>(shape.local_memory_bytes)};
    ReplayKernel kernel{.shape = shape, .points = {}, .mixes = mixes};
    for (const std::uint32_t cus : profile.cu_counts) {
      kernel.points.push_back({cus, profiled.kernel.time_us(cus)});
      key.push_back(kernel.points.back().time_us);
    }
    const auto index = static_cast<std::uint32_t>(distinct.size());
    const auto [entry, is_new] = known.try_emplace(std::move(key), index);
    if (is_new) {
      distinct.push_back(std::move(kernel));
      program.shapes.push_back(shape);
    }
    program.order.push_back(entry->second);
  }
  auto image = build_replay_image(distinct);
  if (!image) return tl::unexpected(image.error());
  program.image = std::move(*image);
  return program;
}

}  // namespace eclip::replay
