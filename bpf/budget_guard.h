// The guard of the budget of CU-masked streams (bpf/guard.bpf.c): installed once, pinned, it holds
// all processes to the budget whether eclipd runs or not.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bpf/guard.h"
#include "bpf/maps.h"
#include "ipc/messages.h"
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
  std::uint32_t limit;  ///< masked queues of all processes: the budget of each covered GPU
  std::int64_t in_use;  ///< with calls under way that may add one
  bool gates_drm_devices;
  std::uint64_t checked;      ///< calls looked at
  std::uint64_t unchecked;    ///< calls that reached the driver past the guard
  std::uint64_t unaccounted;  ///< queues that there was no room to note
  std::array<std::uint64_t, guard_reasons> refused;
  std::array<std::uint64_t, guard_reasons> audited;  ///< would have been refused
};

/// The maps of an installed guard. Needs CAP_BPF; to install it, also CAP_PERFMON, and
/// CAP_SYS_ADMIN for the driver's types. All errors but those named: the system's.
class BudgetGuard {
 public:
  static constexpr const char* directory = "/sys/fs/bpf/eclip";

  struct Options {
    guard_policy policy = guard_audit;
    std::uint32_t budget = 7;  ///< masked queues of each covered GPU
    /// Only processes with a lease may open a DRM device; nullopt: as it is, or not.
    std::optional<bool> gate_drm_devices;
  };
  struct Installed;
  /// Loads, tests and pins the best kind that this kernel permits, or takes over what is pinned and
  /// still works: then its policy stays unless the configuration's has changed since. A guard of
  /// another version, or of another device, is replaced. Errc::unsupported says what the kernel
  /// refused; Errc::already_in_use: this device is simulated, and the guard is of a real one.
  static Result<Installed> install(const Options& options);
  static bool is_installed();
  /// Errc::not_found when there is none.
  static Result<BudgetGuard> open();
  /// Whether there was one.
  static Result<bool> remove();

  /// False once it has been removed or replaced.
  [[nodiscard]] bool is_in_force() const;
  [[nodiscard]] Result<GuardState> state() const;
  [[nodiscard]] Result<std::vector<KfdQueues>> queues() const;
  [[nodiscard]] Result<std::vector<DenialRecord>> denials() const;
  Result<void> set_policy(guard_policy policy);
  /// The budget is for this GPU (the driver's id) too: its eclipd's pool is under the guard.
  /// Without any it is for one. Errc::quota_exceeded: there are 16 already.
  Result<void> cover(std::uint32_t gpu_id);
  /// The process may have so many masked queues, until it ends or executes another program; 0 takes
  /// its lease away, but no queue that it has. Errc::access_denied: it is being traced.
  Result<void> grant(pid_t pid, std::uint32_t masked_queues);

 private:
  BudgetGuard() = default;
  static Result<BudgetGuard> open_maps();
  static Result<guard_settings> pinned_settings();
  [[nodiscard]] Result<guard_settings> settings() const;
  /// Changes the settings as they are then.
  Result<void> change(const std::function<Result<void>(guard_settings&)>& change);

  std::uint64_t installed_ns_ = 0;
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
