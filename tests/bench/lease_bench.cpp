// With a real eclipd on the simulated GPU: attaching, leasing, a dispatch and its completion, and
// what an idle eclipd costs. Beside them one ioctl of the simulated driver, for the ratio. Run it
// below kfdsim:
//
//   kfdsim run -- lease_bench
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <linux/kfd_ioctl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/latencies.h"
#include "tests/integration/eclipd/running_eclipd.h"

namespace eclip::bench {
namespace {

using test::ChildProcess;
using test::MixKernel;

ChildProcess* eclipd = nullptr;

/// CPU time that a process has used so far, in seconds.
double cpu_seconds(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::istringstream after_name(text.substr(text.rfind(')') + 2));
  const std::vector<std::string> fields{std::istream_iterator<std::string>(after_name), {}};
  constexpr std::size_t user = 11;  // utime and stime, counted from the field after the name
  return (std::stod(fields.at(user)) + std::stod(fields.at(user + 1))) /
         static_cast<double>(::sysconf(_SC_CLK_TCK));
}

void Attach(benchmark::State& state) {
  Latencies latencies(state);
  for (auto _ : state) {
    const auto start = Clock::now();
    const Connection connection;
    latencies.add(Clock::now() - start);
  }
  set_throughput(state, static_cast<double>(state.iterations()));
}
BENCHMARK(Attach)->UseManualTime()->Iterations(100);

void AcquireAndReleaseALease(benchmark::State& state) {
  Connection connection;
  Latencies latencies(state);
  for (auto _ : state) {
    // A released stream drains before it is free again; only an attempt that succeeds counts.
    for (bool leased = false; !leased;) {
      const auto start = Clock::now();
      try {
        { const Lease lease = connection.lease_any(1); }
        latencies.add(Clock::now() - start);
        leased = true;
      } catch (const std::exception&) {
        std::this_thread::yield();
      }
    }
  }
  set_throughput(state, static_cast<double>(state.iterations()));
}
BENCHMARK(AcquireAndReleaseALease)->UseManualTime()->Iterations(1000);

/// A kernel of 1 us of simulated time, from the call to the return of the wait.
void DispatchAndWait(benchmark::State& state) {
  Connection connection;
  Lease lease = connection.lease_stream(0);
  const Signal signal = connection.create_signal();
  MixKernel kernel(connection, 1);
  Latencies latencies(state);
  std::uint32_t count = 0;
  for (auto _ : state) {
    const auto dispatch =
        kernel.next(count++, ECLIP_PACKET_BARRIER | ECLIP_PACKET_SIGNAL, signal.id());
    Token token{};
    const auto start = Clock::now();
    if (!lease.try_submit(dispatch, &token) || !connection.wait(token, std::chrono::seconds(10)))
      return state.SkipWithError("the dispatch did not complete");
    latencies.add(Clock::now() - start);
  }
  set_throughput(state, static_cast<double>(state.iterations()));
}
BENCHMARK(DispatchAndWait)->UseManualTime()->Iterations(2000);

void OneKfdIoctl(benchmark::State& state) {
  const int kfd = ::open("/dev/kfd", O_RDWR | O_CLOEXEC);
  if (kfd < 0) return state.SkipWithError("no /dev/kfd");
  kfd_ioctl_get_clock_counters_args counters{};
  {
    Latencies latencies(state);
    for (auto _ : state) {
      const auto start = Clock::now();
      if (::ioctl(kfd, AMDKFD_IOC_GET_CLOCK_COUNTERS, &counters) != 0) {
        state.SkipWithError("the ioctl failed");
        break;
      }
      latencies.add(Clock::now() - start);
    }
  }
  set_throughput(state, static_cast<double>(state.iterations()));
  ::close(kfd);
}
BENCHMARK(OneKfdIoctl)->UseManualTime()->Iterations(5000);

/// Share of a core that eclipd uses while a worker is attached and does nothing.
void IdleEclipd(benchmark::State& state) {
  Connection connection;
  const Lease lease = connection.lease_any(1);
  constexpr std::chrono::seconds watched{2};
  for (auto _ : state) {
    const double before = cpu_seconds(eclipd->pid());
    std::this_thread::sleep_for(watched);
    state.counters["percent_of_a_core"] = 100 * (cpu_seconds(eclipd->pid()) - before) /
                                          std::chrono::duration<double>(watched).count();
    state.SetIterationTime(std::chrono::duration<double>(watched).count());
  }
}
BENCHMARK(IdleEclipd)->UseManualTime()->Iterations(1);

}  // namespace
}  // namespace eclip::bench

int main(int argc, char** argv) try {
  benchmark::Initialize(&argc, argv);
  const eclip::test::TemporaryDirectory directory;
  const std::string socket = (directory.path() / "eclipd.sock").string();
  const std::string config = (directory.path() / "eclipd.toml").string();
  std::ofstream(config) << "daemon.socket = \"" << socket << "\"\nplanner.enabled = false\n";
  ::setenv("ECLIP_SOCKET", socket.c_str(), 1);
  eclip::test::ChildProcess daemon({ECLIPD_PROGRAM, "--config", config, "--ready-fd", "1"});
  if (daemon.read_line() != "ready") {
    daemon.wait();
    std::fprintf(stderr, "lease_bench: eclipd did not start: %s\n", daemon.errors().c_str());
    return 1;
  }
  eclip::bench::eclipd = &daemon;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "lease_bench: %s\n", error.what());
  return 1;
}
