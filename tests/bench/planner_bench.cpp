// Time to plan, by workers and by kernels, with measured profiles repeated to the length asked for.
#include <benchmark/benchmark.h>

#include <ctime>
#include <vector>

#include "daemon/model/profile.h"
#include "daemon/planner/closed_loop.h"
#include "daemon/planner/planner.h"

namespace eclip::planner {
namespace {

const std::filesystem::path data = ECLIP_DATA_DIR;

model::GpuDescription h100() {
  return *model::load_gpu_description(data / "gpus/h100.toml");
}

/// `count` workers of different models, each with so many kernels.
std::vector<Worker> workers_of(std::size_t count, std::size_t kernels) {
  const std::vector<std::string> names{
      "densenet201-b32",        "resnet152-b32", "resnext101_32x8d-b32", "albert_base-b8",
      "shufflenet_v2_x1_0-b32", "vgg19-b32",     "densenet201-b8"};
  std::vector<Worker> workers;
  for (std::size_t w = 0; w < count; ++w) {
    const auto profile = model::load_profile(data / "profiles" / (names[w] + ".h100.json"));
    const auto measured = kernels_of(*profile);
    Worker worker{.name = names[w], .kernels = {}};
    for (std::size_t k = 0; k < kernels; ++k)
      worker.kernels.push_back(measured[k % measured.size()]);
    workers.push_back(std::move(worker));
  }
  return workers;
}

void plan(benchmark::State& state) {
  const auto gpu = h100();
  const auto workers = workers_of(static_cast<std::size_t>(state.range(0)),
                                  static_cast<std::size_t>(state.range(1)));
  double value = 0;
  for (auto _ : state) {
    const auto made = make_plan(gpu, workers, {});
    value = made->value;
  }
  state.counters["value"] = value;
}

double cpu_ms() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

/// Another worker joins so many others; the search stops after 15 ms of CPU time, so that others on
/// the machine do not count. `value` is relative to that of the search without a limit.
void replan(benchmark::State& state, bool given_pool) {
  const auto gpu = h100();
  const auto joined = static_cast<std::size_t>(state.range(0)) + 1;
  const auto workers = workers_of(joined, 759);
  PlannerOptions options;
  if (given_pool) options.pool = tree_masks(gpu.geometry.cu_count(), gpu.geometry.shader_engines);
  const auto previous = make_plan(gpu, std::span(workers).first(joined - 1), options);
  const auto unlimited = make_plan(gpu, workers, options);
  options.previous = &*previous;
  double value = 0;
  for (auto _ : state) {
    const double until = cpu_ms() + 15;
    options.search.out_of_time = [until] { return cpu_ms() >= until; };
    const auto made = make_plan(gpu, workers, options);
    value = made->value;
  }
  state.counters["value"] = value / unlimited->value;
}
void replan(benchmark::State& state) {
  replan(state, false);
}
void replan_given_pool(benchmark::State& state) {
  replan(state, true);
}

BENCHMARK(plan)
    ->Unit(benchmark::kMillisecond)
    ->ArgNames({"workers", "kernels"})
    ->Args({4, 759})
    ->Args({7, 1338})
    ->Args({4, 380})
    ->Args({4, 1518})
    ->Args({4, 3036})
    ->Args({1, 759})
    ->Args({2, 759})
    ->Args({3, 759})
    ->Args({5, 759})
    ->Args({6, 759})
    ->Args({7, 759});

BENCHMARK(replan)
    ->Unit(benchmark::kMillisecond)
    ->ArgName("workers")
    ->Arg(1)
    ->Arg(2)
    ->Arg(3)
    ->Arg(6);
BENCHMARK(replan_given_pool)
    ->Unit(benchmark::kMillisecond)
    ->ArgName("workers")
    ->Arg(1)
    ->Arg(2)
    ->Arg(3)
    ->Arg(6);

}  // namespace
}  // namespace eclip::planner
