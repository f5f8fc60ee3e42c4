#include "daemon/planner/plan_document.h"

#include <algorithm>
#include <cmath>

#include "ipc/launch_shapes.h"

namespace eclip::planner {
namespace {

using nlohmann::json;

constexpr const char* schema = "eclip.plan/1";

/// A value of the document and where it stands, as a JSON pointer.
struct Place {
  const json& value;
  std::string path;

  [[nodiscard]] tl::unexpected<Error> refuse(const std::string& expected) const {
    return fail(Errc::malformed,
                (path.empty() ? "the plan" : path) + " must be " + expected +
                    "; eclip-plan plan --json and eclipctl plan show --json write such a plan");
  }
  [[nodiscard]] Result<Place> member(const char* key) const {
    const std::string where = path + "/" + key;
    if (!value.is_object()) return refuse("an object");
    const auto found = value.find(key);
    if (found == value.end()) return fail(Errc::malformed, where + " is missing");
    return Place{*found, where};
  }
  [[nodiscard]] Place element(std::size_t index) const {
    return {value[index], path + "/" + std::to_string(index)};
  }
  [[nodiscard]] Result<std::string> text(const char* key) const {
    auto place = member(key);
    if (!place) return tl::unexpected(place.error());
    if (!place->value.is_string()) return place->refuse("a text");
    return place->value.get<std::string>();
  }
  [[nodiscard]] Result<std::uint32_t> number(std::uint32_t limit) const {
    if (!value.is_number_integer() || value < 0 || value >= limit)
      return refuse("a whole number below " + std::to_string(limit));
    return value.get<std::uint32_t>();
  }
  [[nodiscard]] Result<Place> list(const char* key) const {
    auto place = member(key);
    if (!place) return place;
    if (!place->value.is_array()) return place->refuse("a list");
    return place;
  }
};

Result<std::vector<CuMask>> parse_pool(const Place& root, std::uint32_t cu_count) {
  const auto pool = root.member("pool");
  if (!pool) return tl::unexpected(pool.error());
  const auto streams = pool->list("streams");
  if (!streams) return tl::unexpected(streams.error());
  if (streams->value.size() > stream_budget)
    return streams->refuse("at most " + std::to_string(stream_budget) + " streams");
  std::vector<CuMask> masks;
  for (std::size_t s = 0; s < streams->value.size(); ++s) {
    const Place stream = streams->element(s);
    const auto list = stream.text("cu_list");
    if (!list) return tl::unexpected(list.error());
    auto mask = CuMask::parse(*list, cu_count);
    if (!mask) return fail(Errc::malformed, stream.path + "/cu_list: " + mask.error().message());
    masks.push_back(std::move(*mask));
  }
  return masks;
}

/// A list of numbers of at least 0, of so many; nothing when it is not there, or empty.
Result<std::vector<float>> parse_times(const Place& place, std::size_t count) {
  constexpr double most = 1e12;
  if (!place.value.is_array() || (!place.value.empty() && place.value.size() != count))
    return place.refuse("a list of " + std::to_string(count) + " numbers, or empty");
  std::vector<float> times;
  for (std::size_t i = 0; i < place.value.size(); ++i) {
    const Place number = place.element(i);
    const double value = number.value.is_number() ? number.value.get<double>() : -1;
    if (!(value >= 0 && value <= most)) return number.refuse("a number from 0 to 1e12");
    times.push_back(static_cast<float>(value));
  }
  return times;
}

/// What the worker's scheduler goes by, where the document says it.
Result<void> parse_kernels(const Place& place, std::size_t streams,
                           StoredPlan::PlannedWorker& worker) {
  if (place.value.contains("kernels")) {
    const auto count = place.member("kernels")->number(most_kernels + 1);
    if (!count) return tl::unexpected(count.error());
    if (*count != 0 && *count <= worker.first_kernel.back())
      return place.member("kernels")->refuse("0, or more than the first kernel of the last group");
    worker.kernels = *count;
  }
  const std::size_t groups = worker.first_kernel.size();
  if (place.value.contains("shapes_of_group")) {
    const auto shapes = place.list("shapes_of_group");
    if (!shapes) return tl::unexpected(shapes.error());
    if (!shapes->value.empty() && shapes->value.size() != groups)
      return shapes->refuse("a list of " + std::to_string(groups) + " numbers, or empty");
    for (std::size_t g = 0; g < shapes->value.size(); ++g) {
      const Place shape = shapes->element(g);
      if (!shape.value.is_number_integer() || shape.value < 0 || shape.value > UINT32_MAX)
        return shape.refuse("a whole number below 2^32");
      worker.shapes.push_back(shape.value.get<std::uint32_t>());
    }
  }
  if (!place.value.contains("alone_us_of_group")) return {};
  const auto times = place.list("alone_us_of_group");
  if (!times) return tl::unexpected(times.error());
  if (!times->value.empty() && times->value.size() != streams)
    return times->refuse("a list of " + std::to_string(streams) +
                         " lists, one for each stream and one for none, or empty");
  for (std::size_t s = 0; s < times->value.size(); ++s) {
    auto of_stream = parse_times(times->element(s), groups);
    if (!of_stream) return tl::unexpected(of_stream.error());
    worker.alone_us.push_back(std::move(*of_stream));
  }
  return {};
}

Result<StoredPlan::PlannedWorker> parse_worker(const Place& place, std::size_t streams) {
  StoredPlan::PlannedWorker worker;
  for (const auto& [key, text] :
       {std::pair{"name", &worker.name}, std::pair{"profile", &worker.profile}}) {
    auto value = place.text(key);
    if (!value) return tl::unexpected(value.error());
    *text = std::move(*value);
  }
  const auto groups = place.list("first_kernel_of_group");
  if (!groups) return tl::unexpected(groups.error());
  for (std::size_t g = 0; g < groups->value.size(); ++g) {
    const Place group = groups->element(g);
    const auto first = group.number(most_kernels);
    if (!first) return tl::unexpected(first.error());
    if (g == 0 ? *first != 0 : *first <= worker.first_kernel.back())
      return group.refuse(g == 0 ? "0" : "more than the one before");
    worker.first_kernel.push_back(*first);
  }
  if (worker.first_kernel.empty()) return groups->refuse("a list that is not empty");
  if (auto known = parse_kernels(place, streams, worker); !known)
    return tl::unexpected(known.error());
  return worker;
}

Result<GroupStreams> parse_row(const Place& place, const StoredPlan& plan, WorkerSet active) {
  const auto set = place.member("active");
  if (!set) return tl::unexpected(set.error());
  if (set->value != active) return set->refuse(std::to_string(active));
  const auto workers = place.list("stream_of_group");
  if (!workers) return tl::unexpected(workers.error());
  if (workers->value.size() != plan.workers.size())
    return workers->refuse("a list of " + std::to_string(plan.workers.size()) + " lists");
  GroupStreams streams(plan.workers.size());
  for (std::size_t w = 0; w < plan.workers.size(); ++w) {
    const Place worker = workers->element(w);
    const std::size_t groups = active >> w & 1U ? plan.workers[w].first_kernel.size() : 0;
    if (!worker.value.is_array() || worker.value.size() != groups)
      return worker.refuse("a list of " + std::to_string(groups) + " streams");
    for (std::size_t g = 0; g < groups; ++g) {
      const auto stream = worker.element(g).number(plan.unmasked + 1);
      if (!stream) return tl::unexpected(stream.error());
      streams[w].push_back(*stream);
    }
  }
  return streams;
}

/// Of an active worker, how many times as long as alone its kernels take in a row.
double slowdown_of(const Row& row, std::size_t worker) {
  const double overhead_us = CostOptions{}.request_overhead_us;
  const auto& request_us = row.simulated_us.empty() ? row.prediction.request_us : row.simulated_us;
  const double alone_us = row.prediction.alone_us[worker] - overhead_us;
  return alone_us > 0 ? std::max(0.0, request_us[worker] - overhead_us) / alone_us : 0;
}

/// In thousandths, which print shortly: most of a document is numbers.
double rounded(double value) {
  return std::round(value * 1000) / 1000;
}

/// [stream, the one without a mask last][group].
json alone_us_of_groups(const Plan& plan, const Worker& worker, const Groups& groups,
                        const model::GpuDescription& gpu) {
  json times = json::array();
  std::vector<std::uint32_t> cus;
  for (const PoolStream& stream : plan.pool.streams) cus.push_back(stream.mask.count());
  cus.push_back(gpu.geometry.cu_count());
  for (std::size_t s = 0; s < cus.size(); ++s) {
    const auto same =
        static_cast<std::size_t>(std::find(cus.begin(), cus.end(), cus[s]) - cus.begin());
    if (same < s) {
      times.push_back(json(times[same]));
      continue;
    }
    std::vector<double> us(groups.size(), 0);
    for (std::size_t k = 0, g = 0; k < worker.kernels.size(); ++k) {
      if (g + 1 < groups.size() && k == groups[g + 1]) ++g;
      us[g] += worker.kernels[k]->time_on_mask_us(cus[s]) + (k == 0 ? 0 : gpu.timing.launch_gap_us);
    }
    std::transform(us.begin(), us.end(), us.begin(), rounded);
    times.push_back(us);
  }
  return times;
}

}  // namespace

bool StoredPlan::slows_as(const StoredPlan& other, double factor) const {
  if (slowdown.size() != other.slowdown.size()) return false;
  const auto is_near = [factor](float a, float b) { return a <= b * factor && b <= a * factor; };
  return std::equal(slowdown.begin(), slowdown.end(), other.slowdown.begin(),
                    [&](const auto& ours, const auto& theirs) {
                      return std::equal(ours.begin(), ours.end(), theirs.begin(), theirs.end(),
                                        is_near);
                    });
}

const char* name_of(Objective objective) {
  switch (objective) {
    case Objective::latency:
      return "latency";
    case Objective::throughput:
      return "throughput";
    case Objective::energy:
      break;
  }
  return "energy";
}

std::optional<Objective> objective_of(std::string_view name) {
  for (const Objective each : {Objective::latency, Objective::throughput, Objective::energy})
    if (name == name_of(each)) return each;
  return std::nullopt;
}

json plan_document(const Plan& plan, std::span<const Worker> workers,
                   const model::GpuDescription& gpu, Objective objective) {
  json root{{"schema", schema},
            {"gpu", gpu.name},
            {"idle_watts", gpu.power.idle_watts},
            {"objective", name_of(objective)},
            {"value", plan.value},
            {"lower_bound", plan.lower_bound},
            {"complete", plan.complete},
            {"unmasked", plan.unmasked},
            {"workers", json::array()},
            {"rows", json::array()},
            {"candidates", json::array()},
            {"violations", json::array()}};
  root["pool"] = {{"name", plan.pool.name},
                  {"pruned_unions", plan.pool.pruned_unions},
                  {"streams", json::array()}};
  for (const PoolStream& stream : plan.pool.streams)
    root["pool"]["streams"].push_back({{"cu_list", stream.mask.to_string()},
                                       {"cus", stream.mask.count()},
                                       {"leaves", stream.leaves}});
  for (std::size_t w = 0; w < workers.size(); ++w) {
    json& worker =
        root["workers"].emplace_back(json{{"name", workers[w].name},
                                          {"profile", workers[w].unknown ? "" : workers[w].name},
                                          {"unknown", workers[w].unknown},
                                          {"requests_per_s", workers[w].requests_per_s},
                                          {"weight", workers[w].weight},
                                          {"latency_bound_us", workers[w].latency_bound_us},
                                          {"home", plan.pool.home[w]},
                                          {"activity", plan.activity[w]},
                                          {"alone_us", plan.solo_us[w]},
                                          {"kernels", workers[w].kernels.size()},
                                          {"first_kernel_of_group", plan.groups[w]}});
    if (workers[w].unknown) continue;
    worker["shapes_of_group"] = shapes_of_groups(workers[w], plan.groups[w]);
    worker["alone_us_of_group"] = alone_us_of_groups(plan, workers[w], plan.groups[w], gpu);
  }
  for (WorkerSet active = 1; active <= plan.rows.size(); ++active) {
    const Row& row = plan.row(active);
    std::vector<double> slowdown(workers.size(), 0);
    for (std::size_t w = 0; w < workers.size(); ++w)
      if ((active >> w & 1U) && !workers[w].unknown) slowdown[w] = rounded(slowdown_of(row, w));
    root["rows"].push_back({{"active", active},
                            {"value", row.value},
                            {"simulated_value", row.simulated_value},
                            {"simulated_us", row.simulated_us},
                            {"by_arrivals", row.by_arrivals},
                            {"stream_of_group", row.streams},
                            {"request_us", row.prediction.request_us},
                            {"slowdown", slowdown},
                            {"joules", row.prediction.joules},
                            {"watts", row.prediction.watts}});
  }
  for (const Candidate& candidate : plan.candidates)
    root["candidates"].push_back({{"name", candidate.name},
                                  {"value", candidate.value},
                                  {"all_active_value", candidate.all_active.value},
                                  {"simulated_value", candidate.all_active.simulated_value},
                                  {"request_us", candidate.all_active.prediction.request_us}});
  for (const Violation& violation : plan.violations)
    root["violations"].push_back({{"active", violation.active},
                                  {"worker", violation.worker},
                                  {"request_us", violation.request_us},
                                  {"latency_bound_us", violation.latency_bound_us}});
  return root;
}

Result<StoredPlan> parse_plan(const json& document, std::uint32_t cu_count) {
  const Place root{document, ""};
  const auto found = root.text("schema");
  if (!found) return tl::unexpected(found.error());
  if (*found != schema)
    return fail(Errc::malformed, "/schema is '" + *found + "', not '" + schema + "'");
  StoredPlan plan;
  auto pool = parse_pool(root, cu_count);
  if (!pool) return tl::unexpected(pool.error());
  plan.pool = std::move(*pool);
  plan.unmasked = static_cast<std::uint32_t>(plan.pool.size());
  const auto workers = root.list("workers");
  if (!workers) return tl::unexpected(workers.error());
  if (workers->value.empty() || workers->value.size() > most_workers)
    return workers->refuse("a list of 1 to " + std::to_string(most_workers) + " workers");
  for (std::size_t w = 0; w < workers->value.size(); ++w) {
    auto worker = parse_worker(workers->element(w), plan.pool.size() + 1);
    if (!worker) return tl::unexpected(worker.error());
    plan.workers.push_back(std::move(*worker));
  }
  const auto rows = root.list("rows");
  if (!rows) return tl::unexpected(rows.error());
  const std::size_t sets = (std::size_t{1} << plan.workers.size()) - 1;
  if (rows->value.size() != sets)
    return rows->refuse("a list of " + std::to_string(sets) + " rows, one for each set of workers");
  for (std::size_t set = 0; set < sets; ++set) {
    auto row = parse_row(rows->element(set), plan, static_cast<WorkerSet>(set + 1));
    if (!row) return tl::unexpected(row.error());
    plan.rows.push_back(std::move(*row));
    const Place place = rows->element(set);
    if (!place.value.contains("slowdown")) continue;
    auto slowdown = parse_times(*place.member("slowdown"), plan.workers.size());
    if (!slowdown) return tl::unexpected(slowdown.error());
    plan.slowdown.resize(sets);
    plan.slowdown[set] = std::move(*slowdown);
  }
  const auto value = root.member("value");
  if (!value) return tl::unexpected(value.error());
  if (!value->value.is_number() || !std::isfinite(value->value.get<double>()))
    return value->refuse("a number");
  plan.value = value->value.get<double>();
  return plan;
}

std::vector<std::uint32_t> shapes_of_groups(const Worker& worker, const Groups& groups) {
  std::vector<LaunchShapes> shapes(groups.size());
  for (std::size_t k = 0, g = 0; k < worker.kernels.size(); ++k) {
    if (g + 1 < groups.size() && k == groups[g + 1]) ++g;
    shapes[g].add(worker.kernels[k]->shape().workgroups);
  }
  std::vector<std::uint32_t> values;
  values.reserve(shapes.size());
  for (const LaunchShapes& shape : shapes) values.push_back(shape.value());
  return values;
}

WorkerPlan table_of(const StoredPlan& plan, std::size_t part,
                    std::span<const std::optional<std::uint32_t>> seats) {
  const auto seats_of = [seats](WorkerSet parts) -> std::optional<std::uint32_t> {
    std::uint32_t set = 0;
    for (std::size_t i = 0; i < seats.size(); ++i) {
      if ((parts >> i & 1U) == 0) continue;
      if (!seats[i]) return std::nullopt;
      set |= 1U << *seats[i];
    }
    return set;
  };
  const StoredPlan::PlannedWorker& worker = plan.workers[part];
  WorkerPlan table{.seat = seats[part].value_or(0),
                   .workers = 0,
                   .first_kernel = worker.first_kernel,
                   .kernel_count = worker.kernels,
                   .shapes = worker.shapes,
                   .stream = {},
                   .alone_us = worker.alone_us,
                   .slowdown = {}};
  table.stream.resize(1U << PlanTable::max_workers);
  table.slowdown.resize(1U << PlanTable::max_workers);
  for (WorkerSet parts = 1; parts <= plan.rows.size(); ++parts) {
    const auto set = seats_of(parts);
    if (!set) continue;
    table.workers |= *set;
    for (const std::uint32_t stream : plan.rows[parts - 1][part])
      table.stream[*set].push_back(stream == plan.unmasked ? PlanTable::no_mask
                                                           : static_cast<std::uint8_t>(stream));
    if (!plan.slowdown.empty() && !plan.slowdown[parts - 1].empty())
      table.slowdown[*set] = plan.slowdown[parts - 1][part];
  }
  // The one without a mask is the last of all that there may be.
  if (!table.alone_us.empty())
    table.alone_us.insert(table.alone_us.end() - 1, PlanTable::max_streams - table.alone_us.size(),
                          {});
  return table;
}

}  // namespace eclip::planner
