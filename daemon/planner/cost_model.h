// The analytic cost of a plan: what co-located requests take, by formula instead of simulation.
// Equations and how well they agree with measurements: docs/planner.md.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "daemon/model/gpu_description.h"
#include "daemon/planner/cost_tables.h"

namespace eclip::planner {

/// The stream of each kernel of each worker: an index into the streams of the CostTables. A worker
/// without entries is not active.
struct Assignment {
  std::vector<std::vector<std::uint32_t>> stream_of_kernel;  ///< [worker][kernel]
};

enum class CostForm : std::uint8_t {
  waiting,       ///< beta (1 + memory) (1 + overload) + waiting behind co-runners' kernels
  additive,      ///< beta + mean waiting for co-runners as fast as on the whole GPU alone: a sum
                 ///< over pairs of kernels, which a linear program can hold
  proportional,  ///< the paper's: beta (1 + alpha), alpha of memory and summed occupancy
};

inline constexpr std::uint32_t no_stream = std::numeric_limits<std::uint32_t>::max();

struct CostOptions {
  CostForm form = CostForm::waiting;
  double request_overhead_us = 25.5;  ///< host time from a completion to the next request
  /// The stream without a mask: each worker on it has a queue of its own. Workers share the queues
  /// of all other streams.
  std::uint32_t unmasked = no_stream;
  std::uint32_t queues = 0;    ///< hardware queues that the plan needs; 0: those of its streams
  bool one_at_a_time = false;  ///< a request at a time over all workers in turn
};

struct Prediction {
  std::vector<double> request_us;  ///< of each worker from one completion to the next; 0: inactive
  std::vector<double> alone_us;    ///< the same with the same streams and nobody else
  double watts = 0;                ///< mean power
  std::vector<double> joules;      ///< dynamic energy of one request of each worker
};

/// Workers in a closed loop under one assignment. Pure. Tables, GPU and options must outlive it.
class CostModel {
 public:
  /// Kernels of one class on one stream.
  struct Share {
    std::uint32_t kernel_class;
    std::uint32_t stream;
    double kernels;
  };
  /// What keeps a kernel of one level of slots from running at once: sums over the kernels of one
  /// worker on one stream, per request.
  struct Obstacle {
    double held_us = 0;       ///< time in which such a kernel is kept away
    double residual_us2 = 0;  ///< the same times the mean of what is left of it
    double starts = 0;        ///< kernels that keep it away when they come first
  };
  /// Kernels of one worker on one stream, as a co-runner meets them. Sums are per request.
  struct StreamUse {
    std::uint32_t stream = 0;
    double kernels = 0;
    double held_us = 0;       ///< slots x time
    double load_us = 0;       ///< load x time
    double held_load_us = 0;  ///< slots x load x time
    double memory_us = 0;     ///< share of the bandwidth x time
    std::array<Obstacle, slot_levels> obstacles{};
    void add(const KernelCost& cost, double kernels_added);
  };
  struct ActiveWorker {
    double kernels = 0;
    double service_us = 0;  ///< kernels, alone
    double fixed_us = 0;    ///< gaps, switches, the host's part
    double fastest_us = 0;  ///< alone on the stream with most CUs
    double joules = 0;
    std::vector<Share> shares;
    std::vector<StreamUse> uses;
    double request_us = 0;        ///< the current solution
    std::vector<double> wait_us;  ///< of that, for each other worker
    std::vector<double> in_step;  ///< of that, share of its kernels that waited for that worker
    [[nodiscard]] double alone_us() const { return service_us + fixed_us; }
  };
  CostModel(const model::GpuDescription& gpu, const CostTables& tables,
            const Assignment& assignment, const CostOptions& options);

  /// The same for workers that active_worker made, in order.
  CostModel(const model::GpuDescription& gpu, const CostTables& tables,
            std::vector<ActiveWorker> workers, const CostOptions& options);
  /// A worker under an assignment of its own kernels (empty: not active), before anybody else is
  /// looked at.
  static ActiveWorker active_worker(const model::GpuDescription& gpu, const CostTables& tables,
                                    std::size_t worker, std::span<const std::uint32_t> streams,
                                    const CostOptions& options);

  /// Asked between rounds with the request times so far, which are mostly within a tenth of the
  /// solution then; true ends the rounds.
  using GiveUp = std::function<bool(const CostModel& model)>;

  /// O(rounds x classes x streams used by co-runners); rounds until times change by 0.2 %.
  Prediction solve(const GiveUp& give_up = {});
  [[nodiscard]] Prediction prediction() const;  ///< of the times so far
  /// After solve: what each class of a worker's kernels would take on a stream, co-runners being as
  /// they are. Without gaps and switches.
  [[nodiscard]] std::vector<double> class_times_us(std::size_t worker, std::uint32_t stream) const;
  /// After solve: how long others would wait in a request of theirs for each class of the worker's
  /// kernels on a stream; the sum over the others, each with its weight. To first order, exact in
  /// the additive form.
  [[nodiscard]] std::vector<double> class_delays_us(std::size_t worker, std::uint32_t stream,
                                                    std::span<const double> weights) const;

 private:
  /// What a kernel of one level of slots meets of a co-runner on one of its streams.
  struct Meeting {
    double random = 0;         ///< chance that it has to wait, at a random time
    double left_us = 0;        ///< how long it waits then
    double queued_us = 0;      ///< mean wait at a random time behind kernels that wait themselves
    double next = 0;           ///< chance that it has to wait when the next kernel goes first
    double next_us = 0;        ///< how long it waits then
    double starts_per_us = 0;  ///< such kernels per time in which none keeps it away
    double ends_per_us = 0;    ///< and ends per time in which one does
  };
  struct Encounter {
    std::size_t worker = 0;
    std::uint32_t stream = 0;
    double held = 0;       ///< mean slots
    double load = 0;       ///< mean load
    double held_load = 0;  ///< mean of slots x load
    std::array<Meeting, slot_levels> meetings{};
  };
  /// A kernel's wait for one co-runner's stream, and the chance that it waits. Both grow linearly
  /// with the share of kernels in step.
  struct Wait {
    double us = 0;              ///< when none is in step
    double us_in_step = 0;      ///< what is added when all are
    double chance = 0;          ///< likewise
    double chance_in_step = 0;  ///< likewise
  };

  /// One of a worker's streams beside one of a co-runner's: what is the same for all classes.
  struct Pairing {
    std::span<const KernelCost> costs;
    std::span<const Predecessor> before;
    std::span<const double> beside_us;
    double overlap = 0;           ///< share of the worker's CUs
    double overlap_of_other = 0;  ///< share of the co-runner's
    /// Share of its speed that a kernel loses while the other stream is taken.
    [[nodiscard]] double loss(std::uint32_t kernel_class) const {
      const double us = beside_us[kernel_class];
      return us == CostTables::never_us ? 1 : 1 - costs[kernel_class].alone_us / us;
    }
  };
  /// What co-runners hold of the CUs of a stream, on average.
  struct Crowd {
    double held = 0;
    double load = 0;
    double held_load = 0;
  };

  [[nodiscard]] bool past_connections() const;
  [[nodiscard]] Pairing pairing(std::size_t worker, std::uint32_t stream,
                                std::uint32_t other) const;
  [[nodiscard]] Crowd crowd(std::span<const Encounter> met, std::uint32_t stream) const;
  [[nodiscard]] Encounter encounter(std::size_t worker, std::size_t other,
                                    const StreamUse& use) const;
  [[nodiscard]] std::vector<Encounter> encounters(
      std::size_t worker, const std::function<bool(const StreamUse&)>& meets) const;
  [[nodiscard]] double memory_of_others(std::size_t worker) const;
  [[nodiscard]] Wait wait_for(const Encounter& other, const Pairing& pair,
                              std::uint32_t kernel_class) const;
  /// Time of one kernel beside its waits.
  [[nodiscard]] double service_us(const Crowd& crowd, const KernelCost& cost, double memory) const;
  double request_time(std::size_t worker);

  const model::GpuDescription& gpu_;
  const CostTables& tables_;
  const CostOptions& options_;
  std::vector<ActiveWorker> workers_;
};

/// CostModel(...).solve().
Prediction predict(const model::GpuDescription& gpu, const CostTables& tables,
                   const Assignment& assignment, const CostOptions& options);

}  // namespace eclip::planner
