// What the command line of eclip-replay asks for.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ipc/result.h"

namespace eclip::replay {

/// A stream by its number, or any free one with enough CUs.
struct StreamChoice {
  std::optional<std::uint32_t> stream;
  std::uint32_t cu_count = 1;
};

/// Workers that start together and keep the GPU loaded until all have measured.
struct CohortChoice {
  std::filesystem::path path;
  std::uint32_t count = 0;
};

struct Options {
  std::filesystem::path profile;
  std::uint64_t requests = 0;  ///< measured ones; 0: as many as duration_s allows
  std::uint64_t warmup = 1;
  std::optional<double> poisson_rate;  ///< requests in a device second; none: closed loop
  std::vector<StreamChoice> streams;
  bool by_plan = false;              ///< instead of `streams`: those that eclipd's plan says
  std::uint64_t switch_every = 0;    ///< kernels; 0: never
  std::optional<double> duration_s;  ///< device time
  std::uint64_t seed = 1;
  std::string name = "eclip-replay";
  bool mix = false;
  bool reattach = false;
  bool json = false;
  std::string socket;  ///< "": where libeclip looks by itself
  std::optional<CohortChoice> cohort;
  std::chrono::seconds timeout{120};  ///< host time
};

/// The options, or the exit code when there is nothing to run: help was printed (0) or an error
/// (2).
std::variant<Options, int> parse_options(int argc, const char* const* argv);

/// "15,#3": Errc::invalid_argument names the part that is wrong.
Result<std::vector<StreamChoice>> parse_streams(std::string_view text);
/// "closed" or "poisson:RATE".
Result<std::optional<double>> parse_arrivals(std::string_view text);
/// "PATH:COUNT".
Result<CohortChoice> parse_cohort(std::string_view text);

}  // namespace eclip::replay
