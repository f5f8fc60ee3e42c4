#include "tools/eclip-bench/colocation.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace eclip::bench {
namespace {

using Json = nlohmann::json;

StreamGroups read_stream(const Json& stream) {
  if (stream.is_string() && stream == "plain") return std::nullopt;
  return stream.get<std::vector<std::uint32_t>>();
}

Scenario read_scenario(const std::string& name, const Json& json) {
  Scenario scenario{.name = name, .watts = json.at("watts"), .workers = {}};
  for (const Json& worker : json.at("workers"))
    scenario.workers.push_back({.mean_us = worker.at("mean_us"),
                                .p95_us = worker.at("p95_us"),
                                .streams = {},
                                .assignment = {}});
  // Eager scenarios record neither streams nor assignment.
  if (!json.contains("streams_of_worker") || !json.contains("assignment_runs")) return scenario;
  for (std::size_t i = 0; i < scenario.workers.size(); ++i) {
    MeasuredWorker& worker = scenario.workers[i];
    for (const Json& stream : json.at("streams_of_worker").at(i))
      worker.streams.push_back(read_stream(stream));
    for (const Json& run : json.at("assignment_runs").at(i))
      worker.assignment.push_back({.stream = run.at(0), .kernels = run.at(1)});
  }
  return scenario;
}

}  // namespace

Result<std::vector<Mix>> load_colocation(const std::filesystem::path& file) {
  const std::string where = "co-location data " + file.string();
  std::ifstream stream(file);
  if (!stream)
    return fail(Errc::not_found, where + ": cannot be opened; name its folder with --data");
  const Json root = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return fail(Errc::malformed, where + ": is not complete JSON");
  std::vector<Mix> mixes;
  std::string place;
  try {
    for (const auto& [name, json] : root.at("mixes").items()) {
      place = fmt::format("mix '{}'", name);
      Mix mix{.name = name,
              .profiles = json.at("workers"),
              .solo_us = json.at("solo_us"),
              .scenarios = {}};
      if (mix.solo_us.size() != mix.profiles.size())
        return fail(Errc::malformed,
                    fmt::format("{}: {} does not time every worker alone", where, place));
      for (const auto& [scenario, measured] : json.at("scenarios").items()) {
        place = fmt::format("mix '{}', scenario '{}'", name, scenario);
        mix.scenarios.push_back(read_scenario(scenario, measured));
        if (mix.scenarios.back().workers.size() != mix.profiles.size())
          return fail(Errc::malformed,
                      fmt::format("{}: {} does not measure every worker", where, place));
      }
      mixes.push_back(std::move(mix));
    }
  } catch (const Json::exception& error) {
    return fail(Errc::malformed, fmt::format("{}: {}: {}", where, place, error.what()));
  }
  return mixes;
}

}  // namespace eclip::bench
