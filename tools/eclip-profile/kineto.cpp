#include <fmt/core.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tools/eclip-profile/foreign_kernels.h"

namespace eclip::profile {
namespace {

using Json = nlohmann::json;

/// Thrown only within this file.
struct BadEvent {
  std::string what;
};

const Json& member(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) throw BadEvent{fmt::format("key '{}' is missing", key)};
  return *found;
}

double time_of(const Json& event, const char* key) {
  const Json& value = member(event, key);
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0)
    throw BadEvent{fmt::format("'{}' must be a time in microseconds", key)};
  return value.get<double>();
}

std::uint32_t count_of(const Json& value, const std::string& key) {
  if (!value.is_number_integer() || value < 0 || value > UINT32_MAX)
    throw BadEvent{fmt::format("'{}' must be a whole number that is not negative", key)};
  return value.get<std::uint32_t>();
}

std::uint32_t optional_count(const Json& arguments, const char* key) {
  const auto found = arguments.find(key);
  return found == arguments.end() ? 0 : count_of(*found, key);
}

/// The product of three sizes.
std::uint32_t volume_of(const Json& arguments, const char* key) {
  const Json& sizes = member(arguments, key);
  if (!sizes.is_array() || sizes.size() != 3)
    throw BadEvent{fmt::format("'{}' must be three sizes", key)};
  std::uint64_t product = 1;
  for (const Json& size : sizes) {
    product *= count_of(size, key);
    if (product == 0 || product > UINT32_MAX)
      throw BadEvent{fmt::format("'{}' must be positive sizes with a product of 32 bits", key)};
  }
  return static_cast<std::uint32_t>(product);
}

bool runs_on_gpu(const Json& event) {
  const auto category = event.find("cat");
  return category != event.end() && (*category == "kernel" || *category == "Kernel" ||
                                     *category == "gpu_memcpy" || *category == "gpu_memset");
}

void add_event(const Json& event, ForeignKernels& kernels) {
  const Json& name = member(event, "name");
  if (!name.is_string()) throw BadEvent{"'name' must be a text"};
  const Json& arguments = member(event, "args");
  if (!arguments.is_object()) throw BadEvent{"'args' must be an object"};
  model::TracedKernel kernel{};
  kernel.start_us = time_of(event, "ts");
  kernel.duration_us = time_of(event, "dur");
  kernel.shape.workgroups = 0;
  const std::string category = event.at("cat").get<std::string>();
  if (category == "kernel" || category == "Kernel") {
    kernel.shape.workgroups = volume_of(arguments, "grid");
    kernel.shape.workgroup_size = volume_of(arguments, "block");
    kernel.shape.registers_per_thread = optional_count(arguments, "registers per thread");
    kernel.shape.local_memory_bytes = optional_count(arguments, "shared memory");
  }
  const auto device = arguments.find("device");
  const std::string gpu = device == arguments.end() ? std::string() : device->dump();
  if (!kernels.add(gpu, name.get<std::string>(), kernel))
    throw BadEvent{fmt::format("kernels of device {} and of device {}: choose one with --only-gpu",
                               kernels.gpu(), gpu)};
}

/// What 'deviceProperties' says of the GPU; nothing when it does not name it.
void read_device(const Json& root, const std::string& gpu, ForeignTrace& trace) {
  const auto devices = root.find("deviceProperties");
  if (devices == root.end() || !devices->is_array()) return;
  for (const Json& device : *devices) {
    if (!device.is_object() || !device.contains("id") || device["id"].dump() != gpu) continue;
    if (device.contains("name") && device["name"].is_string())
      trace.device_name = device["name"].get<std::string>();
    if (device.contains("numSms")) trace.device_cus = count_of(device["numSms"], "numSms");
  }
}

ForeignTrace read_trace(const Json& root, const std::string& source, const std::string& only_gpu) {
  // The format's short form is the list of events alone.
  const Json& events = root.is_array() ? root : member(root, "traceEvents");
  if (!events.is_array()) throw BadEvent{"'traceEvents' must be a list"};
  ForeignKernels kernels(source, only_gpu);
  for (std::size_t i = 0; i < events.size(); ++i) {
    if (!events[i].is_object() || !runs_on_gpu(events[i])) continue;
    try {
      add_event(events[i], kernels);
    } catch (const BadEvent& bad) {
      throw BadEvent{fmt::format("event {} of 'traceEvents': {}", i, bad.what)};
    }
  }
  auto trace = kernels.take();
  if (!trace) throw BadEvent{trace.error().context.substr(source.size() + 2)};
  ForeignTrace found{.trace = std::move(*trace), .device_name = {}};
  if (root.is_object()) read_device(root, kernels.gpu(), found);
  return found;
}

}  // namespace

Result<ForeignTrace> parse_kineto(std::string_view text, const std::string& source,
                                  const std::string& only_gpu) {
  const Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded())
    return fail(Errc::malformed,
                source + ": is not complete JSON; unpack it (gunzip) or trace again");
  if (!root.is_object() && !root.is_array())
    return fail(Errc::malformed, source + ": is no Chrome trace; export one from the profiler");
  try {
    return read_trace(root, source, only_gpu);
  } catch (const BadEvent& bad) {
    return fail(Errc::malformed, source + ": " + bad.what + "; correct it or trace again");
  }
}

}  // namespace eclip::profile
