// The guard of the budget of CU-masked streams (bpf/guard.bpf.c): installed once, pinned, it holds
// all processes to the budget whether eclipd runs or not.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "bpf/guard.h"
#include "bpf/maps.h"
#include "ipc/result.h"
#include "ipc/unique_fd.h"

namespace eclip::bpf {

/// What refuses.
enum class GuardVerdict : std::uint32_t {
  lsm = 0,       ///< BPF programs of the security module
  fmod_ret = 1,  ///< BPF programs in the security hooks themselves, where `bpf` is not in lsm=
};

struct GuardTier {
  GuardVerdict verdict = GuardVerdict::lsm;
  guard_accounting accounting = guard_by_functions;
};
/// One line: what refuses and what counts, and what that cannot do.
std::string describe(GuardTier tier);
/// In plain words, without the process.
std::string describe(guard_reason reason);

struct GuardState {
  GuardTier tier;
  guard_policy policy;
  std::uint32_t limit;  ///< masked queues of all processes
  std::int64_t in_use;  ///< with calls under way that may add one
  bool gates_render_nodes;
  std::uint64_t checked;      ///< calls looked at
  std::uint64_t unchecked;    ///< calls that reached the driver past the guard
  std::uint64_t unaccounted;  ///< queues that there was no room to note
  std::array<std::uint64_t, guard_reasons> refused;
  std::array<std::uint64_t, guard_reasons> audited;  ///< would have been refused
};

/// What a process was refused, or would have been; the latest 1024 processes.
struct GuardDenial {
  guard_process process;
  guard_denial what;
};

/// The maps of an installed guard. Needs CAP_BPF. All errors but those named: the system's.
class BudgetGuard {
 public:
  static constexpr const char* default_directory = "/sys/fs/bpf/eclip";

  struct Options {
    std::string kfd = "/dev/kfd";
    std::filesystem::path directory = default_directory;  ///< on a bpffs
    guard_policy policy = guard_audit;
    std::uint32_t budget = 7;        ///< masked queues of each covered GPU
    bool gate_render_nodes = false;  ///< only processes with a lease may open one
  };
  struct Installed;
  /// Loads, tests and pins the best kind that this kernel permits, or takes over what is pinned:
  /// then its policy stays unless the configuration's has changed since. A guard of another
  /// version, or for another device, is replaced. Errc::unsupported says what the kernel refused.
  static Result<Installed> install(const Options& options);
  static bool is_installed(const std::filesystem::path& directory = default_directory);
  /// Errc::not_found when there is none.
  static Result<BudgetGuard> open(const std::filesystem::path& directory = default_directory);
  /// Whether there was one.
  static Result<bool> remove(const std::filesystem::path& directory = default_directory);

  [[nodiscard]] Result<GuardState> state() const;
  [[nodiscard]] Result<std::vector<KfdQueues>> queues() const;
  [[nodiscard]] Result<std::vector<GuardDenial>> denials() const;
  Result<void> set_policy(guard_policy policy);
  Result<void> set_render_node_gate(bool gated);
  /// The budget is for this GPU (the driver's id) too: its eclipd's pool is under the guard.
  /// Without any it is for one. Errc::quota_exceeded: there are 16 already.
  Result<void> cover(std::uint32_t gpu_id);
  /// The process may have so many masked queues, until it ends or executes another program; 0 takes
  /// its lease away, but no queue that it has.
  Result<void> grant(pid_t pid, std::uint32_t masked_queues);

 private:
  BudgetGuard() = default;
  [[nodiscard]] Result<guard_settings> settings() const;
  Result<void> change(guard_settings settings);
  static Result<BudgetGuard> open_maps(const std::filesystem::path& directory);

  UniqueFd settings_;
  UniqueFd state_;
  UniqueFd leases_;
  UniqueFd queues_;
  UniqueFd denials_;
};

struct BudgetGuard::Installed {
  BudgetGuard guard;
  bool taken_over;  ///< it was there
};

}  // namespace eclip::bpf
