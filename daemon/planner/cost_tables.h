// What each kernel of each worker costs on each stream when nobody else runs: the numbers that the
// cost model (cost_model.h) adds up.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
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
  double requests_per_s = 0;    ///< rate of arrival; 0: closed loop, the next request at once
  bool unknown = false;         ///< it has no profile and no kernels (planner.h, as_planned)
  double weight = 1;            ///< in the objective, above 0
  double latency_bound_us = 0;  ///< of a request once it runs, without queueing; 0: none
  /// Kernels that a plan leaves on one stream, whoever becomes active meanwhile.
  std::vector<model::KernelRange> stay_together{};
  bool uniform = false;  ///< likewise all kernels of a request
};

/// What a request past its worker's latency bound adds to the value of a plan: more than any plan
/// gains, and the more the later it is. 0 within the bound, or without one.
constexpr double late_penalty(double request_us, double bound_us) {
  constexpr double penalty = 100;
  return bound_us > 0 && request_us > bound_us ? penalty * request_us / bound_us : 0;
}

/// Kernels that wait differ by the slots that they want: so many levels are told apart.
inline constexpr std::size_t slot_levels = 16;

/// One kernel on one stream, or the mean of several. Sources of the equations:
/// docs/device-model.md, "Sharing compute units".
struct KernelCost {
  double alone_us = 0;    ///< beta: its time on the stream's CUs, alone
  double full_us = 0;     ///< of that, in its full waves
  double slots = 0;       ///< share of each CU's room for workgroups that it holds in full waves
  double last_slots = 0;  ///< the same in its last wave
  double load = 0;        ///< share of each CU's throughput that it uses, 0 .. 1
  double memory = 0;      ///< share of the memory bandwidth that it uses, 0 .. 1
  std::size_t level = 0;  ///< of `slots`, 0 .. slot_levels - 1

  /// Slots x time.
  [[nodiscard]] double held_us() const { return slots * full_us + last_slots * last_us(); }
  /// Time in the last wave.
  [[nodiscard]] double last_us() const { return alone_us - full_us; }
};

/// The slots that a kernel of that level wants.
constexpr double slots_of_level(std::size_t level) {
  return static_cast<double>(level + 1) / slot_levels;
}

/// The kernel before another in program order, on the same stream.
struct Predecessor {
  double alone_us = 0;
  double held = 0;  ///< mean slots while it runs
};

enum class Resolution : std::uint8_t {
  kernels,  ///< each kernel is a class of its own
  classes,  ///< kernels with similar times and slots, after similar ones, count as equal
};

/// Costs by classes of kernels. The first kernel of a request is always class 0, alone. Never
/// changes once made. Streams are CU masks; two workers on the same mask need not share a queue.
class CostTables {
 public:
  static constexpr double never_us = std::numeric_limits<double>::infinity();

  /// O(kernels x different numbers of CUs). Masks and workers must not be empty.
  CostTables(const model::GpuDescription& gpu, std::span<const Worker> workers,
             std::span<const CuMask> streams, Resolution resolution = Resolution::kernels);
  /// The same, but with the parts of earlier tables of the same GPU, streams and resolution for the
  /// workers that have a number there.
  CostTables(const model::GpuDescription& gpu, std::span<const Worker> workers,
             std::span<const CuMask> streams, Resolution resolution, const CostTables& earlier,
             std::span<const std::optional<std::size_t>> numbers);

  [[nodiscard]] std::size_t workers() const { return workers_.size(); }
  [[nodiscard]] std::size_t streams() const { return cus_.size(); }
  [[nodiscard]] std::size_t classes(std::size_t worker) const {
    return workers_[worker]->members.size();
  }
  [[nodiscard]] double weight(std::size_t worker) const { return workers_[worker]->weight; }
  [[nodiscard]] double latency_bound_us(std::size_t worker) const {
    return workers_[worker]->latency_bound_us;
  }
  /// The class of each kernel, in program order.
  [[nodiscard]] std::span<const std::uint32_t> class_of_kernel(std::size_t worker) const {
    return workers_[worker]->class_of_kernel;
  }
  /// How many kernels are of each class.
  [[nodiscard]] std::span<const std::uint32_t> kernels_of_class(std::size_t worker) const {
    return workers_[worker]->members;
  }
  /// By class: on a stream, alone.
  [[nodiscard]] std::span<const KernelCost> costs(std::size_t worker, std::size_t stream) const {
    return workers_[worker]->on_size[size_index_[stream]].costs;
  }
  /// By class: the mean kernel before, on that stream.
  [[nodiscard]] std::span<const Predecessor> before(std::size_t worker, std::size_t stream) const {
    return workers_[worker]->on_size[size_index_[stream]].before;
  }
  /// By class: the time on those CUs of `stream` that are not in `other`; never_us when there are
  /// none.
  [[nodiscard]] std::span<const double> beside_us(std::size_t worker, std::size_t stream,
                                                  std::size_t other) const {
    return workers_[worker]->beside_us[beside_index_[stream * streams() + other]];
  }
  /// CUs of the stream.
  [[nodiscard]] double cus(std::size_t stream) const { return cus_[stream]; }
  /// Share of the CUs of `stream` that are in `other`, 0 .. 1.
  [[nodiscard]] double overlap(std::size_t stream, std::size_t other) const {
    return overlap_[stream * streams() + other];
  }

 private:
  struct OnSize {
    std::vector<KernelCost> costs;
    std::vector<Predecessor> before;
  };
  struct WorkerTables {
    double weight = 1;
    double latency_bound_us = 0;
    std::vector<std::uint32_t> class_of_kernel;
    std::vector<std::uint32_t> members;          // kernels of each class
    std::vector<OnSize> on_size;                 // [size_index]
    std::vector<std::vector<double>> beside_us;  // [beside_index][class]
  };

  void measure(std::span<const CuMask> streams);
  static WorkerTables tables_of(const model::GpuDescription& gpu, const Worker& worker,
                                std::span<const std::uint32_t> sizes,
                                std::span<const std::uint32_t> besides, Resolution resolution);

  std::vector<double> cus_;
  std::vector<double> overlap_;
  std::vector<std::uint32_t> sizes_;       // different numbers of CUs
  std::vector<std::uint32_t> besides_;     // and of those beside another stream
  std::vector<std::size_t> size_index_;    // of each stream
  std::vector<std::size_t> beside_index_;  // of each pair of streams
  std::vector<std::shared_ptr<const WorkerTables>> workers_;
};

}  // namespace eclip::planner
