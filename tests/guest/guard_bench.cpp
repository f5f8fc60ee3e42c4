// What the ioctl probe and the budget guard add to system calls. In an emulated guest only the
// ratios of one run say something, and these roughly (docs/probes.md).
#include <benchmark/benchmark.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <optional>

#include "bpf/budget_guard.h"
#include "bpf/kfd_ioctl_probe.h"
#include "tests/guest/kfd_client.h"

namespace {

using namespace eclip;

enum Attached : int { nothing = 0, probe = 1, guard = 2 };

/// Attaches what the benchmark's argument says, for as long as it lives.
class Attachment {
 public:
  explicit Attachment(benchmark::State& state) : what_(static_cast<Attached>(state.range(0))) {
    if (what_ == probe) {
      if (auto attached = bpf::KfdIoctlProbe::attach())
        probe_.emplace(std::move(*attached));
      else
        state.SkipWithError(attached.error().message().c_str());
    }
    if (what_ == guard)
      if (auto installed = bpf::BudgetGuard::install({.policy = guard_enforce}); !installed)
        state.SkipWithError(installed.error().message().c_str());
  }
  ~Attachment() {
    if (what_ == guard) [[maybe_unused]]
      const auto removed = bpf::BudgetGuard::remove();
  }
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

 private:
  Attached what_;
  std::optional<bpf::KfdIoctlProbe> probe_;
};

void unrelated_call(benchmark::State& state) {
  const Attachment attachment(state);
  for (auto _ : state) ::getppid();
}
void unrelated_ioctl(benchmark::State& state) {
  const Attachment attachment(state);
  int ends[2];
  if (::pipe(ends) != 0) return state.SkipWithError("pipe");
  int bytes = 0;
  for (auto _ : state) ::ioctl(ends[0], FIONREAD, &bytes);
  ::close(ends[0]);
  ::close(ends[1]);
}
void kfd_ioctl(benchmark::State& state) {
  const Attachment attachment(state);
  const test::Kfd kfd;
  kfd_ioctl_get_version_args version{};
  for (auto _ : state) kfd.call(AMDKFD_IOC_GET_VERSION, &version);
}
/// A mask that is set anew, again and again.
void mask(benchmark::State& state) {
  const Attachment attachment(state);
  const test::Kfd kfd;
  std::uint32_t queue = 0;
  if (kfd.create_queue(&queue) != 0) return state.SkipWithError("the driver creates no queue");
  if (state.range(0) == guard)
    if (auto there = bpf::BudgetGuard::open()) [[maybe_unused]]
      const auto granted = there->grant(::getpid(), 2);  // one to have, one to change
  for (auto _ : state) kfd.mask(queue);
  kfd.destroy(queue);
}

#define WITH_EACH(function) BENCHMARK(function)->Arg(nothing)->Arg(probe)->Arg(guard)
WITH_EACH(unrelated_call);
WITH_EACH(unrelated_ioctl);
WITH_EACH(kfd_ioctl);
WITH_EACH(mask);

}  // namespace

BENCHMARK_MAIN();
