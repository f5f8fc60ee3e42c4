// What each kernel of each worker costs on each stream when nobody else runs: the numbers that the
// cost model (cost_model.h) adds up.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/model/kernel.h"
#include "ipc/cu_mask.h"

namespace eclip::planner {

/// A worker: the kernels of one request, in program order.
struct Worker {
  std::string name;
  std::vector<std::shared_ptr<const model::Kernel>> kernels;
  double requests_per_s = 0;  ///< rate of arrival; 0: closed loop, the next request at once
};

/// Kernels that wait differ by the slots that they want: so many levels are told apart.
inline constexpr std::size_t slot_levels = 16;

/// One kernel on one stream. Sources of the equations: docs/device-model.md, "Sharing compute
/// units".
struct KernelCost {
  double alone_us = 0;      ///< beta: its time on the stream's CUs, alone
  double full_us = 0;       ///< of that, in its full waves
  double slots = 0;         ///< share of each CU's room for workgroups that it holds in full waves
  double last_slots = 0;    ///< the same in its last wave
  double load = 0;          ///< share of each CU's throughput that it uses, 0 .. 1
  double memory = 0;        ///< share of the memory bandwidth that it uses, 0 .. 1
  std::uint32_t level = 0;  ///< of `slots`, 0 .. slot_levels - 1

  /// Slots x time.
  [[nodiscard]] double held_us() const {
    return slots * full_us + last_slots * (alone_us - full_us);
  }
};

/// The slots that a kernel of that level wants.
constexpr double slots_of_level(std::size_t level) {
  return static_cast<double>(level + 1) / slot_levels;
}

/// Never changes once made. Streams are CU masks; two workers on the same mask need not share a
/// queue.
class CostTables {
 public:
  static constexpr double never_us = std::numeric_limits<double>::infinity();

  /// O(workers x kernels x streams^2). Masks must not be empty.
  CostTables(const model::GpuDescription& gpu, std::span<const Worker> workers,
             std::span<const CuMask> streams);

  [[nodiscard]] std::size_t workers() const { return costs_.size(); }
  [[nodiscard]] std::size_t streams() const { return cus_.size(); }
  [[nodiscard]] std::size_t kernels(std::size_t worker) const { return costs_[worker][0].size(); }
  /// Of all kernels of a worker on a stream, in program order.
  [[nodiscard]] std::span<const KernelCost> costs(std::size_t worker, std::size_t stream) const {
    return costs_[worker][stream];
  }
  /// For all kernels of a worker on `stream`: their time on those of its CUs that are not in
  /// `other`; never_us when there are none.
  [[nodiscard]] std::span<const double> beside_us(std::size_t worker, std::size_t stream,
                                                  std::size_t other) const {
    return beside_us_[worker][stream * streams() + other];
  }
  /// CUs of the stream.
  [[nodiscard]] double cus(std::size_t stream) const { return cus_[stream]; }
  /// Share of the CUs of `stream` that are in `other`, 0 .. 1.
  [[nodiscard]] double overlap(std::size_t stream, std::size_t other) const {
    return overlap_[stream * streams() + other];
  }

 private:
  std::vector<double> cus_;
  std::vector<double> overlap_;
  std::vector<std::vector<std::vector<KernelCost>>> costs_;  // [worker][stream][kernel]
  std::vector<std::vector<std::vector<double>>> beside_us_;  // [worker][stream, other][kernel]
};

}  // namespace eclip::planner
