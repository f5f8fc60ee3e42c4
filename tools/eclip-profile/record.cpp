#include "tools/eclip-profile/record.h"

#include <fmt/core.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>

#include "ipc/control_socket.h"
#include "tools/eclip-profile/recording.h"
#include "tools/eclipctl/query.h"

namespace eclip::profile {
namespace {

namespace fs = std::filesystem;

/// A directory of its own; goes with the object unless it is kept.
class RecordingDirectory {
 public:
  static Result<RecordingDirectory> create(const fs::path& keep) {
    std::error_code error;
    if (!keep.empty()) {
      fs::create_directories(keep, error);
      if (error) return fail({error, "--keep " + keep.string()}, "create the directory");
      return RecordingDirectory(keep, true);
    }
    std::string name = (fs::temp_directory_path(error) / "eclip-profile-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr)
      return fail_errno(errno, "create a temporary directory " + name + "; set TMPDIR");
    return RecordingDirectory(name, false);
  }
  RecordingDirectory(RecordingDirectory&& other) noexcept
      : path_(std::exchange(other.path_, {})), keep_(other.keep_) {}
  RecordingDirectory& operator=(RecordingDirectory&&) = delete;
  ~RecordingDirectory() {
    std::error_code error;
    if (!path_.empty() && !keep_) fs::remove_all(path_, error);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  RecordingDirectory(fs::path path, bool keep) : path_(std::move(path)), keep_(keep) {}

  fs::path path_;
  bool keep_;
};

struct Run {
  std::uint32_t cus;
  std::uint32_t number;
  fs::path directory;
  [[nodiscard]] std::string name() const { return fmt::format("run {} on {} CUs", number, cus); }
};

/// This process's environment without ECLIP_SHARE, and with what the run needs.
std::vector<std::string> environment_of(const Run& run, const fs::path& socket) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const auto is = [text](std::string_view name) { return text.starts_with(name); };
    if (is("ECLIP_SHARE=") || is("ECLIP_CUS=") || is("ECLIP_RECORD=") || is("ECLIP_SOCKET="))
      continue;
    variables.emplace_back(text);
  }
  variables.push_back("ECLIP_RECORD=" + run.directory.string());
  variables.push_back("ECLIP_CUS=" + std::to_string(run.cus));
  variables.push_back("ECLIP_SOCKET=" + socket.string());
  return variables;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

/// Interrupts from the terminal are the command's: this process says how it ended, and cleans up.
class InterruptsIgnored {
 public:
  InterruptsIgnored() {
    struct sigaction ignore {};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGINT, &ignore, &interrupt_);
    ::sigaction(SIGQUIT, &ignore, &quit_);
  }
  InterruptsIgnored(const InterruptsIgnored&) = delete;
  InterruptsIgnored& operator=(const InterruptsIgnored&) = delete;
  ~InterruptsIgnored() {
    ::sigaction(SIGINT, &interrupt_, nullptr);
    ::sigaction(SIGQUIT, &quit_, nullptr);
  }

 private:
  struct sigaction interrupt_ {};
  struct sigaction quit_ {};
};

/// Runs the command to its end.
Result<void> run_command(const Run& run, std::vector<std::string> command, const fs::path& socket) {
  std::vector<std::string> environment = environment_of(run, socket);
  const InterruptsIgnored ignored;
  sigset_t defaults;
  ::sigemptyset(&defaults);
  ::sigaddset(&defaults, SIGINT);
  ::sigaddset(&defaults, SIGQUIT);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, command[0].c_str(), &actions, &attributes,
                                   pointers_to(command).data(), pointers_to(environment).data());
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0)
    return fail_errno(error, run.name() + ": start '" + command[0] + "'; check the command");
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return fail_errno(errno, run.name() + ": wait for '" + command[0] + "'");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(Errc::invalid_argument,
              WIFEXITED(status) ? fmt::format("{}: '{}' ended with status {}; see what it said",
                                              run.name(), command[0], WEXITSTATUS(status))
                                : fmt::format("{}: '{}' was killed by signal {}", run.name(),
                                              command[0], WTERMSIG(status)));
}

/// The one recording of a run with dispatches in it.
Result<Recording> recording_of(const Run& run) {
  std::error_code error;
  std::vector<Recording> found;
  for (const auto& entry : fs::directory_iterator(run.directory, error)) {
    auto recording = load_recording(entry.path());
    if (!recording) return fail(recording.error(), run.name());
    if (recording->dropped > 0)
      return fail(Errc::lease_ended,
                  fmt::format("{}: {} packets were dropped with their lease; nobody may take the "
                              "worker's stream meanwhile",
                              run.name(), recording->dropped));
    if (!recording->trace.kernels.empty()) found.push_back(std::move(*recording));
  }
  if (error) return fail({error, run.directory.string()}, run.name() + ": look for recordings");
  if (found.empty())
    return fail(Errc::invalid_argument,
                run.name() +
                    ": the command dispatched no kernel through libeclip; record a program "
                    "that links it, and that waits for its kernels");
  if (found.size() > 1)
    return fail(Errc::invalid_argument,
                fmt::format("{}: {} connections to eclipd dispatched kernels ({}, {}); record one "
                            "worker with one connection",
                            run.name(), found.size(), found[0].worker, found[1].worker));
  for (const std::uint32_t cus : found[0].lease_cus)
    if (cus != run.cus)
      return fail(Errc::no_stream,
                  fmt::format("{}: the worker got a stream of {} CUs; no other was free, or the "
                              "worker asks for a share of the GPU",
                              run.name(), cus));
  found[0].trace.source = run.name();
  return std::move(found[0]);
}

/// The sizes of the pool's streams, ascending. An error while others hold leases.
Result<std::vector<std::uint32_t>> pool_sizes(const fs::path& socket) {
  auto daemon = ctl::DaemonConnection::open(socket);
  if (!daemon)
    return fail(Errc::gone, daemon.error().message() +
                                "; start it (systemctl start eclipd), or name its socket with "
                                "--socket");
  const auto streams = daemon->streams();
  if (!streams) return fail(streams.error(), "ask eclipd for its streams");
  std::set<std::uint32_t> sizes;
  for (const StreamRecord& stream : *streams) {
    if (stream.lease != 0)
      return fail(Errc::already_in_use,
                  fmt::format("stream {} is leased: its kernels would be in the measurement; end "
                              "that worker (eclipctl lease list)",
                              stream.stream));
    if (stream.scheduled != 0)
      return fail(Errc::already_in_use,
                  "a scheduled worker uses the streams: its kernels would be in the measurement; "
                  "end it (eclipctl lease list)");
    sizes.insert(stream.cu_count);
  }
  return std::vector(sizes.begin(), sizes.end());
}

Result<std::vector<std::uint32_t>> sizes_to_record(const RecordOptions& options,
                                                   const fs::path& socket) {
  auto pool = pool_sizes(socket);
  if (!pool || options.cus.empty()) return pool;
  std::set<std::uint32_t> sizes;
  for (const std::uint32_t cus : options.cus) {
    if (std::find(pool->begin(), pool->end(), cus) == pool->end())
      return fail(Errc::no_stream, fmt::format("no stream of the pool has {} CUs; give sizes that "
                                               "'eclipctl stream list' shows",
                                               cus));
    sizes.insert(cus);
  }
  return std::vector(sizes.begin(), sizes.end());
}

void describe(const RecordOptions& options, const Recording& recording, Recorded& recorded) {
  model::ProfileDocument& profile = recorded.profile;
  profile.model =
      options.model.empty() ? fs::path(options.command[0]).filename().string() : options.model;
  profile.batch = options.batch;
  profile.precision = options.precision;
  profile.device_name = recording.gpu;
  profile.device_compute_units = recording.gpu_cus;
  profile.note = fmt::format(
      "eclip-profile record: kernels one at a time, by the GPU's clock; medians over {} runs on "
      "each number of CUs",
      options.repeats);
  if (profile.cu_counts.back() < recording.gpu_cus) {
    profile.note += "; request_us_unmasked is the time on the largest stream";
    recorded.remarks.push_back(
        fmt::format("the largest stream has {} of the GPU's {} CUs: the time without a mask is "
                    "taken from it",
                    profile.cu_counts.back(), recording.gpu_cus));
  }
  if (recorded.report.overlaps > 0)
    recorded.remarks.push_back(fmt::format(
        "{} kernels began before the one before ended: the worker used several streams, "
        "and their times include that",
        recorded.report.overlaps));
  if (recording.gpu.find("simulated") != std::string::npos)
    recorded.remarks.emplace_back("the GPU is simulated, and so are all times");
}

}  // namespace

Result<Recorded> record(const RecordOptions& options) {
  const fs::path socket = options.socket.empty() ? socket_path_from_environment() : options.socket;
  const auto sizes = sizes_to_record(options, socket);
  if (!sizes) return tl::unexpected(sizes.error());
  auto directory = RecordingDirectory::create(options.keep);
  if (!directory) return tl::unexpected(directory.error());
  std::vector<Recording> recordings;
  // Repeats outside: what changes in time changes for all sizes alike.
  for (std::uint32_t repeat = 1; repeat <= options.repeats; ++repeat) {
    for (const std::uint32_t cus : *sizes) {
      const Run run{cus, repeat, directory->path() / fmt::format("{}-cus-{}", cus, repeat)};
      std::error_code error;
      if (!fs::create_directory(run.directory, error))
        return fail({error ? error : make_error_code(Errc::already_in_use), run.directory.string()},
                    "create a new directory for " + run.name());
      if (auto free = pool_sizes(socket); !free) return fail(free.error(), run.name());
      if (auto ran = run_command(run, options.command, socket); !ran)
        return tl::unexpected(ran.error());
      auto recording = recording_of(run);
      if (!recording) return tl::unexpected(recording.error());
      recordings.push_back(std::move(*recording));
    }
  }
  std::vector<model::Trace> traces;
  traces.reserve(recordings.size());
  for (Recording& recording : recordings) traces.push_back(std::move(recording.trace));
  Recorded recorded;
  auto profile = model::profile_from_traces(traces, options.match, recorded.report);
  if (!profile) return tl::unexpected(profile.error());
  recorded.profile = std::move(*profile);
  describe(options, recordings.front(), recorded);
  return recorded;
}

}  // namespace eclip::profile
