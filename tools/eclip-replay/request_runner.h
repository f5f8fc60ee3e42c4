// Runs requests: submits a program's kernels to the leased streams in order and waits for the last.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <eclip/eclip.hpp>
#include <optional>
#include <vector>

#include "tools/eclip-replay/mix_chain.h"
#include "tools/eclip-replay/options.h"
#include "tools/eclip-replay/program.h"

namespace eclip::replay {

/// The streams that were asked for, in order. Throws ApiError.
std::vector<Lease> lease_streams(Connection& connection, const std::vector<StreamChoice>& choices);

/// Kernels follow each other strictly: on one stream by the barrier bit; across streams the last
/// kernel of the old one has a completion signal, and a barrier-AND packet that waits for it goes
/// first on the new one.
class RequestRunner {
 public:
  struct Settings {
    std::uint64_t switch_every;        ///< kernels; 0: never
    bool mix;                          ///< the program's kernels mix
    std::chrono::nanoseconds timeout;  ///< host time, for any one wait
  };

  /// Loads the program. `connection` must outlive this. Throws ApiError.
  RequestRunner(Connection& connection, const Program& program, std::vector<Lease> leases,
                Settings settings);

  /// One request, from its first packet to its end. Throws ApiError; ETIMEDOUT names the kernel.
  void run();

  [[nodiscard]] std::uint64_t packets() const { return packets_; }
  [[nodiscard]] std::uint64_t switches() const { return switches_; }
  [[nodiscard]] const std::vector<Lease>& leases() const { return leases_; }
  /// With Settings::mix, otherwise null.
  [[nodiscard]] const MixChain* mix_chain() const { return mix_ ? &*mix_ : nullptr; }

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

  Connection* connection_;
  std::vector<Lease> leases_;
  Settings settings_;
  std::vector<eclip_dispatch> dispatches_;  // of the distinct kernels
  std::vector<std::uint32_t> order_;
  std::optional<MixChain> mix_;
  std::vector<Signal> signals_;  // used in turn
  std::uint64_t signal_uses_ = 0;
  std::deque<InFlight> in_flight_;  // in program order, which is the order of completion
  Token last_token_{};              // of the last kernel that has one
  std::size_t current_ = 0;         // lease
  std::uint64_t kernels_ = 0;
  std::uint64_t packets_ = 0;
  std::uint64_t switches_ = 0;
};

}  // namespace eclip::replay
