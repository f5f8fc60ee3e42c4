#include "tools/eclip-replay/options.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>

#include "ipc/board.h"
#include "tools/eclip-replay/exit_codes.h"

namespace eclip::replay {
namespace {

constexpr const char* description =
    "Replays a measured model profile on streams leased from eclipd and reports what a request "
    "takes.\n";
constexpr const char* footer =
    "\nTimes and rates are in device time: host time multiplied by the GPU's device time rate, "
    "which is 1 on hardware and less on a simulated GPU whose clocks are slowed. --timeout-s alone "
    "is in host time.\n"
    "Latency of a Poisson request counts from its arrival, so it includes queueing.\n"
    "SIGINT and SIGTERM stop after the current request; the report covers what was measured.\n"
    "Exit codes: 0 done; 1 the run failed; 2 bad usage or input; 3 eclipd is not running.";

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

CLI::Validator whole_number(std::uint64_t least) {
  return {[least](const std::string& text) {
            const auto number = parse_number<std::uint64_t>(text);
            if (number && *number >= least) return std::string();
            return fmt::format("give a whole number of at least {}, not '{}'", least, text);
          },
          ""};
}

CLI::Validator positive_number() {
  return {[](const std::string& text) {
            const auto number = parse_number<double>(text);
            if (number && std::isfinite(*number) && *number > 0) return std::string();
            return fmt::format("give a positive number, not '{}'", text);
          },
          ""};
}

/// Assigns what `parse` makes of an option's text; its error is the option's.
template <class Parse, class Target>
CLI::callback_t assign_to(const char* option, Parse parse, Target& target) {
  return [option, parse, &target](const CLI::results_t& texts) {
    auto parsed = parse(texts.front());
    if (!parsed) throw CLI::ValidationError(option, parsed.error().message());
    target = std::move(*parsed);
    return true;
  };
}

void add_options(CLI::App& app, Options& options) {
  app.add_option("--profile", options.profile, "Profile to replay (eclip.profile/1, JSON)")
      ->required()
      ->type_name("FILE");
  app.add_option("--requests", options.requests, "Requests to measure")
      ->check(whole_number(1))
      ->type_name("N");
  app.add_option("--warmup", options.warmup, "Requests before those")
      ->check(whole_number(0))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--duration-s", options.duration_s, "Stop measuring after S device seconds")
      ->check(positive_number())
      ->type_name("S");
  app.add_option("--arrivals", assign_to("--arrivals", parse_arrivals, options.poisson_rate),
                 "'closed' (the next request starts when one ends; the default) or 'poisson:RATE', "
                 "RATE requests in a device second")
      ->type_name("WHEN");
  app.add_option("--streams",
                 CLI::callback_t(
                     [&options, leased = assign_to("--streams", parse_streams, options.streams)](
                         const CLI::results_t& texts) {
                       options.by_plan = texts.front() == "plan";
                       return options.by_plan || leased(texts);
                     }),
                 "'plan': those that eclipd's plan says; or streams to lease, comma-separated: "
                 "'15' the smallest free one with at least 15 CUs, '#3' stream 3 (quote it); "
                 "default 1")
      ->type_name("LIST");
  app.add_option("--switch-every", options.switch_every,
                 "Go on to the next leased stream after every K kernels")
      ->check(whole_number(1))
      ->type_name("K");
  app.add_option("--seed", options.seed, "Seed of the Poisson arrivals")
      ->check(whole_number(0))
      ->type_name("N")
      ->capture_default_str();
  app.add_option("--name", options.name, "What eclipctl calls this worker")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_flag("--mix", options.mix,
               "Let each kernel mix the previous one's output into its own, and compare the last "
               "value with that of serial execution: a broken dependency fails the run");
  app.add_option("--cohort", assign_to("--cohort", parse_cohort, options.cohort),
                 "Start together with the other workers that name this file, COUNT in all, and "
                 "keep up the load until all of them have measured")
      ->type_name("PATH:COUNT");
  app.add_option_function<std::uint64_t>(
         "--timeout-s",
         [&options](const std::uint64_t& seconds) {
           options.timeout = std::chrono::seconds(std::min<std::uint64_t>(seconds, 1'000'000));
         },
         "Host time in which a request must complete and the cohort make progress (default 120)")
      ->check(whole_number(1))
      ->type_name("N");
  app.add_flag("--reattach", options.reattach,
               "When eclipd ends, go on without it and attach again when it is back: requests that "
               "it ended under count as failed. --timeout-s bounds how long it may be away");
  app.add_flag("--json", options.json, "Report as JSON");
  app.add_option("--socket", options.socket,
                 "eclipd's socket; default $ECLIP_SOCKET, else /run/eclip/eclipd.sock")
      ->type_name("PATH");
}

/// What no single option can tell.
void check_together(Options& options) {
  if (options.requests == 0 && !options.duration_s)
    throw CLI::ValidationError("give --requests N, --duration-s S or both");
  if (options.by_plan && options.switch_every != 0)
    throw CLI::ValidationError("--switch-every is for leased streams; the plan switches itself");
  if (options.by_plan) return;
  if (options.streams.empty()) options.streams.push_back({});
  if (options.streams.size() > 1 && options.switch_every == 0)
    throw CLI::ValidationError(
        "--streams names several streams; say with --switch-every K when to "
        "change between them");
  if (options.streams.size() == 1 && options.switch_every != 0)
    throw CLI::ValidationError("--switch-every needs several streams; name them with --streams");
}

}  // namespace

Result<std::vector<StreamChoice>> parse_streams(std::string_view text) {
  std::vector<StreamChoice> choices;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t to = std::min(text.find(',', from), text.size());
    const std::string_view part = text.substr(from, to - from);
    const bool by_number = part.starts_with('#');
    const auto number = parse_number<std::uint32_t>(by_number ? part.substr(1) : part);
    if (!number || (!by_number && *number == 0))
      return fail(
          Errc::invalid_argument,
          fmt::format("'{}' is neither a number of CUs, as '15', nor a stream, as '#3'", part));
    choices.push_back(by_number ? StreamChoice{*number, 0} : StreamChoice{std::nullopt, *number});
    from = to + 1;
  }
  if (choices.size() > Board::max_streams)
    return fail(Errc::invalid_argument, fmt::format("{} streams; a GPU has at most {}",
                                                    choices.size(), Board::max_streams));
  return choices;
}

Result<std::optional<double>> parse_arrivals(std::string_view text) {
  if (text == "closed") return std::nullopt;
  constexpr std::string_view poisson = "poisson:";
  if (text.starts_with(poisson)) {
    const auto rate = parse_number<double>(text.substr(poisson.size()));
    if (rate && std::isfinite(*rate) && *rate > 0) return *rate;
  }
  return fail(Errc::invalid_argument,
              fmt::format("'{}' is neither 'closed' nor 'poisson:RATE' with a positive RATE in "
                          "requests per second",
                          text));
}

Result<CohortChoice> parse_cohort(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && colon > 0) {
    const auto count = parse_number<std::uint32_t>(text.substr(colon + 1));
    if (count && *count >= 1 && *count <= 64)
      return CohortChoice{std::string(text.substr(0, colon)), *count};
  }
  return fail(Errc::invalid_argument,
              fmt::format("'{}' is not PATH:COUNT with 1 to 64 workers", text));
}

std::variant<Options, int> parse_options(int argc, const char* const* argv) {
  Options options;
  CLI::App app(description, "eclip-replay");
  app.footer(footer);
  add_options(app, options);
  try {
    app.parse(argc, argv);
    check_together(options);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    return exit_ok;
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "eclip-replay: {}. See eclip-replay --help.\n", error.what());
    return exit_usage;
  }
  return options;
}

}  // namespace eclip::replay
