#include "daemon/model/gpu_description.h"

#include <toml++/toml.h>
#include <array>
#include <cmath>
#include <concepts>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>

#include "ipc/read_file.h"

namespace eclip::model {
namespace {

/// Reads one table of the file key by key; the first error stays. A key that nobody read when
/// finish() is called is unknown.
class TableReader {
 public:
  TableReader(const toml::table* table, std::string where, std::optional<Error>& error)
      : table_(table), where_(std::move(where)), error_(error) {}

  [[nodiscard]] bool has(std::string_view key) const {
    return table_ != nullptr && table_->contains(key);
  }

  void read(std::string_view key, std::string& out) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto value = node->value_exact<std::string>();
    if (!value || value->empty()) return report(key, "a text that is not empty");
    out = *value;
  }

  template <std::unsigned_integral T>
  void read(std::string_view key, T& out, std::type_identity_t<T> least,
            std::type_identity_t<T> most) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    const auto value = node->value_exact<std::int64_t>();
    if (!value || *value < 0 || static_cast<std::uint64_t>(*value) < least ||
        static_cast<std::uint64_t>(*value) > most)
      return report(key,
                    "an integer from " + std::to_string(least) + " to " + std::to_string(most));
    out = static_cast<T>(*value);
  }

  void read(std::string_view key, double& out, double least, double most) {
    const toml::node* node = find(key);
    if (node == nullptr) return;
    std::optional<double> value = node->value_exact<double>();
    if (const auto integer = node->value_exact<std::int64_t>())
      value = static_cast<double>(*integer);
    if (!value || !(*value >= least && *value <= most))
      return report(key, "a number from " + toml_text(least) + " to " + toml_text(most));
    out = *value;
  }

  /// The table under `key`; a reader of nothing when it is missing, which finish() then reports.
  TableReader table(std::string_view key) {
    const toml::node* node = find(key);
    const toml::table* inner = node == nullptr ? nullptr : node->as_table();
    if (node != nullptr && inner == nullptr) report(key, "a table");
    return TableReader(inner, where_ + std::string(key) + ".", error_);
  }

  void finish() {
    if (table_ == nullptr) return;
    for (const auto& [key, node] : *table_)
      if (!read_.contains(key.str()) && !error_)
        set_error("unknown key '" + where_ + std::string(key.str()) +
                  "'; remove it or correct its spelling");
  }

 private:
  const toml::node* find(std::string_view key) {
    read_.emplace(key);
    if (table_ == nullptr) return nullptr;
    const toml::node* node = table_->get(key);
    if (node == nullptr && !error_)
      set_error("key '" + where_ + std::string(key) + "' is missing; add it");
    return node;
  }
  void report(std::string_view key, const std::string& expected) {
    if (!error_) set_error("key '" + where_ + std::string(key) + "' must be " + expected);
  }
  void set_error(std::string context) {
    error_ = Error{make_error_code(Errc::malformed), std::move(context)};
  }
  static std::string toml_text(double value) {
    std::string text = std::to_string(value);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
    return text;
  }

  const toml::table* table_;
  std::string where_;
  std::optional<Error>& error_;
  std::set<std::string, std::less<>> read_;
};

void read_geometry(TableReader table, GpuDescription::Geometry& geometry) {
  table.read("shader_engines", geometry.shader_engines, 1, CuMask::max_size);
  table.read("cus_per_shader_engine", geometry.cus_per_shader_engine, 1, CuMask::max_size);
  if (table.has("xccs")) table.read("xccs", geometry.xccs, 1, CuMask::max_size);
  table.read("threads_per_cu", geometry.threads_per_cu, 1, 65536);
  table.read("workgroups_per_cu", geometry.workgroups_per_cu, 1, 65536);
  table.read("registers_per_cu", geometry.registers_per_cu, 1, 1U << 24U);
  table.read("local_memory_per_cu", geometry.local_memory_per_cu, 1, 1U << 24U);
  table.finish();
}

void read_timing(TableReader table, GpuDescription::Timing& timing) {
  constexpr double longest_us = 1e6;
  table.read("launch_gap_us", timing.launch_gap_us, 0, longest_us);
  table.read("barrier_us", timing.barrier_us, 0, longest_us);
  table.read("memory_contention", timing.memory_contention, 0, 10);
  table.read("full_speed_slack", timing.full_speed_slack, 0, 10);
  table.read("load_exponent", timing.load_exponent, 0, 1);
  table.read("overlap_gain", timing.overlap_gain, 0, 1);
  table.read("full_slots_share", timing.full_slots_share, 0.01, 1);
  table.read("connections", timing.connections, 1, 1024);
  table.read("connection_slice_us", timing.connection_slice_us, 1, 1e9);
  table.read("queue_change_p50_us", timing.queue_change_p50_us, 0, longest_us);
  table.read("queue_change_p99_us", timing.queue_change_p99_us, 0, longest_us);
  table.finish();
}

void read_power(TableReader table, GpuDescription::Power& power) {
  constexpr double most_watts = 1e5;
  table.read("idle_watts", power.idle_watts, 0, most_watts);
  table.read("cu_active_watts", power.cu_active_watts, 0, most_watts);
  table.read("memory_watts", power.memory_watts, 0, most_watts);
  table.finish();
}

void read_memory(TableReader table, GpuDescription::Memory& memory) {
  constexpr double slowest = 1e-3;
  constexpr double fastest = 1e5;
  table.read("vram_gb_per_s", memory.vram_gb_per_s, slowest, fastest);
  table.read("host_link_gb_per_s", memory.host_link_gb_per_s, slowest, fastest);
  table.read("sdma_gb_per_s", memory.sdma_gb_per_s, slowest, fastest);
  table.finish();
}

void read_topology(TableReader table, GpuDescription::Topology& topology) {
  constexpr auto any32 = std::numeric_limits<std::uint32_t>::max();
  table.read("gfx_target_version", topology.gfx_target_version, 0, any32);
  table.read("device_id", topology.device_id, 0, 0xFFFF);
  table.read("revision_id", topology.revision_id, 0, 0xFF);
  table.read("vram_bytes", topology.vram_bytes, 1, 1ULL << 50U);
  table.read("max_clock_mhz", topology.max_clock_mhz, 1, 100000);
  table.read("gpu_counter_khz", topology.gpu_counter_khz, 1, 100000000);
  table.read("num_cp_queues", topology.num_cp_queues, 1, 4096);
  table.finish();
}

}  // namespace

Result<GpuDescription> load_gpu_description(const std::filesystem::path& file) {
  const std::string where = "GPU description " + file.string();
  const auto content = read_file(file);
  if (!content) return fail(content.error(), where);
  toml::table root;
  try {
    root = toml::parse(*content, file.string());
  } catch (const toml::parse_error& error) {
    return fail(Errc::malformed, where + ", line " + std::to_string(error.source().begin.line) +
                                     ": " + std::string(error.description()));
  }
  std::optional<Error> error;
  GpuDescription gpu;
  TableReader reader(&root, "", error);
  reader.read("name", gpu.name);
  reader.read("marketing_name", gpu.marketing_name);
  read_geometry(reader.table("geometry"), gpu.geometry);
  read_timing(reader.table("timing"), gpu.timing);
  read_power(reader.table("power"), gpu.power);
  read_memory(reader.table("memory"), gpu.memory);
  read_topology(reader.table("topology"), gpu.topology);
  reader.finish();
  if (error) return fail(std::move(*error), where);
  if (std::uint64_t{gpu.geometry.shader_engines} * gpu.geometry.cus_per_shader_engine >
      CuMask::max_size)
    return fail(Errc::malformed, where + ": geometry.shader_engines x " +
                                     "geometry.cus_per_shader_engine must be at most " +
                                     std::to_string(CuMask::max_size));
  if (gpu.timing.queue_change_p99_us < gpu.timing.queue_change_p50_us)
    return fail(Errc::malformed, where + ": timing.queue_change_p99_us must be at least " +
                                     "timing.queue_change_p50_us");
  return gpu;
}

}  // namespace eclip::model
