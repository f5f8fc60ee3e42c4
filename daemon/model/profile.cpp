#include "daemon/model/profile.h"

#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "ipc/read_file.h"

namespace eclip::model {
namespace {

using Json = nlohmann::json;

constexpr std::string_view schema = "eclip.profile/1";
constexpr std::array<std::string_view, 6> columns{"name_index",
                                                  "workgroups",
                                                  "workgroup_size",
                                                  "registers_per_thread",
                                                  "dynamic_shared_memory_bytes",
                                                  "time_us_at_cu_counts"};

/// Thrown only within this file, so that the reader of a deep structure stays readable.
struct Malformed {
  std::string what;
};

const Json& member(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end())
    throw Malformed{"key '" + std::string(key) + "' is missing; measure the profile again"};
  return *found;
}

std::string text(const Json& object, const char* key) {
  const Json& value = member(object, key);
  if (!value.is_string()) throw Malformed{"key '" + std::string(key) + "' must be a text"};
  return value.get<std::string>();
}

std::uint32_t count(const Json& value, const std::string& what, std::uint32_t least) {
  if (!value.is_number_integer() || value < least || value > 0xFFFFFFFFU)
    throw Malformed{what + " must be an integer of at least " + std::to_string(least)};
  return value.get<std::uint32_t>();
}

double time_us(const Json& value, const std::string& what) {
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() <= 0)
    throw Malformed{what + " must be a positive time in microseconds"};
  return value.get<double>();
}

const Json& array(const Json& object, const char* key) {
  const Json& value = member(object, key);
  if (!value.is_array() || value.empty())
    throw Malformed{"key '" + std::string(key) + "' must be a list that is not empty"};
  return value;
}

void check_header(const Json& root) {
  if (!root.is_object()) throw Malformed{"it is not a JSON object"};
  const std::string found = text(root, "schema");
  if (found != schema)
    throw Malformed{"its schema is '" + found + "', not '" + std::string(schema) +
                    "'; convert it or measure it again"};
  const Json& names = array(root, "columns");
  for (std::size_t i = 0; i < columns.size(); ++i)
    if (i >= names.size() || names[i] != columns[i])
      throw Malformed{"column " + std::to_string(i) + " must be '" + std::string(columns[i]) + "'"};
  if (names.size() != columns.size())
    throw Malformed{"it has " + std::to_string(names.size()) + " columns; the schema has " +
                    std::to_string(columns.size())};
}

std::vector<std::uint32_t> read_cu_counts(const Json& root) {
  std::vector<std::uint32_t> counts;
  for (const Json& value : array(root, "cu_counts")) {
    counts.push_back(count(value, "each of 'cu_counts'", 1));
    if (counts.size() > 1 && counts[counts.size() - 2] >= counts.back())
      throw Malformed{"'cu_counts' must be in ascending order"};
  }
  return counts;
}

std::map<std::uint32_t, double> read_request_times(const Json& root) {
  constexpr const char* key = "request_us_at_cu_counts";
  const Json& object = member(root, key);
  if (!object.is_object()) throw Malformed{"key '" + std::string(key) + "' must be an object"};
  std::map<std::uint32_t, double> times;
  for (const auto& [name, value] : object.items()) {
    std::uint32_t cus = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), cus);
    if (error != std::errc{} || end != name.data() + name.size() || cus == 0)
      throw Malformed{"'" + name + "' in '" + key + "' is not a number of compute units"};
    times[cus] = time_us(value, "the request time at " + name + " compute units");
  }
  return times;
}

ProfiledKernel read_kernel(const Json& row, const Json& names,
                           const std::vector<std::uint32_t>& cu_counts) {
  if (!row.is_array() || row.size() != columns.size())
    throw Malformed{"a row must have " + std::to_string(columns.size()) + " columns"};
  const std::uint32_t name = count(row[0], "name_index", 0);
  if (name >= names.size() || !names[name].is_string())
    throw Malformed{"name_index " + std::to_string(name) + " names nothing in 'kernel_names'"};
  const LaunchShape shape{.workgroups = count(row[1], "workgroups", 0),
                          .workgroup_size = count(row[2], "workgroup_size", 0),
                          .registers_per_thread = count(row[3], "registers_per_thread", 0),
                          .local_memory_bytes = count(row[4], "dynamic_shared_memory_bytes", 0)};
  const Json& times = row[5];
  if (!times.is_array() || times.size() != cu_counts.size())
    throw Malformed{"it must have " + std::to_string(cu_counts.size()) +
                    " times, one for each of 'cu_counts'"};
  std::vector<TimePoint> points;
  points.reserve(cu_counts.size());
  for (std::size_t i = 0; i < cu_counts.size(); ++i)
    points.push_back({cu_counts[i], time_us(times[i], "time " + std::to_string(i))});
  auto kernel = Kernel::create(shape, points);
  if (!kernel) throw Malformed{kernel.error().context};
  return {names[name].get<std::string>(), std::move(*kernel)};
}

/// The keys that a profile need not have.
void read_constraints(const Json& root, Profile& profile) {
  if (const auto uniform = root.find("uniform"); uniform != root.end()) {
    if (!uniform->is_boolean()) throw Malformed{"key 'uniform' must be true or false"};
    profile.uniform = uniform->get<bool>();
  }
  if (!root.contains("stay_together")) return;
  for (const Json& range : array(root, "stay_together")) {
    const std::string what =
        "range " + std::to_string(profile.stay_together.size()) + " of 'stay_together'";
    if (!range.is_array() || range.size() != 2)
      throw Malformed{what + " must be [first kernel, last kernel]"};
    const KernelRange read{.first = count(range[0], "the first of " + what, 0),
                           .last = count(range[1], "the last of " + what, 0)};
    if (read.first > read.last || read.last >= profile.kernels.size())
      throw Malformed{what + " is [" + std::to_string(read.first) + ", " +
                      std::to_string(read.last) + "]; the kernels are 0 to " +
                      std::to_string(profile.kernels.size() - 1) + ", and first is before last"};
    profile.stay_together.push_back(read);
  }
}

Profile read_profile(const Json& root) {
  check_header(root);
  Profile profile;
  profile.model = text(root, "model");
  profile.batch = count(member(root, "batch"), "'batch'", 1);
  const Json& device = member(root, "device");
  if (!device.is_object()) throw Malformed{"key 'device' must be an object"};
  profile.device_name = text(device, "name");
  profile.device_compute_units = count(member(device, "compute_units"), "'compute_units'", 1);
  profile.cu_counts = read_cu_counts(root);
  profile.request_us_at_cu_counts = read_request_times(root);
  profile.request_us_unmasked =
      time_us(member(root, "request_us_unmasked"), "'request_us_unmasked'");
  const Json& names = array(root, "kernel_names");
  const Json& rows = array(root, "kernels");
  profile.kernels.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    try {
      profile.kernels.push_back(read_kernel(rows[i], names, profile.cu_counts));
    } catch (Malformed& malformed) {
      throw Malformed{"kernel " + std::to_string(i) + ": " + malformed.what +
                      "; correct the row or measure the profile again"};
    }
  }
  read_constraints(root, profile);
  return profile;
}

}  // namespace

Result<Profile> load_profile(const std::filesystem::path& file) {
  const std::string where = "profile " + file.string();
  const auto content = read_file(file);
  if (!content) return fail(content.error(), where);
  const Json root = Json::parse(*content, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded())
    return fail(Errc::malformed, where + ": is not complete JSON; copy or measure it again");
  try {
    return read_profile(root);
  } catch (const Malformed& malformed) {
    return fail(Errc::malformed, where + ": " + malformed.what);
  }
}

}  // namespace eclip::model
