#include "daemon/plan_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <numeric>
#include <system_error>
#include <utility>

#include "daemon/model/data_dir.h"
#include "daemon/topology.h"

namespace eclip::daemon {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// What a worker may say of the times of its requests, relative to its profile.
constexpr double least_factor = 0.1;
constexpr double most_factor = 10;
/// Rates below are all the same to a plan: the worker is hardly ever active.
constexpr double least_rate = 0.1;

/// Levels of a plan's document, with room to spare.
constexpr int deepest = 16;
/// Plans that are ordered at once, and how many more each second: workers may come and go as often
/// as they like.
constexpr double most_orders = 16;
constexpr double orders_per_s = 1;

/// Keys of a document that are eclipd's own, and those of its workers.
constexpr std::array own_keys{"epoch", "made_at", "reason", "pinned", "in_force"};
constexpr std::array own_worker_keys{"worker", "seat"};

/// Slowdowns within this factor say the same.
constexpr double same_slowdown = 1.05;
/// Groups with a smaller share of a request are no reason for a new plan by themselves.
constexpr double large_share = 0.1;

PlanningThread::Settings settings_of(const Config& config, model::GpuDescription gpu,
                                     std::vector<CuMask> pool) {
  std::vector<fs::path> directories(config.planner.profile_dirs.begin(),
                                    config.planner.profile_dirs.end());
  directories.push_back(model::default_data_dir() / "profiles");
  return {.gpu = std::move(gpu),
          .pool = std::move(pool),
          .profile_dirs = std::move(directories),
          .objective = config.planner.objective,
          .time_limit = config.planner.time_limit,
          .simulate = config.planner.simulate};
}

std::string label(WorkerId id, const std::string& name) {
  return fmt::format("worker {} '{}'", id.value, name);
}

/// The factor of each group: the mean over its kernels.
std::vector<double> by_group(const std::vector<KernelFactor>& factors,
                             const planner::StoredPlan::PlannedWorker& worker) {
  std::vector<double> means;
  auto next = factors.begin();
  double factor = 1;
  for (std::size_t g = 0; g < worker.first_kernel.size(); ++g) {
    const std::uint32_t end =
        g + 1 < worker.first_kernel.size() ? worker.first_kernel[g + 1] : worker.kernels;
    double sum = 0;
    for (std::uint32_t k = worker.first_kernel[g]; k < end;) {
      for (; next != factors.end() && next->first_kernel <= k; ++next) factor = next->factor;
      const std::uint32_t until = next == factors.end() ? end : std::min(end, next->first_kernel);
      sum += factor * (until - k);
      k = until;
    }
    means.push_back(sum / (end - worker.first_kernel[g]));
  }
  return means;
}

/// Whether a value has gone from 1 by more than a factor.
bool is_beyond(double value, double factor) {
  return value > factor || value < 1 / factor;
}

bool has_shape(const model::GpuDescription& description, const GpuTopology& gpu) {
  return description.geometry.shader_engines == gpu.shader_engines &&
         description.geometry.cu_count() == gpu.cu_count;
}

}  // namespace

Result<model::GpuDescription> describe_for_plans(const Config& config, const GpuTopology& gpu) {
  const fs::path folder = model::default_data_dir() / "gpus";
  if (!config.planner.gpu.empty()) {
    const bool is_file = config.planner.gpu.find('/') != std::string::npos;
    auto named = model::load_gpu_description(is_file ? fs::path(config.planner.gpu)
                                                     : folder / (config.planner.gpu + ".toml"));
    if (!named) return fail(named.error(), "planner.gpu");
    if (!has_shape(*named, gpu))
      return fail(Errc::invalid_argument,
                  fmt::format("planner.gpu describes {} CUs in {} shader engines, the GPU has {} "
                              "in {}; leave it out, or name a description of this GPU",
                              named->geometry.cu_count(), named->geometry.shader_engines,
                              gpu.cu_count, gpu.shader_engines));
    return named;
  }
  std::vector<fs::path> files;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error))
    if (entry->path().extension() == ".toml") files.push_back(entry->path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    auto description = model::load_gpu_description(file);
    if (!description) return description;
    if (has_shape(*description, gpu)) return description;
  }
  if (gpu.shader_engines == 0 || gpu.cu_count % gpu.shader_engines != 0)
    return fail(Errc::unsupported,
                fmt::format("{} CUs in {} shader engines: no description can have this shape",
                            gpu.cu_count, gpu.shader_engines));
  auto description = model::load_gpu_description(folder / "mi50.toml");
  if (!description) return description;
  description->geometry.shader_engines = gpu.shader_engines;
  description->geometry.cus_per_shader_engine = gpu.cu_count / gpu.shader_engines;
  spdlog::warn(
      "no description in {} has {} CUs in {} shader engines: plans reckon with mi50's costs "
      "(planner.gpu)",
      folder.string(), gpu.cu_count, gpu.shader_engines);
  return description;
}

PlanKeeper::PlanKeeper(const Config& config, model::GpuDescription gpu, std::vector<CuMask> pool,
                       std::atomic<std::uint64_t>& plan_epoch, PlanHistory history,
                       Mailbox& mailbox, ActiveSet* active)
    : config_(config),
      pool_(std::move(pool)),
      cu_count_(gpu.geometry.cu_count()),
      plan_epoch_(plan_epoch),
      active_(active),
      history_(std::move(history)),
      orders_left_(most_orders),
      thread_(settings_of(config, std::move(gpu), pool_), [this, &mailbox](const PlanOrder& order,
                                                                           Result<json> document) {
        mailbox.post([this, order, document = std::move(document)] { planned(order, document); });
      }) {
  const auto pinned = history_.pinned();
  if (!pinned) return;
  const PastPlan* past = history_.find(*pinned);
  auto plan = past ? read(past->document)
                   : Result<planner::StoredPlan>(fail(Errc::not_found, "it is not in the history"));
  if (!plan) {
    spdlog::warn("the pinned plan {} cannot be used any more, plans are automatic again: {}",
                 *pinned, plan.error().message());
    pin(std::nullopt);
    return;
  }
  in_force_ = InForce{.epoch = *pinned, .plan = std::move(*plan)};
  std::vector<WorkerId> nobody(in_force_->plan.workers.size(), WorkerId{0});
  give_seats(nobody);
  plan_epoch_.store(*pinned, std::memory_order_release);
  spdlog::info("plan {} is in force: pinned, {}", *pinned, past->reason);
}

void PlanKeeper::add(Client client) {
  Known known{.client = std::move(client)};
  known.requests_per_s = known.client.requests_per_s;
  for (const PlannedWorker& configured : config_.planner.workers) {
    if (configured.name != known.client.name) continue;
    if (!configured.profile.empty()) known.client.profile = configured.profile;
    if (configured.requests_per_s > 0) known.requests_per_s = configured.requests_per_s;
    known.latency_bound_us = configured.latency_bound_ms * 1000;
    known.weight = configured.weight;
  }
  const WorkerId id = known.client.id;
  const std::string who = label(id, known.client.name);
  Known& added = clients_.emplace(id.value, std::move(known)).first->second;
  if (!is_pinned()) {
    if (clients_.size() > planner::most_workers)
      spdlog::warn("{} has no part in the plan: it has {} workers already", who,
                   planner::most_workers);
    return order(who + " joined");
  }
  if (!take_free_part(added)) publish_again(who + " joined");
  if (!added.part) spdlog::info("{} has no part in the pinned plan {}", who, in_force_->epoch);
}

void PlanKeeper::remove(WorkerId id) {
  const auto found = clients_.find(id.value);
  if (found == clients_.end()) return;
  const std::string who = label(id, found->second.client.name);
  if (const auto seat = found->second.seat; seat && active_ != nullptr)
    active_->workers.fetch_and(~(1U << *seat), std::memory_order_release);
  clients_.erase(found);
  if (!is_pinned() && !clients_.empty()) order(who + " left");
  if (!is_pinned()) return;
  ++changes_;
  bool stays = true;
  for (auto& [other, waiting] : clients_)
    if (!waiting.part) stays = take_free_part(waiting) && stays;
  if (!stays) publish_again(who + " left");
}

std::optional<std::uint32_t> PlanKeeper::seat_of(WorkerId id) const {
  const auto known = clients_.find(id.value);
  return known == clients_.end() ? std::nullopt : known->second.seat;
}

bool PlanKeeper::has_part(WorkerId id) const {
  const auto known = clients_.find(id.value);
  return known != clients_.end() && known->second.part;
}

std::optional<std::uint32_t> PlanKeeper::free_seat() const {
  std::uint32_t taken = 0;
  for (const auto& [id, known] : clients_)
    if (known.seat) taken |= 1U << *known.seat;
  if (in_force_)
    for (const auto& seat : in_force_->seats)
      if (seat) taken |= 1U << *seat;
  const auto seat = static_cast<std::uint32_t>(std::countr_one(taken));
  return seat < PlanTable::max_workers ? std::optional(seat) : std::nullopt;
}

void PlanKeeper::give_seats(std::vector<WorkerId>& ids) {
  auto& seats = in_force_->seats;
  seats.assign(ids.size(), std::nullopt);
  for (std::size_t part = 0; part < ids.size(); ++part) seats[part] = seat_of(ids[part]);
  for (std::size_t part = 0; part < ids.size(); ++part) {
    const auto known = clients_.find(ids[part].value);
    if (seats[part] || known == clients_.end()) continue;
    seats[part] = known->second.seat = free_seat();
    if (seats[part]) continue;
    spdlog::warn(
        "{} has no part in plan {}: {} connected workers have had one, as many as can be told "
        "apart; it gets the part when one of them leaves",
        label(ids[part], known->second.client.name), in_force_->epoch, PlanTable::max_workers);
    ids[part] = WorkerId{0};
  }
  for (auto& seat : seats)
    if (!seat) seat = free_seat();
}

void PlanKeeper::publish_again(std::string reason) {
  const PastPlan* past = history_.find(in_force_->epoch);
  if (past == nullptr) return;  // a pinned plan is always in the history
  std::vector<WorkerId> ids(in_force_->plan.workers.size(), WorkerId{0});
  for (const auto& [id, known] : clients_)
    if (known.part) ids[*known.part] = WorkerId{id};
  pin(put_in_force(planner::StoredPlan(in_force_->plan), json(past->document),
                   fmt::format("plan {} again: {}", past->epoch, reason), std::move(ids)));
}

bool PlanKeeper::take_free_part(Known& known) {
  const auto& workers = in_force_->plan.workers;
  for (std::size_t part = 0; part < workers.size(); ++part) {
    const bool is_taken = std::any_of(clients_.begin(), clients_.end(), [part](const auto& client) {
      return client.second.part == part;
    });
    if (is_taken || !fits(known, workers[part])) continue;
    const auto of_part = in_force_->seats[part];
    if (!known.seat) known.seat = of_part ? of_part : free_seat();
    if (!known.seat) return true;
    known.part = part;
    ++changes_;
    if (known.seat != of_part) {
      in_force_->seats[part] = known.seat;
      return false;
    }
    write_table(known);
    return true;
  }
  return true;
}

bool PlanKeeper::fits(const Known& known, const planner::StoredPlan::PlannedWorker& worker) {
  return worker.profile == known.client.profile &&
         (worker.name == known.client.name || worker.name == worker.profile);
}

void PlanKeeper::look_at_loads() {
  if (is_pinned()) return;
  const double change = 1 + config_.planner.replan_percent / 100.0;
  const auto has_changed = [change](double from, double to) {
    return to > from * change || to < from / change;
  };
  std::string reason = delayed_.value_or("");
  for (Known* each : to_plan()) {
    Known& known = *each;
    const WorkerRequest& said = *known.client.request;
    const std::string who = label(known.client.id, known.client.name);
    const double rate = said.requests_per_1000_s.load(std::memory_order_relaxed) / 1000.0;
    // A rate of 0 in the plan is a closed loop: always active, not hardly ever.
    if (rate > 0 &&
        (known.requests_per_s == 0 ||
         has_changed(std::max(known.requests_per_s, least_rate), std::max(rate, least_rate)))) {
      reason = fmt::format("{} has {:.1f} requests/s, not {:.1f}", who, rate, known.requests_per_s);
      known.requests_per_s = rate;
    }
    const double factor = said.time_permille.load(std::memory_order_relaxed) / 1000.0;
    if (factor > 0 &&
        has_changed(known.times.time_factor, std::clamp(factor, least_factor, most_factor))) {
      known.times.time_factor = std::clamp(factor, least_factor, most_factor);
      reason =
          fmt::format("{} takes {:.2f} of the time of its profile", who, known.times.time_factor);
    }
    if (const auto drifted = follow_drift(known)) reason = who + ": " + *drifted;
  }
  if (!reason.empty()) order(std::move(reason));
}

double PlanKeeper::Drift::mean() const {
  return std::inner_product(of_group.begin(), of_group.end(), share.begin(), 0.0);
}

std::optional<PlanKeeper::Drift> PlanKeeper::drift_of(const Known& known) const {
  if (!known.part) return std::nullopt;
  const planner::StoredPlan::PlannedWorker& worker = in_force_->plan.workers[*known.part];
  const SchedulerReport& report = known.client.request->scheduler;
  const auto is_of_this_plan = [&] {
    return report.drift_epoch.load(std::memory_order_acquire) == in_force_->epoch;
  };
  if (worker.alone_us.empty() || !is_of_this_plan()) return std::nullopt;
  const std::vector<float>& predicted_us = worker.alone_us.back();
  Drift drift{.of_group = std::vector<double>(predicted_us.size(), 1),
              .share = std::vector<double>(predicted_us.size(), 0)};
  double known_us = 0;
  for (std::size_t g = 0; g < predicted_us.size(); ++g) {
    const auto permille = report.group_permille.at(g).load(std::memory_order_acquire);
    if (permille == 0) continue;
    drift.of_group[g] = std::clamp(permille / 1000.0, least_factor, most_factor);
    drift.share[g] = static_cast<double>(predicted_us[g]);
    known_us += drift.share[g];
  }
  if (known_us <= 0 || !is_of_this_plan()) return std::nullopt;
  for (double& share : drift.share) share /= known_us;
  return drift;
}

std::optional<std::string> PlanKeeper::follow_drift(Known& known) const {
  // What is observed of the plan in force says nothing of one that is ordered with other times
  // for the whole request.
  if (!known.times_in_force || known.times_in_force->time_factor != known.times.time_factor)
    return std::nullopt;
  const auto drift = drift_of(known);
  if (!drift) return std::nullopt;
  const planner::StoredPlan::PlannedWorker& worker = in_force_->plan.workers[*known.part];
  const double whole_us =
      std::accumulate(worker.alone_us.back().begin(), worker.alone_us.back().end(), 0.0);
  const auto planned = by_group(known.times_in_force->kernel_factors, worker);
  const auto ordered = by_group(known.times.kernel_factors, worker);
  const double change = 1 + config_.planner.replan_percent / 100.0;
  std::vector<KernelFactor> factors;
  double mean = 0;  // of what would be ordered, relative to what is
  bool is_large = false;
  std::size_t most = 0;  // the group that most of it comes from
  const auto weight = [&](std::size_t group) {
    return drift->share[group] * std::abs(std::log(drift->of_group[group]));
  };
  for (std::size_t g = 0; g < planned.size(); ++g) {
    const double all = known.times.time_factor;
    const double factor =
        std::clamp(all * planned[g] * drift->of_group[g], least_factor, most_factor) / all;
    factors.push_back({.first_kernel = worker.first_kernel[g], .factor = factor});
    mean += drift->share[g] * factor / ordered[g];
    const bool counts = drift->share[g] > 0 &&
                        static_cast<double>(worker.alone_us.back()[g]) >= large_share * whole_us;
    is_large = is_large || (counts && is_beyond(factor / ordered[g], change));
    if (weight(g) > weight(most)) most = g;
  }
  if (!is_large && !is_beyond(mean, change)) return std::nullopt;
  known.times.kernel_factors = std::move(factors);
  return fmt::format("group {} of {} takes {:.2f}x predicted, its requests {:.2f}x", most + 1,
                     planned.size(), drift->of_group[most], drift->mean());
}

std::uint32_t PlanKeeper::drift_permille(WorkerId id) const {
  const auto known = clients_.find(id.value);
  const auto drift = known == clients_.end() ? std::nullopt : drift_of(known->second);
  return drift ? static_cast<std::uint32_t>(std::lround(drift->mean() * 1000)) : 0;
}

std::vector<PlanKeeper::Known*> PlanKeeper::to_plan() {
  std::vector<Known*> chosen;
  for (auto& [id, known] : clients_) chosen.push_back(&known);
  std::stable_partition(chosen.begin(), chosen.end(),
                        [](const Known* known) { return known->seat.has_value(); });
  chosen.resize(std::min(chosen.size(), planner::most_workers));
  std::sort(chosen.begin(), chosen.end(),
            [](const Known* a, const Known* b) { return a->client.id < b->client.id; });
  return chosen;
}

void PlanKeeper::order(std::string reason) {
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> since = now - orders_counted_;
  orders_left_ = std::min(most_orders, orders_left_ + orders_per_s * since.count());
  orders_counted_ = now;
  if (orders_left_ < 1) {
    delayed_ = std::move(reason);
    return;
  }
  orders_left_ -= 1;
  delayed_.reset();
  PlanOrder order{.reason = std::move(reason), .workers = {}};
  for (const Known* known : to_plan())
    order.workers.push_back({.id = known->client.id,
                             .name = known->client.name,
                             .profile = known->client.profile,
                             .requests_per_s = known->requests_per_s,
                             .latency_bound_us = known->latency_bound_us,
                             .weight = known->weight,
                             .time_factor = known->times.time_factor,
                             .kernel_factors = known->times.kernel_factors});
  if (!order.workers.empty()) thread_.order(std::move(order));
}

void PlanKeeper::planned(const PlanOrder& order, const Result<json>& document) {
  if (is_pinned()) return;
  auto plan =
      document ? read(*document) : Result<planner::StoredPlan>(tl::unexpected(document.error()));
  if (!plan) {
    spdlog::error("no plan ({}): {}", order.reason, plan.error().message());
    return;
  }
  std::vector<WorkerId> ids;
  bool same =
      in_force_ && in_force_->plan.acts_as(*plan) && in_force_->plan.slows_as(*plan, same_slowdown);
  for (std::size_t part = 0; part < order.workers.size(); ++part) {
    const auto known = clients_.find(order.workers[part].id.value);
    ids.push_back(known == clients_.end() ? WorkerId{0} : order.workers[part].id);
    same = same && known != clients_.end() && known->second.part == part;
  }
  if (same) {
    spdlog::debug("plan {} stays: {}", in_force_->epoch, order.reason);
    write_down(*document, order.reason);
  } else {
    put_in_force(std::move(*plan), *document, order.reason, std::move(ids));
  }
  for (const WorkerToPlan& each : order.workers)
    if (const auto known = clients_.find(each.id.value); known != clients_.end())
      known->second.times_in_force = {.time_factor = each.time_factor,
                                      .kernel_factors = each.kernel_factors};
}

std::uint64_t PlanKeeper::put_in_force(planner::StoredPlan plan, json document, std::string reason,
                                       std::vector<WorkerId> ids) {
  const std::uint64_t epoch = history_.next_epoch();
  in_force_ = InForce{.epoch = epoch, .plan = std::move(plan)};
  give_seats(ids);
  for (auto& [id, known] : clients_) {
    const auto part = std::find(ids.begin(), ids.end(), WorkerId{id});
    known.part = part == ids.end() ? std::nullopt
                                   : std::optional(static_cast<std::size_t>(part - ids.begin()));
    known.times_in_force.reset();
    write_table(known);
  }
  plan_epoch_.store(epoch, std::memory_order_release);
  spdlog::info("plan {} is in force: {}", epoch, reason);
  write_down(std::move(document), std::move(reason));
  return epoch;
}

void PlanKeeper::write_down(json document, std::string reason) {
  ++changes_;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  for (const char* key : own_keys) document.erase(key);
  for (json& worker : document["workers"])
    for (const char* key : own_worker_keys) worker.erase(key);
  auto kept =
      history_.add({.epoch = in_force_->epoch,
                    .made_at = std::chrono::duration_cast<std::chrono::seconds>(now).count(),
                    .reason = std::move(reason),
                    .document = std::move(document)});
  if (!kept)
    spdlog::warn("plan {} will not outlive eclipd: {}", in_force_->epoch, kept.error().message());
}

void PlanKeeper::write_table(const Known& known) const {
  if (!known.part) return;
  write_plan(*known.client.tables, in_force_->epoch,
             planner::table_of(in_force_->plan, *known.part, in_force_->seats));
}

std::vector<WorkerId> PlanKeeper::parts_by_name(const planner::StoredPlan& plan) const {
  std::vector<WorkerId> ids(plan.workers.size(), WorkerId{0});
  for (const auto& [id, known] : clients_)
    for (std::size_t part = 0; part < ids.size(); ++part) {
      if (ids[part] != WorkerId{0} || !fits(known, plan.workers[part])) continue;
      ids[part] = WorkerId{id};
      break;
    }
  return ids;
}

Result<planner::StoredPlan> PlanKeeper::read(const json& document) const {
  auto plan = planner::parse_plan(document, cu_count_);
  if (!plan) return plan;
  if (plan->pool != pool_)
    return fail(Errc::invalid_argument,
                "the plan is for another pool: its streams must be those of eclipctl stream list, "
                "in that order (eclip-plan plan --pool)");
  for (const auto& worker : plan->workers)
    if (worker.first_kernel.size() > PlanTable::max_groups)
      return fail(Errc::invalid_argument,
                  fmt::format("worker '{}' has {} groups of kernels; at most {} are possible "
                              "(eclip-plan plan --group-us)",
                              worker.name, worker.first_kernel.size(), PlanTable::max_groups));
  return plan;
}

void PlanKeeper::pin(std::optional<std::uint64_t> epoch) {
  ++changes_;
  if (auto kept = history_.pin(epoch); !kept)
    spdlog::warn("what is pinned will not outlive eclipd: {}", kept.error().message());
}

Result<json> PlanKeeper::document(std::uint64_t epoch) const {
  if (epoch == 0 && !in_force_)
    return fail(Errc::not_found, "there is no plan yet: no worker has connected");
  const PastPlan* past = history_.find(epoch == 0 ? in_force_->epoch : epoch);
  if (past == nullptr)
    return fail(
        Errc::not_found,
        fmt::format("plan {} is not in the history; eclipctl plan history lists what is", epoch));
  json document = past->document;
  document["epoch"] = past->epoch;
  document["made_at"] = past->made_at;
  document["reason"] = past->reason;
  document["pinned"] = history_.pinned() == past->epoch;
  const bool is_in_force = in_force_ && in_force_->epoch == past->epoch;
  document["in_force"] = is_in_force;
  if (!is_in_force) return document;
  json& workers = document["workers"];  // as many as the plan's: it has been read
  for (std::size_t part = 0; part < workers.size(); ++part)
    workers[part]["worker"] = workers[part]["seat"] = nullptr;
  for (const auto& [id, known] : clients_) {
    if (!known.part) continue;
    workers[*known.part]["worker"] = id;
    workers[*known.part]["seat"] = *known.seat;
  }
  return document;
}

Result<const std::string*> PlanKeeper::text(std::uint64_t epoch) {
  if (asked_.epoch == epoch && asked_.changes == changes_) return &asked_.text;
  const auto asked = document(epoch);
  if (!asked) return tl::unexpected(asked.error());
  asked_ = {.text = asked->dump(1, ' ', false, json::error_handler_t::replace),
            .epoch = epoch,
            .changes = changes_};
  return &asked_.text;
}

std::vector<PlanRecord> PlanKeeper::records() const {
  std::vector<PlanRecord> records;
  for (const PastPlan& past : history_.plans()) {
    PlanRecord& record = records.emplace_back();
    record.epoch = past.epoch;
    record.made_at = static_cast<std::uint64_t>(past.made_at);
    const auto value = past.document.find("value");
    if (value != past.document.end() && value->is_number()) record.value = value->get<double>();
    record.in_force = in_force_ && in_force_->epoch == past.epoch ? 1 : 0;
    record.pinned = history_.pinned() == past.epoch ? 1 : 0;
    record.reason.assign(past.reason);
    std::string names;
    const auto workers = past.document.find("workers");
    if (workers != past.document.end() && workers->is_array())
      for (const json& worker : *workers) {
        const auto name = worker.is_object() ? worker.find("name") : worker.end();
        if (name != worker.end() && name->is_string())
          names += (names.empty() ? "" : ", ") + name->get<std::string>();
        ++record.workers;
      }
    record.names.assign(names);
  }
  return records;
}

Result<std::uint64_t> PlanKeeper::apply(std::string_view text, const std::string& who) {
  json document;
  try {
    // What is nested deeper than anything in a plan is left out.
    document = json::parse(
        text, [](int depth, json::parse_event_t, const json&) { return depth <= deepest; });
  } catch (const json::exception& error) {  // also numbers that are too large
    return fail(Errc::malformed, "the plan is no JSON: " + std::string(error.what()));
  }
  auto plan = read(document);
  if (!plan) return tl::unexpected(plan.error());
  auto ids = parts_by_name(*plan);
  const auto epoch =
      put_in_force(std::move(*plan), std::move(document), "applied by " + who, std::move(ids));
  pin(epoch);
  return epoch;
}

Result<std::uint64_t> PlanKeeper::choose(const PlanChoice& choice, const std::string& who) {
  const std::uint64_t now = in_force_ ? in_force_->epoch : 0;
  switch (choice.action) {
    case PlanChoice::unpin:
      pin(std::nullopt);
      order("automatic again, by " + who);
      return now;
    case PlanChoice::replan:
      if (is_pinned())
        return fail(Errc::invalid_argument,
                    fmt::format("plan {} is pinned; eclipctl plan auto makes plans automatic "
                                "again",
                                *history_.pinned()));
      if (clients_.empty())
        return fail(Errc::not_found, "no worker is connected: there is nothing to plan");
      order("asked for by " + who);
      return now;
    case PlanChoice::pin:
      break;
    default:
      return fail(Errc::malformed, fmt::format("choose_plan has no action {}", choice.action));
  }
  const auto& plans = history_.plans();
  const PastPlan* past = history_.find(choice.epoch);
  if (choice.epoch == 0) {
    const auto before = std::find_if(plans.rbegin(), plans.rend(),
                                     [&](const PastPlan& plan) { return plan.epoch < now; });
    past = before == plans.rend() ? nullptr : &*before;
  }
  if (past == nullptr)
    return fail(Errc::not_found, choice.epoch == 0
                                     ? "there is no plan before the one in force"
                                     : fmt::format("plan {} is not in the history; eclipctl plan "
                                                   "history lists what is",
                                                   choice.epoch));
  auto plan = read(past->document);
  if (!plan) return tl::unexpected(plan.error());
  auto ids = parts_by_name(*plan);
  const auto epoch =
      put_in_force(std::move(*plan), json(past->document),
                   fmt::format("plan {} again, by {}", past->epoch, who), std::move(ids));
  pin(epoch);
  return epoch;
}

}  // namespace eclip::daemon
