#include "daemon/config.h"

#include <fmt/format.h>

#include <array>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include <toml++/toml.h>

#include "daemon/planner/plan_document.h"
#include "daemon/profile_library.h"
#include "daemon/topology.h"
#include "ipc/board.h"

namespace eclip::daemon {
namespace {

/// Takes keys out of a TOML table one by one, remembering the first error and which keys are known.
class TableReader {
 public:
  TableReader(const toml::table& root, std::string name, std::string source)
      : name_(std::move(name)), source_(std::move(source)) {
    const toml::node* node = root.get(name_);
    if (node == nullptr) return;
    table_ = node->as_table();
    if (table_ == nullptr) set_error(*node, "[" + name_ + "] must be a table");
  }
  /// One table of an array of tables.
  TableReader(const toml::node& node, std::string name, std::string source)
      : name_(std::move(name)), source_(std::move(source)), table_(node.as_table()) {
    if (table_ == nullptr) set_error(node, "[[" + name_ + "]] must be tables");
  }

  void read(std::string_view key, std::string& value, std::initializer_list<const char*> allowed) {
    const toml::node* node = take(key);
    if (node == nullptr) return;
    const auto text = node->value<std::string>();
    if (!text) return set_error(*node, path(key) + " must be a string");
    if (allowed.size() > 0 && std::find(allowed.begin(), allowed.end(), *text) == allowed.end()) {
      std::string list;
      for (const char* each : allowed) list += (list.empty() ? "" : ", ") + std::string(each);
      return set_error(*node, path(key) + " = \"" + *text + "\" is not one of: " + list);
    }
    value = *text;
  }

  void read(std::string_view key, std::int64_t minimum, std::int64_t maximum, auto&& set) {
    const toml::node* node = take(key);
    if (node == nullptr) return;
    const auto number = node->value_exact<std::int64_t>();
    if (!number || *number < minimum || *number > maximum)
      return set_error(*node, path(key) + " must be an integer from " + std::to_string(minimum) +
                                  " to " + std::to_string(maximum));
    set(*number);
  }

  void read(std::string_view key, double minimum, double maximum, double& value) {
    const toml::node* node = take(key);
    if (node == nullptr) return;
    const auto number = node->value<double>();
    if (!number || !(*number >= minimum && *number <= maximum))
      return set_error(
          *node, fmt::format("{} must be a number from {} to {}", path(key), minimum, maximum));
    value = *number;
  }

  void read(std::string_view key, bool& value) {
    const toml::node* node = take(key);
    if (node == nullptr) return;
    const auto boolean = node->value_exact<bool>();
    if (!boolean) return set_error(*node, path(key) + " must be true or false");
    value = *boolean;
  }

  void read(std::string_view key, std::vector<std::string>& value) {
    const toml::node* node = take(key);
    if (node == nullptr) return;
    const auto* array = node->as_array();
    if (array == nullptr) return set_error(*node, path(key) + " must be an array of strings");
    value.clear();
    for (const auto& element : *array) {
      const auto text = element.value<std::string>();
      if (!text) return set_error(element, path(key) + " must be an array of strings");
      value.push_back(*text);
    }
    if (value.empty()) set_error(*node, path(key) + " is empty; leave it out for the default");
  }

  /// The key is read by others.
  void know(std::string_view key) { known_.emplace(key); }

  void refuse(const std::string& text) {
    if (table_ != nullptr) set_error(*table_, text);
  }

  /// The first error, which may be a key that nobody asked for.
  Result<void> finish() {
    if (table_ != nullptr) {
      for (const auto& [key, node] : *table_) {
        if (known_.contains(std::string(key.str()))) continue;
        std::string list;
        for (const auto& each : known_) list += (list.empty() ? "" : ", ") + each;
        set_error(node, "unknown key " + path(key.str()) + "; [" + name_ + "] has: " + list);
      }
    }
    if (error_.empty()) return {};
    return fail(Errc::invalid_argument, error_);
  }

 private:
  [[nodiscard]] std::string path(std::string_view key) const {
    return name_ + "." + std::string(key);
  }
  const toml::node* take(std::string_view key) {
    known_.emplace(key);
    return table_ == nullptr ? nullptr : table_->get(key);
  }
  void set_error(const toml::node& node, const std::string& text) {
    if (error_.empty())
      error_ = source_ + ":" + std::to_string(node.source().begin.line) + ": " + text;
  }

  std::string name_;
  std::string source_;
  const toml::table* table_ = nullptr;
  std::set<std::string> known_;
  std::string error_;
};

void read_limits(TableReader& table, UidLimits& limits) {
  const auto read = [&](const char* key, std::int64_t minimum, std::int64_t maximum,
                        std::uint32_t& value) {
    table.read(key, minimum, maximum, [&](auto n) { value = static_cast<std::uint32_t>(n); });
  };
  read("max_workers", 0, 120, limits.max_workers);
  read("max_leases", 0, 65536, limits.max_leases);
  read("max_share_percent", 1, 100, limits.max_share_percent);
  std::string priority;
  table.read("max_priority", priority, {"low", "normal", "high"});
  if (!priority.empty())
    limits.max_priority = priority == "low"      ? LeasePriority::low
                          : priority == "normal" ? LeasePriority::normal
                                                 : LeasePriority::high;
}

/// The [[limits]] tables.
Result<void> read_users(const toml::table& root, const std::string& source, Config& config) {
  const toml::node* node = root.get("limits");
  if (node == nullptr) return {};
  const toml::array* users = node->as_array();
  if (users == nullptr)
    return fail(Errc::invalid_argument, source + ":" + std::to_string(node->source().begin.line) +
                                            ": limits must be an array of tables: [[limits]]");
  for (const auto& user : *users) {
    TableReader table(user, "limits", source);
    std::optional<std::uint32_t> uid;
    table.read("uid", 0, UINT32_MAX, [&](auto n) { uid = static_cast<std::uint32_t>(n); });
    UidLimits limits = config.leases.limits;
    read_limits(table, limits);
    if (!uid)
      table.refuse("[[limits]] without a uid");
    else if (!config.limits.emplace(*uid, limits).second)
      table.refuse("a second [[limits]] of uid " + std::to_string(*uid) + "; keep one");
    if (auto finished = table.finish(); !finished) return finished;
  }
  return {};
}

void read_planner(TableReader& table, Config& config) {
  auto& planner = config.planner;
  table.read("enabled", planner.enabled);
  std::string objective;
  table.read("objective", objective, {"latency", "throughput", "energy"});
  planner.objective = planner::objective_of(objective).value_or(planner.objective);
  table.read("gpu", planner.gpu, {});
  table.read("profile_dirs", planner.profile_dirs);
  std::string state_dir = planner.state_dir.string();
  table.read("state_dir", state_dir, {});
  planner.state_dir = state_dir;
  table.read("time_limit_ms", 10, 600'000,
             [&](auto n) { planner.time_limit = std::chrono::milliseconds(n); });
  table.read("simulate", planner.simulate);
  table.read("replan_percent", 1, 1000,
             [&](auto n) { planner.replan_percent = static_cast<std::uint32_t>(n); });
  table.know("workers");
}

/// The [[planner.workers]] tables.
Result<void> read_planned_workers(const toml::table& root, const std::string& source,
                                  Config& config) {
  const toml::node* node = root["planner"]["workers"].node();
  if (node == nullptr) return {};
  const toml::array* workers = node->as_array();
  if (workers == nullptr)
    return fail(Errc::invalid_argument,
                source + ":" + std::to_string(node->source().begin.line) +
                    ": planner.workers must be an array of tables: [[planner.workers]]");
  for (const auto& each : *workers) {
    TableReader table(each, "planner.workers", source);
    PlannedWorker worker;
    table.read("name", worker.name, {});
    table.read("profile", worker.profile, {});
    table.read("requests_per_s", 0, 1e6, worker.requests_per_s);
    table.read("latency_bound_ms", 0, 1e6, worker.latency_bound_ms);
    table.read("weight", 0.01, 100, worker.weight);
    if (worker.name.empty()) table.refuse("[[planner.workers]] without a name");
    if (!worker.profile.empty() && !is_profile_name(worker.profile))
      table.refuse("planner.workers.profile = \"" + worker.profile +
                   "\" is no name of a profile: letters, digits, '.', '_', '+', '-'");
    for (const PlannedWorker& other : config.planner.workers)
      if (other.name == worker.name)
        table.refuse("a second [[planner.workers]] of '" + worker.name + "'; keep one");
    if (auto finished = table.finish(); !finished) return finished;
    config.planner.workers.push_back(std::move(worker));
  }
  return {};
}

Result<void> check_stream_syntax(const Config& config, const std::string& source) {
  if (config.pool.streams.size() > Board::max_streams)
    return fail(Errc::budget_exceeded,
                source + ": pool.streams lists " + std::to_string(config.pool.streams.size()) +
                    " CU-masked streams; the budget of a GPU is " +
                    std::to_string(Board::max_streams) + ": remove " +
                    std::to_string(config.pool.streams.size() - Board::max_streams));
  for (std::size_t i = 0; i < config.pool.streams.size(); ++i) {
    if (auto entries = parse_hsa_cu_mask(config.pool.streams[i]);
        !entries || entries->size() != 1 || entries->front().gpus != std::vector<std::uint32_t>{0})
      return fail(Errc::invalid_argument,
                  source + ": pool.streams[" + std::to_string(i) + "] = \"" +
                      config.pool.streams[i] + "\": " +
                      (entries ? "exactly one CU set for GPU 0 is expected, as in \"0:0-14\""
                               : entries.error().message()));
  }
  return {};
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& source) {
  toml::table root;
  try {
    root = toml::parse(text, source);
  } catch (const toml::parse_error& error) {
    return fail(Errc::malformed, source + ":" + std::to_string(error.source().begin.line) + ": " +
                                     std::string(error.description()));
  }
  Config config;
  std::string layout;
  std::string socket = config.daemon.socket.string();

  TableReader daemon(root, "daemon", source);
  daemon.read("socket", socket, {});
  daemon.read("socket_group", config.daemon.socket_group, {});
  daemon.read("log_level", config.daemon.log_level,
              {"trace", "debug", "info", "warning", "error", "critical"});
  daemon.read("sandbox", config.daemon.sandbox);
  TableReader gpu(root, "gpu", source);
  gpu.read("node", 0, 255, [&](auto n) { config.gpu.node = static_cast<std::uint32_t>(n); });
  TableReader pool(root, "pool", source);
  pool.read("layout", layout, {"tree"});
  pool.read("streams", config.pool.streams);
  TableReader workers(root, "workers", source);
  workers.read("max_workers", 1, 120,
               [&](auto n) { config.workers.max_workers = static_cast<std::uint32_t>(n); });
  workers.read("max_memory_mib", 1, 1 << 24, [&](auto n) {
    config.workers.max_memory_bytes = static_cast<std::uint64_t>(n) << 20;
  });
  workers.read("max_memory_objects", 1, 65536,
               [&](auto n) { config.workers.max_memory_objects = static_cast<std::uint32_t>(n); });
  workers.read("max_kernels", 1, 1 << 20,
               [&](auto n) { config.workers.max_kernels = static_cast<std::uint32_t>(n); });
  TableReader leases(root, "leases", source);
  leases.read("grace_ms", 0, 3'600'000,
              [&](auto n) { config.leases.grace = std::chrono::milliseconds(n); });
  leases.read("claim_ms", 1, 60'000,
              [&](auto n) { config.leases.claim = std::chrono::milliseconds(n); });
  leases.read("preempt", config.leases.preempt);
  leases.read("max_holders_per_stream", 1, 16, [&](auto n) {
    config.leases.max_holders_per_stream = static_cast<std::uint32_t>(n);
  });
  read_limits(leases, config.leases.limits);
  TableReader forwarder(root, "forwarder", source);
  forwarder.read("spin_us", 0, 1'000'000,
                 [&](auto n) { config.forwarder.spin = std::chrono::microseconds(n); });
  forwarder.read("nap_us", 1, 1'000'000,
                 [&](auto n) { config.forwarder.nap = std::chrono::microseconds(n); });
  forwarder.read("patience_ms", 0, 60'000,
                 [&](auto n) { config.forwarder.patience = std::chrono::milliseconds(n); });
  forwarder.read("watchdog_s", 0, 86'400,
                 [&](auto n) { config.forwarder.watchdog = std::chrono::seconds(n); });
  TableReader budget(root, "budget", source);
  std::string policy;
  budget.read("policy", policy, {"off", "audit", "enforce"});
  if (!policy.empty())
    config.budget.policy = policy == "off"     ? BudgetTier::off
                           : policy == "audit" ? BudgetTier::audit
                                               : BudgetTier::enforce;
  budget.read("gate_drm_devices", config.budget.gate_drm_devices);
  TableReader planner(root, "planner", source);
  read_planner(planner, config);
  TableReader probes(root, "probes", source);
  probes.read("measure_ioctls", config.probes.measure_ioctls);

  for (auto* table :
       {&daemon, &gpu, &pool, &workers, &leases, &forwarder, &budget, &planner, &probes})
    if (auto finished = table->finish(); !finished) return tl::unexpected(finished.error());
  if (auto read = read_planned_workers(root, source, config); !read)
    return tl::unexpected(read.error());
  if (auto read = read_users(root, source, config); !read) return tl::unexpected(read.error());
  constexpr std::array known_tables{"daemon",    "gpu",    "pool",    "workers", "leases",
                                    "forwarder", "budget", "planner", "probes",  "limits"};
  for (const auto& [key, node] : root) {
    if (std::find(known_tables.begin(), known_tables.end(), key.str()) == known_tables.end())
      return fail(Errc::invalid_argument,
                  source + ":" + std::to_string(node.source().begin.line) +
                      ": unknown table or key '" + std::string(key.str()) +
                      "'; there are: [daemon], [gpu], [pool], [workers], [leases], [[limits]], "
                      "[forwarder], [budget], [planner], [[planner.workers]], [probes]");
  }
  if (!layout.empty() && !config.pool.streams.empty())
    return fail(Errc::invalid_argument,
                source + ": pool.layout and pool.streams exclude each other; keep one");
  if (!config.planner.state_dir.is_absolute())
    return fail(Errc::invalid_argument, source + ": planner.state_dir must be an absolute path");
  if (socket.empty() || socket.front() != '/')
    return fail(Errc::invalid_argument, source + ": daemon.socket must be an absolute path");
  config.daemon.socket = socket;
  if (auto checked = check_stream_syntax(config, source); !checked)
    return tl::unexpected(checked.error());
  return config;
}

const UidLimits& limits_of(const Config& config, std::uint32_t uid) {
  const auto found = config.limits.find(uid);
  return found == config.limits.end() ? config.leases.limits : found->second;
}

Result<Config> load_config(const std::filesystem::path& file) {
  std::ifstream stream(file);
  if (!stream) return fail_errno(errno, "open the configuration " + file.string());
  std::ostringstream text;
  text << stream.rdbuf();
  return parse_config(text.str(), file.string());
}

Result<std::vector<CuMask>> pool_masks(const Config& config, const GpuTopology& gpu) {
  if (config.pool.streams.empty()) return binary_tree_masks(gpu);
  std::vector<CuMask> masks;
  for (std::size_t i = 0; i < config.pool.streams.size(); ++i) {
    const std::string where =
        "pool.streams[" + std::to_string(i) + "] = \"" + config.pool.streams[i] + "\"";
    const auto entries = parse_hsa_cu_mask(config.pool.streams[i]);
    if (!entries) return fail(entries.error(), where);
    auto mask = CuMask::parse(entries->front().cu_list, gpu.cu_count);
    if (!mask) return fail(mask.error(), where);
    if (mask->empty())
      return fail(Errc::invalid_argument,
                  where + " has no CU: a queue on it would hang; name at least one");
    masks.push_back(std::move(*mask));
  }
  return masks;
}

}  // namespace eclip::daemon
