// eclipd's configuration file (TOML), parsed whole into this struct or refused.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/planner/search.h"
#include "ipc/control_socket.h"
#include "ipc/cu_mask.h"
#include "ipc/messages.h"
#include "ipc/result.h"

namespace eclip::daemon {

struct GpuTopology;

/// What all workers of one user may have together, or, of the last two, each of their leases.
struct UidLimits {
  std::uint32_t max_workers = 120;
  std::uint32_t max_leases = 256;  ///< queued ones included
  std::uint32_t max_share_percent = 100;
  LeasePriority max_priority = LeasePriority::high;
};

/// What the plan shall know of workers of a name, in place of what they say when they connect.
struct PlannedWorker {
  std::string name;             ///< of the worker
  std::string profile;          ///< empty: what the worker says
  double requests_per_s = 0;    ///< 0: what the worker says; a rate reported later counts
  double latency_bound_ms = 0;  ///< 0: none
  double weight = 1;
};

/// Defaults are those of an absent key. packaging/eclipd.toml documents each key.
struct Config {
  struct {
    std::filesystem::path socket = default_socket_path;
    std::string socket_group;  ///< empty: the daemon's own group
    std::string log_level = "info";
    bool sandbox = true;  ///< the serving process drops rights and filters its system calls
  } daemon;
  struct {
    std::optional<std::uint32_t> node;  ///< topology node; none: the first GPU
  } gpu;
  struct {
    /// CU_Sets in the HSA_CU_MASK grammar; empty: the binary tree 1 + 2 + 4.
    std::vector<std::string> streams;
  } pool;
  struct {
    std::uint32_t max_workers = 64;
    std::uint64_t max_memory_bytes = std::uint64_t{4096} << 20;  ///< of one worker
    std::uint32_t max_memory_objects = 256;                      ///< of one worker
    std::uint32_t max_kernels = 16384;                           ///< of one worker
  } workers;
  struct {
    std::chrono::milliseconds grace{1000};  ///< of a lease that is revoked, host time
    std::chrono::milliseconds claim{1000};  ///< within which a worker takes what it is offered
    bool preempt = false;
    std::uint32_t max_holders_per_stream = 1;
    UidLimits limits;  ///< of a uid that is not in the next
  } leases;
  std::map<std::uint32_t, UidLimits> limits;  ///< by uid
  struct {
    std::chrono::microseconds spin{20};  ///< after the last packet, before it naps or sleeps
    std::chrono::microseconds nap{50};   ///< between looks while packets run
    /// After the last packet, before the driver is to tell of completions.
    std::chrono::milliseconds patience{100};
    std::chrono::seconds watchdog{10};  ///< of device time without progress; 0: no watchdog
  } forwarder;
  struct {
    /// What happens to CU masks that nobody has leased; off: no guard is installed.
    BudgetTier::Policy policy = BudgetTier::off;
    bool gate_drm_devices = false;  ///< only processes with a lease may open one
  } budget;
  struct {
    bool enabled = true;
    planner::Objective objective = planner::Objective::latency;
    /// A file, or the name of one in data_dir/gpus; empty: the one with the GPU's shape.
    std::string gpu;
    /// Where profiles are looked for by name, in this order.
    std::vector<std::string> profile_dirs{"/etc/eclip/profiles", "/var/lib/eclip/profiles"};
    std::filesystem::path state_dir = "/var/lib/eclip";
    std::chrono::milliseconds time_limit{2000};  ///< of judging a plan, and of choosing its rows
    bool simulate = true;                        ///< candidates are judged by simulation
    std::uint32_t replan_percent = 25;  ///< change of a rate or a request's time, for a new plan
    std::vector<PlannedWorker> workers;
  } planner;
  struct {
    bool measure_ioctls = false;  ///< KFD ioctls of all processes, by a probe at system call entry
  } probes;
};

/// The limits of a user.
[[nodiscard]] const UidLimits& limits_of(const Config& config, std::uint32_t uid);

/// Parses and validates all that can be without a GPU. Errors name the source, line, key and
/// remedy; unknown keys are errors.
Result<Config> parse_config(std::string_view text, const std::string& source);

/// parse_config of a file's content. Errors: the system's, and as above.
Result<Config> load_config(const std::filesystem::path& file);

/// The masks of the configured pool on a GPU. Errc::invalid_argument (a mask outside the GPU, an
/// empty one), Errc::budget_exceeded (more streams than the budget), Errc::unsupported.
Result<std::vector<CuMask>> pool_masks(const Config& config, const GpuTopology& gpu);

}  // namespace eclip::daemon
