#include "bpf/budget_guard.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <guard.skel.h>
#include <algorithm>
#include <csignal>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string_view>
#include <utility>

#include "bpf/pins.h"
#include "ipc/kfd_command.h"

namespace eclip::bpf {
namespace {

namespace fs = std::filesystem;

struct DestroyGuard {
  void operator()(guard_bpf* skeleton) const { guard_bpf__destroy(skeleton); }
};
using Skeleton = std::unique_ptr<guard_bpf, DestroyGuard>;

constexpr const char* kfd_path = "/dev/kfd";
constexpr const char* map_names[] = {"settings", "state", "leases", "queues", "denials"};

/// Which programs a tier is made of, by their sections.
bool belongs_to(std::string_view section, GuardTier tier) {
  const auto begins_with = [section](std::string_view prefix) {
    return section.substr(0, prefix.size()) == prefix;
  };
  if (begins_with("lsm/")) return tier.verdict == GuardVerdict::lsm;
  if (begins_with("fmod_ret/")) return tier.verdict == GuardVerdict::fmod_ret;
  if (begins_with("fentry/") || begins_with("fexit/")) return tier.accounting == guard_by_functions;
  if (begins_with("kprobe/") || begins_with("kretprobe/"))
    return tier.accounting == guard_by_probes;
  if (section == "tp_btf/sys_exit") return tier.accounting == guard_by_returns;
  return true;
}

/// Whether a verdict's hook is missing without harm: kernels without the hook of 32-bit calls take
/// these through the other one.
bool is_absent(std::string_view section) {
  if (section == "lsm/file_ioctl_compat")
    return libbpf_find_vmlinux_btf_id("file_ioctl_compat", BPF_LSM_MAC) <= 0;
  if (section == "fmod_ret/security_file_ioctl_compat")
    return libbpf_find_vmlinux_btf_id("security_file_ioctl_compat", BPF_MODIFY_RETURN) <= 0;
  return false;
}

constexpr const char* to_change = "change the budget guard's settings";
constexpr const char* to_read = "read the budget guard's records";

std::uint64_t boot_time_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// Loads and attaches a tier's programs. The error number when the kernel refuses one.
Result<Skeleton> load(GuardTier tier, guard_settings settings) {
  Skeleton skeleton(guard_bpf__open());
  if (!skeleton) return fail_errno(errno, "open the budget guard's programs");
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton->obj) {
    const char* section = bpf_program__section_name(program);
    bpf_program__set_autoload(program, belongs_to(section, tier) && !is_absent(section));
  }
  int error = guard_bpf__load(skeleton.get());
  settings.accounting = tier.accounting;
  settings.verdict = static_cast<__u32>(tier.verdict);
  settings.installed_ns = UINT64_MAX;  // who begins before all is attached is not known
  if (error == 0)
    if (auto set = set_only_value(bpf_map__fd(skeleton->maps.settings), settings, to_change); !set)
      return tl::unexpected(set.error());
  if (error == 0) error = guard_bpf__attach(skeleton.get());
  if (error != 0) return fail_errno(-error, describe(tier));
  return skeleton;
}

/// ioctl(2) as 32-bit programs make it.
long ioctl_of_32_bit(int fd, unsigned command) {
#if defined(__x86_64__)
  long result = 0;
  asm volatile("int $0x80"
               : "=a"(result)
               : "a"(54L), "b"(static_cast<long>(fd)), "c"(static_cast<long>(command)), "d"(0L)
               : "memory", "r8", "r9", "r10", "r11");
  return static_cast<int>(result);
#else
  return -EPERM;  // there is no such way
#endif
}

/// AMDKFD_IOC_SET_CU_MASK, whose header needs libdrm's.
constexpr unsigned set_cu_mask_command =
    _IOC(_IOC_WRITE, 'K', static_cast<unsigned>(KfdCommand::set_cu_mask), 16);

enum class TestCall { plain, of_32_bit };

/// A child that waits for a byte, makes one guarded call that no driver grants, and tells by its
/// exit status whether it was refused with EPERM, which no driver answers.
enum TestStatus : int { refused = 0, passed = 1, cannot = 2 };
[[noreturn]] void make_test_call(int go_fd, TestCall how) {
  char go = 0;
  if (::read(go_fd, &go, 1) != 1) ::_exit(cannot);
  const int fd = ::open(kfd_path, O_RDWR | O_CLOEXEC);
  if (fd < 0) ::_exit(cannot);
  long error = 0;
  if (how == TestCall::of_32_bit)
    error = -ioctl_of_32_bit(fd, set_cu_mask_command);
  else
    error = ::ioctl(fd, set_cu_mask_command, nullptr) == 0 ? 0 : errno;
  ::_exit(error == EPERM ? refused : passed);
}

/// Makes a test call with a lease: one that is refused whatever the policy, or one that passes.
/// Whether it was refused; false also when it has passed. Errors: the test could not be made.
Result<bool> is_refused(int leases, const guard_lease& lease, TestCall how) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "create a pipe");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail_errno(errno, "start the budget guard's test call");
  if (child == 0) {
    write_end.reset();
    make_test_call(read_end.get(), how);
  }
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  const int key = pidfd.get();
  const bool marked = pidfd && ::bpf_map_update_elem(leases, &key, &lease, BPF_ANY) == 0 &&
                      ::write(write_end.get(), "", 1) == 1;
  const int error = errno;
  write_end.reset();  // an unmarked child ends without its call
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!marked) return fail_errno(error, "mark the budget guard's test call");
  // Without 32-bit system calls the instruction is none.
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV && how == TestCall::of_32_bit) return true;
  if (!WIFEXITED(status) || WEXITSTATUS(status) > passed)
    return fail(Errc::unsupported,
                std::string("the budget guard's test call could not be made: ") +
                    (WIFEXITED(status) ? "/dev/kfd cannot be opened" : "its process was killed"));
  return WEXITSTATUS(status) == refused;
}

constexpr guard_lease to_be_refused{.granted = 0, .self_test = 1};
constexpr guard_lease to_pass{.granted = 1, .self_test = 0};

/// Whether the guard refuses what it is told to.
Result<bool> refuses(int leases, int state) {
  const auto before = only_value<guard_state>(state, to_read);
  if (!before) return tl::unexpected(before.error());
  for (const TestCall how : {TestCall::plain, TestCall::of_32_bit}) {
    auto was_refused = is_refused(leases, to_be_refused, how);
    if (!was_refused || !*was_refused) return was_refused;
  }
  // By the guard, and not by anybody else.
  const auto after = only_value<guard_state>(state, to_read);
  if (!after) return tl::unexpected(after.error());
  return after->self_tests > before->self_tests;
}

/// Whether it still sees the driver's functions; a module that was loaded anew has others.
Result<bool> sees_the_driver(int leases, int state) {
  const auto before = only_value<guard_state>(state, to_read);
  if (!before) return tl::unexpected(before.error());
  if (auto was_refused = is_refused(leases, to_pass, TestCall::plain); !was_refused)
    return was_refused;
  const auto after = only_value<guard_state>(state, to_read);
  if (!after) return tl::unexpected(after.error());
  return after->reached > before->reached;
}

/// Pins all that lives on: maps, then the links of what is attached.
Result<void> pin(const Skeleton& skeleton) {
  const fs::path directory = BudgetGuard::directory;
  for (const char* name : map_names) {
    const std::string path = directory / name;
    bpf_map* map = bpf_object__find_map_by_name(skeleton->obj, name);
    if (const int error = bpf_map__pin(map, path.c_str()); error != 0)
      return fail_errno(-error, "pin " + path);
  }
  const bpf_object_skeleton& all = *skeleton->skeleton;
  for (int i = 0; i < all.prog_cnt; ++i) {
    bpf_link* link = *all.progs[i].link;
    if (link == nullptr) continue;
    const std::string path = directory / ("link_" + std::string(all.progs[i].name));
    if (const int error = bpf_link__pin(link, path.c_str()); error != 0)
      return fail_errno(-error, "pin " + path);
  }
  return {};
}

/// Attaches, tests and pins the best tier that this kernel permits.
Result<void> install_best(const guard_settings& settings) {
  std::string refusals;
  const auto note = [&refusals](GuardVerdict verdict, const std::string& what) {
    refusals += std::string(refusals.empty() ? "" : "; ") +
                (verdict == GuardVerdict::lsm ? "LSM: " : "fmod_ret: ") + what;
  };
  for (const GuardVerdict verdict : {GuardVerdict::lsm, GuardVerdict::fmod_ret}) {
    for (const guard_accounting accounting :
         {guard_by_functions, guard_by_probes, guard_by_returns}) {
      // A simulated device has none of the driver's functions below it.
      if (settings.kfd_device == 0 && accounting != guard_by_returns) continue;
      auto skeleton = load({verdict, accounting}, settings);
      if (!skeleton) {
        if (accounting == guard_by_returns) note(verdict, skeleton.error().code.message());
        continue;
      }
      const int settings_map = bpf_map__fd((*skeleton)->maps.settings);
      const auto refused =
          refuses(bpf_map__fd((*skeleton)->maps.leases), bpf_map__fd((*skeleton)->maps.state));
      if (!refused) return tl::unexpected(refused.error());
      if (!*refused) {
        note(verdict, "attached, but a test call passed it (is bpf missing in lsm=?)");
        break;
      }
      // Probes cannot be pinned before Linux 5.15.
      if (auto pinned = pin(*skeleton); !pinned) {
        note(verdict, pinned.error().message());
        if (auto removed = remove_pins(BudgetGuard::directory); !removed) return removed;
        continue;
      }
      auto complete = only_value<guard_settings>(settings_map, to_read);
      if (!complete) return tl::unexpected(complete.error());
      complete->complete = 1;
      complete->installed_ns = boot_time_ns();
      return set_only_value(settings_map, *complete, to_change);
    }
  }
  return fail(Errc::unsupported,
              "this kernel lets no program refuse KFD ioctls (" + refusals +
                  "); it needs BTF, CONFIG_BPF_LSM with bpf in lsm= or fmod_ret, and root's "
                  "CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN");
}

bool is_traced(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("TracerPid:", 0) == 0) return line.find_first_not_of("\t 0", 10) != line.npos;
  return false;
}

}  // namespace

std::string describe(GuardTier tier) {
  std::string text =
      tier.verdict == GuardVerdict::lsm ? "BPF LSM refuses, " : "BPF fmod_ret refuses, ";
  switch (tier.accounting) {
    case guard_by_functions:
      return text +
             "the driver's functions count: every queue of every process since it was installed";
    case guard_by_probes:
      return text +
             "probes of the driver's functions count masked queues; at the limit it also refuses "
             "to "
             "change a mask that is set";
    case guard_by_returns:
      return text +
             "system calls' results count: each change of a mask takes one of the budget until its "
             "process ends";
  }
  return text;
}

std::string describe(guard_reason reason) {
  switch (reason) {
    case guard_no_lease:
      return "a CU mask without a lease";
    case guard_lease_used:
      return "more CU-masked queues than its lease grants";
    case guard_budget_used:
      return "a CU mask when the budget is used up";
    case guard_restore:
      return "CRIU's restoring of queues with their masks";
    case guard_ptrace:
      return "tracing a process that has a lease";
    case guard_drm_device:
      return "opening a DRM device without a lease";
    case guard_no_memory:
      return "a CU mask for want of memory to note it";
    case guard_reasons:
      break;
  }
  return "?";
}

Result<BudgetGuard::Installed> BudgetGuard::install(const Options& options) {
  const auto kfd = identify_kfd(kfd_path);
  if (!kfd) return tl::unexpected(kfd.error());
  const auto locked = make_pin_directory(directory);
  if (!locked) return tl::unexpected(locked.error());
  quiet_libbpf();

  auto there = open_maps();
  if (!there && there.error().code != Errc::not_found &&
      there.error().code != Errc::version_mismatch)
    return tl::unexpected(there.error());
  if (there) {
    auto settings = there->settings();
    if (!settings) return tl::unexpected(settings.error());
    if (settings->kfd_device != 0 && kfd->device == 0)
      return fail(Errc::already_in_use,
                  "this GPU is simulated, and the budget guard is of a real one; remove it: "
                  "eclipctl budget guard off");
    Result<bool> works =
        settings->kfd_device == kfd->device && settings->kfd_file_system == kfd->file_system;
    if (*works) works = refuses(there->leases_.get(), there->state_.get());
    if (works && *works && settings->accounting != guard_by_returns)
      works = sees_the_driver(there->leases_.get(), there->state_.get());
    if (!works) return tl::unexpected(works.error());
    if (*works) {
      if (settings->configured_policy != options.policy)
        settings->policy = settings->configured_policy = options.policy;
      settings->budget = options.budget;
      if (options.gate_drm_devices) settings->gates_drm_devices = *options.gate_drm_devices;
      if (auto set = set_only_value(there->settings_.get(), *settings, to_change); !set)
        return tl::unexpected(set.error());
      return Installed{.guard = std::move(*there), .taken_over = true};
    }
  }
  if (auto removed = remove_pins(directory); !removed) return tl::unexpected(removed.error());

  guard_settings settings{};
  settings.layout = guard_layout;
  settings.policy = settings.configured_policy = options.policy;
  settings.budget = options.budget;
  settings.kfd_device = kfd->device;
  settings.kfd_file_system = kfd->file_system;
  settings.gates_drm_devices = options.gate_drm_devices.value_or(false);
  if (auto installed = install_best(settings); !installed) {
    std::error_code ignored;
    fs::remove(directory, ignored);  // empty: no trace of the attempt
    return tl::unexpected(installed.error());
  }
  auto guard = open_maps();
  if (!guard) return tl::unexpected(guard.error());
  return Installed{.guard = std::move(*guard), .taken_over = false};
}

Result<guard_settings> BudgetGuard::pinned_settings() {
  const UniqueFd map(::bpf_obj_get((fs::path(directory) / "settings").c_str()));
  if (!map) return fail_errno(errno, std::string("open ") + directory + "/settings");
  return only_value<guard_settings>(map.get(), to_read);
}

Result<BudgetGuard> BudgetGuard::open_maps() {
  BudgetGuard guard;
  for (const auto& [name, map] :
       {std::pair{"settings", &guard.settings_}, std::pair{"state", &guard.state_},
        std::pair{"leases", &guard.leases_}, std::pair{"queues", &guard.queues_},
        std::pair{"denials", &guard.denials_}}) {
    map->reset(::bpf_obj_get((fs::path(directory) / name).c_str()));
    if (!*map && errno == ENOENT)
      return fail(Errc::not_found, std::string("there is no budget guard in ") + directory);
    if (!*map) return fail_errno(errno, std::string("open ") + directory + "/" + name);
  }
  const auto settings = guard.settings();
  if (!settings) return tl::unexpected(settings.error());
  if (settings->layout != guard_layout || settings->complete == 0)
    return fail(Errc::version_mismatch,
                std::string("the budget guard in ") + directory +
                    " is of another version, or was not installed to its end; restart an eclipd "
                    "with budget.policy to replace it, or remove it: eclipctl budget guard off");
  guard.installed_ns_ = settings->installed_ns;
  return guard;
}

bool BudgetGuard::is_installed() {
  std::error_code error;
  return fs::exists(fs::path(directory) / "settings", error);
}

Result<BudgetGuard> BudgetGuard::open() {
  const auto locked = lock_pin_directory(directory);  // not between its pins
  if (!locked && locked.error().code == std::errc::no_such_file_or_directory)
    return fail(Errc::not_found, std::string("there is no budget guard in ") + directory);
  if (!locked) return tl::unexpected(locked.error());
  return open_maps();
}

Result<bool> BudgetGuard::remove() {
  return remove_pin_directory(directory);
}

bool BudgetGuard::is_in_force() const {
  const auto pinned = pinned_settings();
  return pinned && pinned->complete != 0 && pinned->installed_ns == installed_ns_;
}

Result<guard_settings> BudgetGuard::settings() const {
  return only_value<guard_settings>(settings_.get(), to_read);
}

Result<void> BudgetGuard::change(const std::function<Result<void>(guard_settings&)>& change) {
  const auto locked = lock_pin_directory(directory);
  if (!locked) return tl::unexpected(locked.error());
  auto settings = this->settings();
  if (!settings) return tl::unexpected(settings.error());
  if (auto changed = change(*settings); !changed) return changed;
  return set_only_value(settings_.get(), *settings, to_change);
}

Result<GuardState> BudgetGuard::state() const {
  const auto settings = this->settings();
  if (!settings) return tl::unexpected(settings.error());
  const auto counts = only_value<guard_state>(state_.get(), to_read);
  if (!counts) return tl::unexpected(counts.error());
  GuardState state{.tier = {.verdict = static_cast<GuardVerdict>(settings->verdict),
                            .accounting = static_cast<guard_accounting>(settings->accounting)},
                   .policy = static_cast<guard_policy>(settings->policy),
                   .limit = settings->budget * std::max(settings->gpu_count, 1U),
                   .in_use = counts->in_use,
                   .gates_drm_devices = settings->gates_drm_devices != 0,
                   .checked = counts->checked,
                   .unchecked = counts->unchecked,
                   .unaccounted = counts->unaccounted,
                   .refused = {},
                   .audited = {}};
  std::copy_n(counts->refused, guard_reasons, state.refused.begin());
  std::copy_n(counts->audited, guard_reasons, state.audited.begin());
  return state;
}

Result<std::vector<KfdQueues>> BudgetGuard::queues() const {
  std::vector<KfdQueues> queues;
  auto read = for_each<__u64, guard_queues>(
      queues_.get(), guard_max_processes, [&](__u64, const guard_queues& of) {
        append_queues(of, static_cast<pid_t>(of.process.tgid), queues);
      });
  if (!read) return tl::unexpected(read.error());
  return queues;
}

Result<std::vector<DenialRecord>> BudgetGuard::denials() const {
  std::vector<DenialRecord> denials;
  auto read = for_each<guard_process, guard_denial>(
      denials_.get(), guard_max_denied,
      [&](const guard_process& process, const guard_denial& what) {
        DenialRecord& record = denials.emplace_back();
        record.pid = process.tgid;
        record.process_start_ns = process.start_ns;
        record.uid = what.uid;
        record.reason = what.reason;
        record.number = what.number;
        record.refused = what.refused;
        record.audited = what.audited;
        record.command.assign({what.command, ::strnlen(what.command, sizeof what.command)});
      });
  if (!read) return tl::unexpected(read.error());
  return denials;
}

Result<void> BudgetGuard::set_policy(guard_policy policy) {
  return change([policy](guard_settings& settings) -> Result<void> {
    settings.policy = policy;
    return {};
  });
}

Result<void> BudgetGuard::cover(std::uint32_t gpu_id) {
  return change([gpu_id](guard_settings& settings) -> Result<void> {
    auto* const end = settings.gpus + settings.gpu_count;
    if (std::find(settings.gpus, end, gpu_id) != end) return {};
    if (settings.gpu_count == guard_gpus)
      return fail(Errc::quota_exceeded, "the budget guard covers " + std::to_string(guard_gpus) +
                                            " GPUs, as many as it can");
    settings.gpus[settings.gpu_count++] = gpu_id;
    return {};
  });
}

Result<void> BudgetGuard::grant(pid_t pid, std::uint32_t masked_queues) {
  const std::string of_process = " of process " + std::to_string(pid);
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return fail_errno(errno, "set the lease" + of_process);
  if (masked_queues > 0 && is_traced(pid))
    return fail(Errc::access_denied, "process " + std::to_string(pid) +
                                         " is being traced: its tracer could use the lease");
  const int key = pidfd.get();
  const guard_lease lease{.granted = masked_queues, .self_test = 0};
  const int error = masked_queues == 0
                        ? ::bpf_map_delete_elem(leases_.get(), &key)
                        : ::bpf_map_update_elem(leases_.get(), &key, &lease, BPF_ANY);
  if (error != 0 && !(masked_queues == 0 && errno == ENOENT))
    return fail_errno(errno, "set the lease" + of_process);
  return {};
}

}  // namespace eclip::bpf
