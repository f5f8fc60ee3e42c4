// What the probe of KFD ioctls costs the system calls of the machine: each measured without it (/0)
// and with it (/1), in one run.
//
//   kfdsim run -- probe_bench --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
//
// The probe needs a /dev/kfd to know; without kfdsim, a GPU's.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <linux/kfd_ioctl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "bpf/kfd_ioctl_probe.h"
#include "ipc/unique_fd.h"

namespace eclip::daemon {
namespace {

/// The probe, when the benchmark's argument wants it. The run is skipped where it cannot be.
class Probe {
 public:
  explicit Probe(benchmark::State& state) {
    if (state.range(0) == 0) return;
    probe_ = bpf::KfdIoctlProbe::attach();
    if (!probe_) state.SkipWithError(probe_.error().message().c_str());
  }

 private:
  Result<bpf::KfdIoctlProbe> probe_ = fail(Errc::unsupported, "not wanted");
};

void UnrelatedSystemCall(benchmark::State& state) {
  const Probe probe(state);
  for (auto _ : state) benchmark::DoNotOptimize(::syscall(SYS_getppid));
}
BENCHMARK(UnrelatedSystemCall)->Arg(0)->Arg(1);

void UnrelatedIoctl(benchmark::State& state) {
  const Probe probe(state);
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return state.SkipWithError("no pipe");
  const UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);
  int waiting = 0;
  for (auto _ : state) benchmark::DoNotOptimize(::ioctl(read_end.get(), FIONREAD, &waiting));
}
BENCHMARK(UnrelatedIoctl)->Arg(0)->Arg(1);

void KfdIoctl(benchmark::State& state) {
  const UniqueFd kfd(::open("/dev/kfd", O_RDWR | O_CLOEXEC));
  if (!kfd) return state.SkipWithError("no /dev/kfd");
  const Probe probe(state);
  kfd_ioctl_get_version_args version{};
  for (auto _ : state)
    benchmark::DoNotOptimize(::ioctl(kfd.get(), AMDKFD_IOC_GET_VERSION, &version));
}
BENCHMARK(KfdIoctl)->Arg(0)->Arg(1);

}  // namespace
}  // namespace eclip::daemon
