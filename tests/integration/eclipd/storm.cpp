// A storm: workers are killed at random moments while others work on; afterwards nothing of them
// may be left in eclipd, and the survivors' results must be right. Every other one leases a stream,
// the others have schedulers.
//
//   eclip_storm [--seconds S] [--kills N] [--seed N]
//
// runs below kfdsim (the program starts itself there), until S seconds have passed or N workers
// were killed. Victims and moments are chosen by the seed, which is printed.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <optional>
#include <random>
#include <thread>

#include "tests/fake/eventually.h"
#include "tests/integration/eclipd/running_eclipd.h"
#include "tests/integration/kfdsim/kfdsim_refusal.h"

namespace eclip::test {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
constexpr std::chrono::seconds patience{20};
constexpr int leasing_survivors = 2;
constexpr int survivors = 3;
constexpr int victims = 4;
constexpr int burst = 20;

struct Options {
  double seconds = 20;
  std::uint64_t kills = 1'000'000;
  std::uint64_t seed = std::random_device()();
};

enum class Kind : std::uint8_t { leasing, scheduled };

/// Bursts of kernels, each of which mixes the last one's value into its own.
class Model {
 public:
  Model(Connection& connection, Kind kind) : connection_(connection), kernel_(connection, 100) {
    if (kind == Kind::leasing) {
      lease_.emplace(connection.lease_any(1));
      signal_.emplace(connection.create_signal());
    } else {
      scheduler_.emplace(connection.scheduler());
      program_.emplace(scheduler_->create_program());
    }
  }

  /// False when the value is wrong.
  bool run() {
    if (!(lease_ ? run_leased() : run_scheduled())) throw ApiError(ETIMEDOUT, "a burst");
    return kernel_.value() == kernel_.expected();
  }

 private:
  bool run_leased() {
    Token token{};
    for (int i = 0; i < burst; ++i) {
      const auto dispatch =
          kernel_.next(salt_++, ECLIP_PACKET_BARRIER | (i + 1 == burst ? ECLIP_PACKET_SIGNAL : 0),
                       signal_->id());
      while (!lease_->try_submit(dispatch, &token)) std::this_thread::yield();
    }
    return connection_.wait(token, patience);
  }
  bool run_scheduled() {
    program_->begin_request();
    for (int i = 0; i < burst; ++i) program_->dispatch(kernel_.next(salt_++, 0, 0));
    return program_->wait(program_->end_request(), patience);
  }

  Connection& connection_;
  MixKernel kernel_;
  std::optional<Lease> lease_;
  std::optional<Signal> signal_;
  std::optional<WorkerScheduler> scheduler_;
  std::optional<WorkerProgram> program_;
  std::uint32_t salt_ = 1;
};

/// A forked worker: connects, works and, unless it is to stay, leaves, again and again.
[[noreturn]] void work(Kind kind, bool stays) {
  static volatile sig_atomic_t stop = 0;
  ::signal(SIGTERM, [](int) { stop = 1; });
  try {
    do {
      Connection connection;
      Model model(connection, kind);
      for (int i = 0; stop == 0 && (stays || i < 4); ++i)
        if (!model.run()) ::_exit(1);
    } while (stop == 0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "worker %d: %s\n", ::getpid(), error.what());
    ::_exit(2);
  }
  ::_exit(0);
}

pid_t start_worker(Kind kind, bool stays) {
  std::fflush(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) work(kind, stays);
  return pid;
}

/// The fixture's eclipd, outside of a GoogleTest test.
class Storm : public EclipdTest {
 public:
  explicit Storm(const Options& options) : options_(options), random_(options.seed) {
    log_level_ = "error";  // nobody reads the pipe before the end, and a full one stops eclipd
  }
  void TestBody() override {}

  /// The exit status.
  int run() {
    start();
    std::printf("storm: seed %llu\n", static_cast<unsigned long long>(options_.seed));
    for (int i = 0; i < survivors; ++i)
      staying_.push_back(
          start_worker(i < leasing_survivors ? Kind::leasing : Kind::scheduled, true));
    expect(eventually([&] { return working() == survivors; }), "the survivors do not run");
    const std::size_t descriptors = daemon_descriptors();
    const auto end = Clock::now() + microseconds(static_cast<std::int64_t>(1e6 * options_.seconds));
    for (int i = 0; i < victims; ++i) passing_.push_back(start_worker(kind_of(i), false));
    while (Clock::now() < end && kills_ < options_.kills && right_) kill_one();
    for (const pid_t pid : passing_) finish(pid, SIGKILL, true);
    kills_ += passing_.size();
    expect(eventually([&] {
             return control({"client", "list"}).size() == survivors;
           }),
           "clients are left that nobody is behind");
    expect(eventually([&] { return leased() == leasing_survivors; }), "leases or streams are left");
    expect(eventually([&] { return most_scheduled() == survivors - leasing_survivors; }),
           "scheduled leases are left");
    // eclipctl's connection may still have counted before: two descriptors, against two for each
    // kill.
    expect(eventually([&] { return daemon_descriptors() <= descriptors; }),
           "descriptors are left in eclipd");
    const auto status = control({"status"});
    expect(status.at("workers_cut_off") == 0, "a worker was cut off");
    for (const pid_t pid : staying_) finish(pid, SIGTERM, false);
    expect(all_streams_become_free(), "streams are not free");
    expect(eventually([&] { return control({"client", "list"}).empty(); }), "clients are left");
    expect(::waitpid(-1, nullptr, WNOHANG) <= 0, "processes are left");
    expect(stop_daemon() == 0, "eclipd did not end well");
    std::printf("storm: %llu kills, %s\n", static_cast<unsigned long long>(kills_),
                right_ ? "nothing left behind, survivors' results right" : "FAILED");
    return right_ ? 0 : 1;
  }

 private:
  void expect(bool holds, const char* otherwise) {
    if (!holds) std::printf("storm: %s\n", otherwise);
    right_ = right_ && holds;
  }
  /// Clients whose packets have been forwarded.
  [[nodiscard]] int working() const {
    const auto clients = control({"client", "list"});
    return static_cast<int>(std::count_if(clients.begin(), clients.end(), [](const auto& client) {
      return client.at("packets") > 0;
    }));
  }
  [[nodiscard]] int leased() const {
    const auto states = stream_states();
    return static_cast<int>(states.size() - std::count(states.begin(), states.end(), "free"));
  }

  /// Scheduled leases of the stream that has most of them.
  [[nodiscard]] int most_scheduled() const {
    int most = 0;
    for (const auto& stream : control({"stream", "list"}))
      most = std::max(most, stream.at("scheduled").get<int>());
    return most;
  }
  static Kind kind_of(std::size_t victim) {
    return victim % 2 == 0 ? Kind::leasing : Kind::scheduled;
  }

  /// One victim gets its end after a random while, and another takes its place.
  void kill_one() {
    const auto pause = microseconds(std::uniform_int_distribution<int>(0, 15'000)(random_));
    const auto victim = std::uniform_int_distribution<std::size_t>(0, victims - 1)(random_);
    const bool stops_first = std::uniform_int_distribution<int>(0, 9)(random_) == 0;
    std::this_thread::sleep_for(pause);
    if (stops_first) {
      ::kill(passing_[victim], SIGSTOP);
      std::this_thread::sleep_for(pause);
    }
    finish(passing_[victim], stops_first || kills_ % 3 != 0 ? SIGKILL : SIGSEGV, true);
    ++kills_;
    passing_[victim] = start_worker(kind_of(victim), false);
  }
  void finish(pid_t pid, int signal, bool dies) {
    ::kill(pid, signal);
    int status = 0;
    ::waitpid(pid, &status, 0);
    // A victim may have ended by an error of its own: that is what must not happen.
    expect(dies ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0,
           "a worker ended with a wrong result or an error");
  }

  const Options options_;
  std::mt19937_64 random_;
  std::vector<pid_t> staying_;
  std::vector<pid_t> passing_;
  std::uint64_t kills_ = 0;
  bool right_ = true;
};

}  // namespace
}  // namespace eclip::test

int main(int argc, char** argv) {
  using namespace eclip::test;
  CLI::App app{"Kills workers of an eclipd at random and looks for what they leave behind"};
  Options options;
  app.add_option("--seconds", options.seconds, "Host time of the storm")->capture_default_str();
  app.add_option("--kills", options.kills, "End it after so many");
  app.add_option("--seed", options.seed, "Choice of victims and moments; random unless given");
  CLI11_PARSE(app, argc, argv);
  if (std::getenv("ECLIP_INSIDE_KFDSIM") == nullptr) {
    if (const std::string refusal = kfdsim_refusal(); !refusal.empty()) {
      std::printf("SKIPPED: %s\n", refusal.c_str());
      return 0;
    }
    ::setenv("ECLIP_INSIDE_KFDSIM", "1", 1);
    std::vector<char*> arguments;
    for (const char* own : {KFDSIM_PROGRAM, "run", "-q", "--gpu", "mi50", "--"})
      arguments.push_back(const_cast<char*>(own));
    arguments.insert(arguments.end(), argv, argv + argc + 1);
    ::execv(arguments[0], arguments.data());
    std::perror(KFDSIM_PROGRAM);
    return 1;
  }
  ::setvbuf(stdout, nullptr, _IOLBF, 0);
  return Storm(options).run();
}
