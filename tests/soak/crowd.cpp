#include "tests/soak/crowd.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <new>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/fake/eventually.h"
#include "tests/soak/machine.h"
#include "tests/soak/stuck_watch.h"
#include "tests/soak/worker.h"

namespace eclip::soak {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// What all processes of the soak see.
struct Shared {
  Tally tally;
  std::atomic<bool> stop;
};

std::string status_field(pid_t pid, const std::string& field) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return line.substr(field.size() + 1);
  }
  return {};
}

struct Footprint {
  std::size_t kilobytes = 0;
  std::size_t descriptors = 0;
  std::size_t shared_kilobytes = 0;  ///< of the machine
};

/// kfdsim's process that serves pages; 0 when there is none.
pid_t page_server_of(pid_t kfdsim) {
  std::ifstream children(fmt::format("/proc/{}/task/{}/children", kfdsim, kfdsim));
  for (pid_t child = 0; children >> child;) {
    std::string name;
    std::getline(std::ifstream(fmt::format("/proc/{}/comm", child)), name);
    if (name == "kfdsim-pages") return child;
  }
  return 0;
}

Footprint footprint_of(pid_t pid) {
  Footprint footprint;
  std::istringstream(status_field(pid, "VmRSS")) >> footprint.kilobytes;
  std::error_code error;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", pid), error)) {
    ++footprint.descriptors;
  }
  footprint.shared_kilobytes = shared_kilobytes();
  return footprint;
}

class Crowd {
 public:
  Crowd(const Plan& plan, Shared& shared) : plan_(plan), shared_(shared), random_(plan.seed) {}

  int run();

 private:
  void start_worker();
  void collect(bool wait);
  void kill_one();
  void look_for_stuck();
  Footprint rest();
  std::size_t pick(std::size_t from, std::size_t to) {
    return std::uniform_int_distribution<std::size_t>(from, to)(random_);
  }

  const Plan& plan_;
  Shared& shared_;
  std::mt19937_64 random_;
  std::map<pid_t, bool> workers_;  // whether it was killed on purpose
  StuckWatch watch_{std::chrono::seconds(3)};
  const pid_t kfdsim_ = ::getppid();
  const pid_t page_server_ = page_server_of(kfdsim_);
  const Footprint without_clients_ = footprint_of(kfdsim_);
  unsigned kills_ = 0;
  unsigned failures_ = 0;
  unsigned stuck_ = 0;
};

void Crowd::start_worker() {
  const std::uint64_t seed = random_();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work(seed, shared_.tally, shared_.stop));
  if (child > 0) workers_.emplace(child, false);
}

void Crowd::collect(bool wait) {
  while (!workers_.empty()) {
    int status = 0;
    const pid_t ended = ::waitpid(-1, &status, wait ? 0 : WNOHANG);
    if (ended <= 0) return;
    const bool was_killed = workers_[ended];
    if (!was_killed && status != 0) {
      ++failures_;
      fmt::print(stderr, "soak: a worker ended by itself with wait status {:#x}\n", status);
    }
    workers_.erase(ended);
  }
}

void Crowd::kill_one() {
  auto victim = workers_.begin();
  std::advance(victim, static_cast<std::ptrdiff_t>(pick(0, workers_.size() - 1)));
  if (victim->second) return;
  victim->second = true;
  ++kills_;
  ::kill(victim->first, SIGKILL);
}

void Crowd::look_for_stuck() {
  const auto look_at = [this](pid_t pid, const char* who) {
    if (!watch_.look(pid)) return;
    ++stuck_;
    fmt::print(stderr, "soak: {} {} stays in state D\n", who, pid);
  };
  for (const auto& [pid, killed] : workers_) look_at(pid, "worker");
  look_at(kfdsim_, "kfdsim");
  if (page_server_ != 0) look_at(page_server_, "kfdsim-pages");
}

/// With no worker alive: what kfdsim, the parent, holds once it has seen them go.
Footprint Crowd::rest() {
  shared_.stop = true;
  collect(true);
  shared_.stop = false;
  Footprint footprint;
  test::eventually([&] {
    footprint = footprint_of(kfdsim_);
    return footprint.descriptors <= without_clients_.descriptors &&
           footprint.shared_kilobytes <=
               without_clients_.shared_kilobytes + shared_tolerance_kilobytes;
  });
  return footprint;
}

int Crowd::run() {
  const auto end = Clock::now() + plan_.duration;
  const auto warm = Clock::now() + plan_.duration / 5;
  bool is_warm = false;
  Footprint before;
  while (Clock::now() < end) {
    if (!is_warm && Clock::now() >= warm) {
      before = rest();
      is_warm = true;
    }
    collect(false);
    while (workers_.size() < plan_.workers) start_worker();
    look_for_stuck();
    if (pick(0, 9) == 0) kill_one();
    std::this_thread::sleep_for(milliseconds(100));
  }
  const Footprint after = rest();
  fmt::print(
      "soak: seed {}, {} operations with right results, {} wrong, {} workers killed, {} "
      "failed, {} stuck\nsoak: kfdsim without clients: {} descriptors at first and {} at the "
      "end, {} KiB early and {} KiB at the end\nsoak: the machine's shared memory without clients: "
      "{} "
      "KiB at first and {} KiB at the end\n",
      plan_.seed, shared_.tally.operations.load(), shared_.tally.wrong.load(), kills_, failures_,
      stuck_, without_clients_.descriptors, after.descriptors, before.kilobytes, after.kilobytes,
      without_clients_.shared_kilobytes, after.shared_kilobytes);
  constexpr std::size_t allowed_growth_kilobytes = 8 << 10;
  const bool grew =
      after.descriptors > without_clients_.descriptors ||
      after.kilobytes > before.kilobytes + allowed_growth_kilobytes ||
      after.shared_kilobytes > without_clients_.shared_kilobytes + shared_tolerance_kilobytes;
  if (grew) fmt::print(stderr, "soak: kfdsim kept memory or descriptors of ended clients\n");
  const bool worked = shared_.tally.operations > 0 && shared_.tally.wrong == 0;
  return worked && failures_ == 0 && stuck_ == 0 && !grew ? 0 : 1;
}

}  // namespace

int run_crowd(const Plan& plan) {
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    fmt::print(stderr, "soak: no memory to share with the workers\n");
    return 1;
  }
  return Crowd(plan, *new (memory) Shared{}).run();
}

}  // namespace eclip::soak
