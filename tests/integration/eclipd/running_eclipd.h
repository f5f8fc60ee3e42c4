// An eclipd for a test, and what its clients need.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <eclip/eclip.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/fake/temporary_directory.h"
#include "tests/integration/kfdsim/child_process.h"
#include "tests/integration/kfdsim/inside_fixture.h"

namespace eclip::test {

/// Tests with an eclipd below kfdsim. Its socket is in $ECLIP_SOCKET for clients.
class EclipdTest : public InsideKfdsim {
 protected:
  /// Writes the configuration: `tables` and a socket of the test's own.
  [[nodiscard]] std::string write_config(const std::string& tables) const;
  /// Starts eclipd and waits until it serves.
  void start(const std::string& tables = {});
  /// The daemon; null after stop_daemon().
  [[nodiscard]] ChildProcess& daemon() { return *daemon_; }
  /// The process that serves; daemon() is its supervisor.
  [[nodiscard]] pid_t serving_pid() const { return control({"status"}).at("pid").get<pid_t>(); }
  /// Sends SIGTERM and returns the exit status.
  int stop_daemon();

  [[nodiscard]] std::string socket() const { return (directory_.path() / "eclipd.sock").string(); }
  /// The daemon's process, and a child that serves for it if there is one.
  [[nodiscard]] std::vector<pid_t> daemon_processes() const;
  /// Descriptors that they have open.
  [[nodiscard]] std::size_t daemon_descriptors() const;
  /// Kills it, waits for its end and returns when the kill was sent.
  std::chrono::steady_clock::time_point kill_daemon();
  /// Waits until a client of this name has forwarded packets; false at the deadline.
  [[nodiscard]] bool is_running(const std::string& name, std::uint64_t packets = 1) const;
  /// `eclipctl --json ...`; fails the test unless it exits with 0.
  [[nodiscard]] nlohmann::json control(const std::vector<std::string>& arguments) const;
  /// The state of each stream of the pool.
  [[nodiscard]] std::vector<std::string> stream_states() const;
  /// Asks eclipctl until all streams are free or a deadline passes.
  [[nodiscard]] bool all_streams_become_free() const;
  /// A worker that replays ShuffleNet; more arguments as for eclip-replay.
  [[nodiscard]] std::unique_ptr<ChildProcess> replay(const std::vector<std::string>& more) const;

  TemporaryDirectory directory_;
  std::string log_level_ = "debug";  ///< of the next start()
  std::unique_ptr<ChildProcess> daemon_;
};

/// The workgroups of each kernel of a profile, by which a scheduler tells that a request is the
/// plan's.
std::vector<std::uint32_t> workgroups_of(const std::string& profile);

/// A kernel of `time_us` whose results depend on order (MixKernarg), ready to be dispatched.
class MixKernel {
 public:
  MixKernel(Connection& connection, std::uint32_t time_us);
  /// A dispatch that mixes `salt` and the value into the value. Argument slots are used in turn.
  [[nodiscard]] eclip_dispatch next(std::uint32_t salt, std::uint32_t flags, std::uint32_t signal);
  [[nodiscard]] std::uint64_t value() const { return *memory_.host<std::uint64_t>(); }
  /// What serial execution of all dispatches so far gives.
  [[nodiscard]] std::uint64_t expected() const { return expected_; }

 private:
  Memory memory_;
  std::uint32_t kernel_;
  std::uint64_t slot_ = 0;
  std::uint64_t expected_ = 0;
};

}  // namespace eclip::test
