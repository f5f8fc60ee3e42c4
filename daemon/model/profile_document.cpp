#include "daemon/model/profile_document.h"

#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
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

double positive_us(const Json& value, const std::string& what) {
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
    times[cus] = positive_us(value, "the request time at " + name + " compute units");
  }
  return times;
}

/// A time, or 0 where none was measured.
double time_or_none(const Json& value, const std::string& what) {
  return value.is_null() || value == 0 ? 0 : positive_us(value, what);
}

KernelRow read_row(const Json& row, const Json& names, std::size_t counts) {
  if (!row.is_array() || row.size() != columns.size())
    throw Malformed{"a row must have " + std::to_string(columns.size()) + " columns"};
  const std::uint32_t name = count(row[0], "name_index", 0);
  if (name >= names.size() || !names[name].is_string())
    throw Malformed{"name_index " + std::to_string(name) + " names nothing in 'kernel_names'"};
  KernelRow kernel{
      .name = names[name].get<std::string>(),
      .shape = {.workgroups = count(row[1], "workgroups", 0),
                .workgroup_size = count(row[2], "workgroup_size", 0),
                .registers_per_thread = count(row[3], "registers_per_thread", 0),
                .local_memory_bytes = count(row[4], "dynamic_shared_memory_bytes", 0)}};
  const Json& times = row[5];
  if (!times.is_array() || times.size() != counts)
    throw Malformed{"it must have " + std::to_string(counts) +
                    " times, one for each of 'cu_counts'"};
  for (std::size_t i = 0; i < counts; ++i)
    kernel.time_us.push_back(time_or_none(times[i], "time " + std::to_string(i)));
  return kernel;
}

/// The optional key: for each kernel, a spread for each of 'cu_counts'.
void read_spread(const Json& root, ProfileDocument& document) {
  const auto spread = root.find("iqr_us_at_cu_counts");
  if (spread == root.end()) return;
  if (!spread->is_array() || spread->size() != document.kernels.size())
    throw Malformed{"'iqr_us_at_cu_counts' must have a list for each of the " +
                    std::to_string(document.kernels.size()) + " kernels"};
  for (std::size_t k = 0; k < spread->size(); ++k) {
    const std::string where = "kernel " + std::to_string(k) + ": 'iqr_us_at_cu_counts'";
    const Json& row = (*spread)[k];
    if (!row.is_array() || row.size() != document.cu_counts.size())
      throw Malformed{where + " must have " + std::to_string(document.cu_counts.size()) +
                      " entries, one for each of 'cu_counts'"};
    for (const Json& value : row) {
      if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0)
        throw Malformed{where + " must be times in microseconds"};
      document.kernels[k].iqr_us.push_back(value.get<double>());
    }
  }
}

/// The optional key: how many requests stand behind the times at each of 'cu_counts'.
void read_samples(const Json& root, ProfileDocument& document) {
  const auto samples = root.find("requests_at_cu_counts");
  if (samples == root.end()) return;
  if (!samples->is_array() || samples->size() != document.cu_counts.size())
    throw Malformed{"'requests_at_cu_counts' must have " +
                    std::to_string(document.cu_counts.size()) +
                    " entries, one for each of 'cu_counts'"};
  for (const Json& value : *samples)
    document.samples.push_back(count(value, "each of 'requests_at_cu_counts'", 0));
}

/// The optional keys that bind kernels to one stream.
void read_constraints(const Json& root, ProfileDocument& document) {
  if (const auto uniform = root.find("uniform"); uniform != root.end()) {
    if (!uniform->is_boolean()) throw Malformed{"key 'uniform' must be true or false"};
    document.uniform = uniform->get<bool>();
  }
  if (!root.contains("stay_together")) return;
  for (const Json& range : array(root, "stay_together")) {
    const std::string what =
        "range " + std::to_string(document.stay_together.size()) + " of 'stay_together'";
    if (!range.is_array() || range.size() != 2)
      throw Malformed{what + " must be [first kernel, last kernel]"};
    const KernelRange read{.first = count(range[0], "the first of " + what, 0),
                           .last = count(range[1], "the last of " + what, 0)};
    if (read.first > read.last || read.last >= document.kernels.size())
      throw Malformed{what + " is [" + std::to_string(read.first) + ", " +
                      std::to_string(read.last) + "]; the kernels are 0 to " +
                      std::to_string(document.kernels.size() - 1) + ", and first is before last"};
    document.stay_together.push_back(read);
  }
}

std::string optional_text(const Json& root, const char* key) {
  return root.contains(key) ? text(root, key) : std::string();
}

ProfileDocument read_document(const Json& root) {
  check_header(root);
  ProfileDocument document;
  document.model = text(root, "model");
  document.batch = count(member(root, "batch"), "'batch'", 1);
  document.precision = optional_text(root, "precision");
  document.note = optional_text(root, "note");
  const Json& device = member(root, "device");
  if (!device.is_object()) throw Malformed{"key 'device' must be an object"};
  document.device_name = text(device, "name");
  document.device_compute_units = count(member(device, "compute_units"), "'compute_units'", 1);
  document.cu_counts = read_cu_counts(root);
  read_samples(root, document);
  document.request_us_at_cu_counts = read_request_times(root);
  document.request_us_unmasked =
      positive_us(member(root, "request_us_unmasked"), "'request_us_unmasked'");
  const Json& names = array(root, "kernel_names");
  const Json& rows = array(root, "kernels");
  document.kernels.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    try {
      document.kernels.push_back(read_row(rows[i], names, document.cu_counts.size()));
    } catch (Malformed& malformed) {
      throw Malformed{"kernel " + std::to_string(i) + ": " + malformed.what +
                      "; correct the row or measure the profile again"};
    }
  }
  read_spread(root, document);
  read_constraints(root, document);
  return document;
}

/// Numbers as the JSON library writes them: the shortest text that reads as the same double.
std::string rows_text(const std::vector<Json>& rows) {
  std::string text;
  for (std::size_t i = 0; i < rows.size(); ++i) text += (i == 0 ? "\n" : ",\n") + rows[i].dump();
  return text;
}

/// A time; null where none was measured.
Json time_json(double time_us) {
  return time_us > 0 ? Json(time_us) : Json(nullptr);
}

}  // namespace

Result<ProfileDocument> parse_profile_document(std::string_view text, const std::string& source) {
  const Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded())
    return fail(Errc::malformed, source + ": is not complete JSON; copy or measure it again");
  try {
    return read_document(root);
  } catch (const Malformed& malformed) {
    return fail(Errc::malformed, source + ": " + malformed.what);
  }
}

Result<ProfileDocument> load_profile_document(const std::filesystem::path& file) {
  const std::string source = "profile " + file.string();
  const auto content = read_file(file);
  if (!content) return fail(content.error(), source);
  return parse_profile_document(*content, source);
}

std::string to_json(const ProfileDocument& document) {
  using Ordered = nlohmann::ordered_json;
  Ordered head{{"schema", schema}, {"model", document.model}, {"batch", document.batch}};
  if (!document.precision.empty()) head["precision"] = document.precision;
  head["device"] = {{"name", document.device_name},
                    {"compute_units", document.device_compute_units}};
  if (!document.note.empty()) head["note"] = document.note;
  head["cu_counts"] = document.cu_counts;
  if (!document.samples.empty()) head["requests_at_cu_counts"] = document.samples;
  head["request_us_at_cu_counts"] = Ordered::object();
  for (const auto& [cus, time_us] : document.request_us_at_cu_counts)
    head["request_us_at_cu_counts"][std::to_string(cus)] = time_us;
  head["request_us_unmasked"] = document.request_us_unmasked;
  std::map<std::string, std::size_t> known;
  Ordered names = Ordered::array();
  std::vector<Json> rows;
  std::vector<Json> spreads;
  for (const KernelRow& kernel : document.kernels) {
    const auto [name, is_new] = known.try_emplace(kernel.name, names.size());
    if (is_new) names.push_back(kernel.name);
    Json times = Json::array();
    for (const double time : kernel.time_us) times.push_back(time_json(time));
    rows.push_back({name->second, kernel.shape.workgroups, kernel.shape.workgroup_size,
                    kernel.shape.registers_per_thread, kernel.shape.local_memory_bytes, times});
    if (!kernel.iqr_us.empty()) spreads.emplace_back(kernel.iqr_us);
  }
  head["kernel_names"] = std::move(names);
  head["columns"] = columns;
  if (document.uniform) head["uniform"] = true;
  for (const KernelRange& range : document.stay_together)
    head["stay_together"].push_back({range.first, range.last});
  std::string json = head.dump(-1, ' ', false, Json::error_handler_t::replace);
  json.pop_back();
  json += ",\"kernels\":[" + rows_text(rows) + "]";
  if (!spreads.empty()) json += ",\n\"iqr_us_at_cu_counts\":[" + rows_text(spreads) + "]";
  return json + "}\n";
}

}  // namespace eclip::model
