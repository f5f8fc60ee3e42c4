#include "daemon/planner/planner.h"

#include <cmath>

#include "daemon/model/occupancy.h"
#include "daemon/planner/planning.h"
#include "daemon/planner/row_simulation.h"

namespace eclip::planner {
namespace {

Result<void> check_number(double number, bool may_be_zero, const std::string& what,
                          const std::string& remedy) {
  if (std::isfinite(number) && (number > 0 || (may_be_zero && number == 0))) return {};
  return fail(Errc::invalid_argument, what + " " + std::to_string(number) + "; " + remedy);
}

Result<void> check(const Worker& worker, const std::string& who) {
  if (worker.unknown && !worker.kernels.empty())
    return fail(Errc::invalid_argument, who + " is unknown and has " +
                                            std::to_string(worker.kernels.size()) +
                                            " kernels; leave out one of the two");
  if (!worker.unknown && worker.kernels.empty())
    return fail(Errc::invalid_argument,
                who + " has no kernels; record its profile again, or mark it as unknown");
  if (worker.kernels.size() > most_kernels)
    return fail(Errc::invalid_argument, who + " has " + std::to_string(worker.kernels.size()) +
                                            " kernels in a request, more than " +
                                            std::to_string(most_kernels) +
                                            "; profile a shorter request");
  for (const model::KernelRange& range : worker.stay_together)
    if (range.first > range.last || range.last >= worker.kernels.size())
      return fail(Errc::invalid_argument, who + ": kernels " + std::to_string(range.first) +
                                              " to " + std::to_string(range.last) +
                                              " are to stay together; give a range within its " +
                                              std::to_string(worker.kernels.size()) + " kernels");
  if (auto ok = check_number(worker.requests_per_s, true, who + " has the rate",
                             "give requests per second, or 0 for a closed loop");
      !ok)
    return ok;
  if (auto ok = check_number(worker.weight, false, who + " has the weight", "give one above 0");
      !ok)
    return ok;
  return check_number(worker.latency_bound_us, true, who + " has the latency bound",
                      "give microseconds, or 0 for none");
}

Result<void> check(const model::GpuDescription& gpu, std::span<const Worker> workers,
                   const PlannerOptions& options) {
  const std::string count = std::to_string(workers.size()) + " workers";
  if (workers.empty())
    return fail(Errc::invalid_argument, "a plan needs at least one worker; none was given");
  if (workers.size() > most_workers)
    return fail(Errc::budget_exceeded,
                count + " need " + std::to_string(workers.size()) + " home leaves, and a GPU has " +
                    std::to_string(stream_budget) +
                    " CU-masked streams; plan for fewer workers or use another GPU for some");
  if (options.pool) {
    if (auto ok = check_pool(gpu, *options.pool); !ok) return ok;
  } else if (gpu.geometry.xccs > 1) {
    return fail(Errc::unsupported, gpu.name + " has " + std::to_string(gpu.geometry.xccs) +
                                       " XCCs, for which the planner cannot make masks; give a "
                                       "pool whose masks have CUs on each");
  } else if (workers.size() > 2 * gpu.geometry.shader_engines) {
    return fail(Errc::budget_exceeded, count + " need as many halves of shader engines; " +
                                           gpu.name + " has " +
                                           std::to_string(2 * gpu.geometry.shader_engines) +
                                           ", so plan for fewer workers or give a pool");
  }
  // Beside the pool, each worker may be in a queue of its own without a mask.
  const std::size_t queues = (options.pool ? options.pool->size() : stream_budget) + workers.size();
  if (const std::uint32_t slots = gpu.topology.num_cp_queues; slots != 0 && queues > slots)
    return fail(Errc::budget_exceeded,
                count + " and the pool need up to " + std::to_string(queues) + " queues, and " +
                    gpu.name + " holds " + std::to_string(slots) +
                    " at a time: plan for fewer workers, or give a smaller pool");
  for (std::size_t w = 0; w < workers.size(); ++w)
    if (auto ok = check(workers[w], "worker " + std::to_string(w) + " ('" + workers[w].name + "')");
        !ok)
      return ok;
  return {};
}

}  // namespace

double share_of(std::span<const double> activity, WorkerSet active) {
  double product = 1;
  double none = 1;
  for (std::size_t w = 0; w < activity.size(); ++w) {
    product *= active >> w & 1U ? activity[w] : 1 - activity[w];
    none *= 1 - activity[w];
  }
  return product / (1 - none);
}

void sum_up_rows(Plan& plan, std::span<const Worker> workers) {
  plan.value = 0;
  plan.violations.clear();
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active) {
    plan.value += share_of(plan.activity, active) * plan.row(active).value;
    for (const Violation& late : violations_of(workers, active, plan.row(active)))
      plan.violations.push_back(late);
  }
}

Worker profiled_worker(const model::Profile& profile, std::string name, double requests_per_s) {
  Worker worker{.name = std::move(name),
                .kernels = kernels_of(profile),
                .requests_per_s = requests_per_s,
                .stay_together = profile.stay_together};
  worker.uniform = profile.uniform;
  return worker;
}

Worker as_planned(const model::GpuDescription& gpu, const Worker& worker) {
  if (!worker.unknown) return worker;
  constexpr std::uint32_t workgroup_size = 256;
  const std::uint32_t cus = gpu.geometry.cu_count();
  model::LaunchShape shape{.workgroups = 0, .workgroup_size = workgroup_size};
  shape.workgroups = cus * model::workgroups_per_cu(shape, gpu.geometry);
  const std::vector<model::TimePoint> points{{cus, unknown_request_us}};
  Worker planned = worker;
  planned.kernels = {std::make_shared<const model::Kernel>(*model::Kernel::create(shape, points))};
  return planned;
}

Result<Plan> make_plan(const model::GpuDescription& gpu, std::span<const Worker> workers,
                       const PlannerOptions& options) {
  if (auto checked = check(gpu, workers, options); !checked) return tl::unexpected(checked.error());
  std::vector<Worker> planned;
  planned.reserve(workers.size());
  for (const Worker& worker : workers) planned.push_back(as_planned(gpu, worker));
  return Planning(gpu, planned, options).run();
}

}  // namespace eclip::planner
