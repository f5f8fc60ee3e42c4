// Soak test of kfdsim: random HIP work from several processes with random kills, and a look at the
// machine before and after. docs/kfdsim.md tells how to run it.
#include <dirent.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <string>

#include "tests/fake/eventually.h"
#include "tests/integration/kfdsim/kfdsim_refusal.h"
#include "tests/soak/crowd.h"
#include "tests/soak/machine.h"
#include "tests/soak/worker.h"

namespace {

namespace fs = std::filesystem;

/// What kfdsim must leave as it was.
struct Machine {
  std::string mounts;
  std::set<std::string> dev_entries;
  std::size_t shared_kilobytes = 0;
};

Machine look() {
  Machine machine;
  std::ifstream mounts("/proc/self/mountinfo");
  machine.mounts.assign(std::istreambuf_iterator<char>(mounts), {});
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/dev", error)) {
    machine.dev_entries.insert(entry.path().filename());
  }
  machine.shared_kilobytes = eclip::soak::shared_kilobytes();
  return machine;
}

/// Processes whose command line has the mark of this soak, this one excepted.
std::set<pid_t> marked_processes(const std::string& mark) {
  std::set<pid_t> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream stream(entry.path() / "cmdline");
    const std::string line(std::istreambuf_iterator<char>(stream), {});
    if (std::stoi(name) != ::getpid() && line.find(mark) != std::string::npos) {
      found.insert(std::stoi(name));
    }
  }
  return found;
}

int run_below_kfdsim(const eclip::soak::Plan& plan, const std::string& mapping,
                     const std::string& mark) {
  const std::string self = fs::read_symlink("/proc/self/exe");
  const std::string seconds = std::to_string(plan.duration.count());
  const std::string seed = std::to_string(plan.seed);
  const std::string workers = std::to_string(plan.workers);
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(KFDSIM_PROGRAM, KFDSIM_PROGRAM, "run", "--mapping", mapping.c_str(), "--shadow",
            HIP_TEST_SHADOWS, "--", self.c_str(), "--inside", mark.c_str(), "--seconds",
            seconds.c_str(), "--seed", seed.c_str(), "--workers", workers.c_str(),
            static_cast<char*>(nullptr));
    std::perror(KFDSIM_PROGRAM);
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace

int main(int argc, char** argv) {
  eclip::soak::Plan plan;
  std::int64_t seconds = plan.duration.count();
  std::string inside;
  CLI::App app("Random HIP work with random kills on the simulated GPU", "kfdsim_soak");
  app.add_option("--seconds", seconds, "How long")->capture_default_str();
  app.add_option("--seed", plan.seed, "Of everything random")->capture_default_str();
  app.add_option("--workers", plan.workers, "Processes at a time")->capture_default_str();
  std::string mapping = "auto";
  app.add_option("--mapping", mapping, "kfdsim's")->capture_default_str();
  app.add_option("--inside", inside)->group("");
  std::optional<std::uint64_t> once;
  app.add_option("--once", once)->group("");
  CLI11_PARSE(app, argc, argv);
  plan.duration = std::chrono::seconds(seconds);
  if (once) return eclip::soak::work_once(*once);
  if (!inside.empty()) return eclip::soak::run_crowd(plan);

  ::setenv("ECLIP_KFDSIM_MAPPING", mapping.c_str(), 1);
  const std::string refusal = eclip::test::kfdsim_refusal();
  if (!refusal.empty()) {
    fmt::print("SKIPPED: {}", refusal);
    return 0;
  }
  const std::string mark = fmt::format("soak-of-{}", ::getpid());
  const Machine before = look();
  const int status = run_below_kfdsim(plan, mapping, mark);
  Machine after;
  const bool memory_is_back = eclip::test::eventually([&] {
    after = look();
    return after.shared_kilobytes <=
           before.shared_kilobytes + eclip::soak::shared_tolerance_kilobytes;
  });
  bool clean = true;
  const auto complain = [&](const std::string& text) {
    fmt::print(stderr, "soak: {}\n", text);
    clean = false;
  };
  if (after.mounts != before.mounts) complain("the mounts differ from before");
  if (after.dev_entries != before.dev_entries) complain("/dev differs from before");
  if (!memory_is_back) {
    complain(fmt::format("the machine's shared memory is {} KiB, it was {} KiB before",
                         after.shared_kilobytes, before.shared_kilobytes));
  }
  for (const pid_t pid : marked_processes(mark)) complain(fmt::format("process {} is left", pid));
  if (clean)
    fmt::print("soak: no mount, no entry of /dev, no process and no shared memory is left\n");
  return status == 0 && clean ? 0 : 1;
}
