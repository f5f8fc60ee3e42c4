// Runs requests: submits a program's kernels in order and waits for the last.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <eclip/eclip.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "tools/eclip-replay/mix_chain.h"
#include "tools/eclip-replay/options.h"
#include "tools/eclip-replay/program.h"

namespace eclip::replay {

/// Loads a program and runs it, request by request.
class RequestRunner {
 public:
  struct Stream {
    std::uint32_t stream;
    std::uint32_t cu_count;
  };
  using Clock = std::chrono::steady_clock;

  virtual ~RequestRunner() = default;
  RequestRunner(const RequestRunner&) = delete;
  RequestRunner& operator=(const RequestRunner&) = delete;

  /// One request, from its first packet to its end. Throws ApiError; ETIMEDOUT says where it hangs.
  /// `next`: when the request after it arrives.
  virtual void run(Clock::time_point next) = 0;
  [[nodiscard]] virtual std::uint64_t packets() const = 0;
  [[nodiscard]] virtual std::uint64_t switches() const = 0;
  /// Those that were leased; none when the plan chooses.
  [[nodiscard]] virtual std::vector<Stream> streams() const { return {}; }
  /// When the plan chooses.
  [[nodiscard]] virtual std::optional<eclip_scheduler_state> scheduler() const { return {}; }
  /// When kernels mix, otherwise null.
  [[nodiscard]] const MixChain* mix_chain() const { return mix_ ? &*mix_ : nullptr; }

 protected:
  /// `connection` must outlive this. Throws ApiError.
  RequestRunner(Connection& connection, const Program& program, bool mix);

  Connection* connection_;
  std::vector<eclip_dispatch> dispatches_;  // of the distinct kernels
  std::vector<std::uint32_t> order_;
  std::optional<MixChain> mix_;
};

/// Of the options: by the plan, or on leased streams. Throws ApiError.
std::unique_ptr<RequestRunner> make_runner(Connection& connection, const Program& program,
                                           const Options& options);

/// On streams that it leases. Kernels follow each other strictly: on one stream by the barrier bit;
/// across streams the last kernel of the old one has a completion signal, and a barrier-AND packet
/// that waits for it goes first on the new one.
class LeasedRunner final : public RequestRunner {
 public:
  LeasedRunner(Connection& connection, const Program& program, const Options& options);

  void run(Clock::time_point next) override;
  [[nodiscard]] std::uint64_t packets() const override { return packets_; }
  [[nodiscard]] std::uint64_t switches() const override { return switches_; }
  [[nodiscard]] std::vector<Stream> streams() const override;

 private:
  struct InFlight {
    std::uint64_t kernel;  ///< number of the last kernel that the token covers
    Token token;
  };

  void submit_kernel(std::uint32_t index, bool first, bool last);
  void change_stream(std::size_t lease, bool first);
  /// Submits with a signal if asked; waits for room when the ring is full.
  template <class Packet>
  Token submit(Packet packet, bool with_signal);
  void wait_for_oldest();
  void wait_for_all();
  [[nodiscard]] std::size_t lease_of(std::uint64_t kernel) const;

  std::vector<Lease> leases_;
  const std::uint64_t switch_every_;        // kernels; 0: never
  const std::chrono::nanoseconds timeout_;  // host time, for any one wait
  std::vector<Signal> signals_;             // used in turn
  std::uint64_t signal_uses_ = 0;
  std::deque<InFlight> in_flight_;  // in program order, which is the order of completion
  Token last_token_{};              // of the last kernel that has one
  std::size_t current_ = 0;         // lease
  std::uint64_t kernels_ = 0;
  std::uint64_t packets_ = 0;
  std::uint64_t switches_ = 0;
};

/// On the streams that eclipd's plan says.
class PlannedRunner final : public RequestRunner {
 public:
  PlannedRunner(Connection& connection, const Program& program, const Options& options);

  void run(Clock::time_point next) override;
  [[nodiscard]] std::uint64_t packets() const override;
  [[nodiscard]] std::uint64_t switches() const override { return state().switches; }
  [[nodiscard]] std::optional<eclip_scheduler_state> scheduler() const override { return state(); }

 private:
  [[nodiscard]] eclip_scheduler_state state() const { return scheduler_.describe(); }

  const std::chrono::nanoseconds timeout_;
  WorkerScheduler scheduler_;
  WorkerProgram worker_program_;
};

}  // namespace eclip::replay
