#include "daemon/model/request_pattern.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

namespace eclip::model {
namespace {

/// Kernels as numbers: equal for equal name and workgroups, over all traces. A text, so that
/// parts of it can be looked up.
using Tokens = std::u32string;

std::vector<Tokens> tokenise(std::span<const Trace> traces) {
  std::map<std::pair<std::string_view, std::uint32_t>, char32_t> known;
  std::vector<Tokens> all;
  for (const Trace& trace : traces) {
    Tokens& tokens = all.emplace_back();
    tokens.reserve(trace.kernels.size());
    for (const TracedKernel& kernel : trace.kernels) {
      const std::pair key{std::string_view(trace.names[kernel.name]), kernel.shape.workgroups};
      tokens.push_back(known.try_emplace(key, static_cast<char32_t>(known.size())).first->second);
    }
  }
  return all;
}

/// A sequence of kernels that repeats without overlapping itself.
struct Repeat {
  std::size_t first = 0;  ///< where it first stands
  std::size_t length = 0;
  std::size_t count = 0;
  /// More kernels covered; of equals, the shorter one that repeats more often.
  [[nodiscard]] bool better_than(const Repeat& other) const {
    return std::tuple(count * length, count, other.first) >
           std::tuple(other.count * other.length, other.count, first);
  }
};

/// Places in a trace around which the same kernels stand, from `left` before them to `right` behind
/// (themselves included), and how these grow while most of the places agree.
class Grower {
 public:
  Grower(const Tokens& tokens, std::vector<std::size_t> places) : tokens_(&tokens) {
    take(std::move(places));
  }

  /// The best repeat found by growing to the right, then to the left.
  Repeat best() {
    // Where some places stop to agree, more places and fewer kernels may cover more in the end.
    std::vector<Grower> stages;
    while (true) {
      if (!all_agree(right_)) {
        stages.push_back(*this);
        std::sort(stages.begin(), stages.end(), [](const Grower& a, const Grower& b) {
          return a.places_.size() * a.right_ > b.places_.size() * b.right_;
        });
        if (stages.size() > max_stages) stages.pop_back();
        if (!keep_most(right_)) break;
      }
      ++right_;
    }
    Repeat best;
    for (Grower& stage : stages) {
      const Repeat found = stage.grow_left();
      if (found.better_than(best)) best = found;
    }
    return best;
  }

 private:
  static constexpr std::size_t max_stages = 8;
  static constexpr std::size_t least_places = 2;

  Repeat grow_left() {
    Repeat best;
    while (true) {
      const Repeat now{places_.front() - left_, left_ + right_, places_.size()};
      if (now.better_than(best)) best = now;
      // Unsigned: before the first kernel is beyond the last.
      const std::size_t before = std::size_t{0} - left_ - 1;
      if (!all_agree(before) && !keep_most(before)) return best;
      ++left_;
    }
  }

  [[nodiscard]] std::optional<char32_t> token_at(std::size_t place) const {
    return place < tokens_->size() ? std::optional((*tokens_)[place]) : std::nullopt;
  }
  /// Whether all places have the same kernel so far from them, and do not overlap with it.
  [[nodiscard]] bool all_agree(std::size_t distance) const {
    const auto first = token_at(places_.front() + distance);
    return first && least_distance_ > left_ + right_ &&
           std::all_of(places_.begin(), places_.end(),
                       [&](std::size_t place) { return token_at(place + distance) == first; });
  }
  /// Keeps the places that have, so far from them, the kernel that most have there; false when that
  /// is one place or they would overlap.
  bool keep_most(std::size_t distance) {
    std::unordered_map<char32_t, std::size_t> votes;
    std::optional<char32_t> most;  // of those that are equally frequent, whose last vote came first
    for (const std::size_t place : places_) {
      const auto token = token_at(place + distance);
      if (token && ++votes[*token] > (most ? votes[*most] : 0)) most = token;
    }
    if (!most || votes[*most] < least_places) return false;
    std::vector<std::size_t> kept;
    for (const std::size_t place : places_)
      if (token_at(place + distance) == most) kept.push_back(place);
    take(std::move(kept));
    return least_distance_ > left_ + right_;
  }
  void take(std::vector<std::size_t> places) {
    places_ = std::move(places);
    least_distance_ = tokens_->size();
    for (std::size_t i = 1; i < places_.size(); ++i)
      least_distance_ = std::min(least_distance_, places_[i] - places_[i - 1]);
  }

  const Tokens* tokens_;
  std::vector<std::size_t> places_;  // ascending
  std::size_t least_distance_ = 0;   // between two of them
  std::size_t left_ = 0;
  std::size_t right_ = 1;
};

/// The repeat that covers most of a trace: every pair of neighbours that occurs at least twice is a
/// place to start from, unless it is part of what was found from a pair that is as frequent.
std::optional<Repeat> find_repeat(const Tokens& tokens) {
  std::map<std::pair<char32_t, char32_t>, std::vector<std::size_t>> pairs;
  for (std::size_t i = 0; i + 1 < tokens.size(); ++i)
    pairs[{tokens[i], tokens[i + 1]}].push_back(i);
  std::vector<const std::vector<std::size_t>*> anchors;
  for (const auto& [pair, places] : pairs)
    if (places.size() >= 2) anchors.push_back(&places);
  std::sort(anchors.begin(), anchors.end(), [](const auto* a, const auto* b) {
    return std::tuple(a->size(), a->front()) < std::tuple(b->size(), b->front());
  });
  std::vector<std::size_t> explored(tokens.size());  // how often what covers it repeats
  Repeat best;
  for (const auto* places : anchors) {
    if (explored[places->front()] == places->size()) continue;
    const Repeat found = Grower(tokens, *places).best();
    for (std::size_t i = found.first; i < found.first + found.length; ++i)
      explored[i] = found.count;
    if (found.better_than(best)) best = found;
  }
  if (best.count < 2) return std::nullopt;
  return best;
}

/// The most frequent sequence of that length; the first of equals.
std::optional<Repeat> find_repeat_of(const Tokens& tokens, std::size_t length) {
  struct Use {
    Repeat repeat;
    std::size_t end;  // of the last
  };
  std::unordered_map<std::u32string_view, Use> uses;
  Repeat best;
  for (std::size_t i = 0; i + length <= tokens.size(); ++i) {
    Use& use =
        uses.try_emplace(std::u32string_view(tokens).substr(i, length), Use{{i, length, 0}, i})
            .first->second;
    if (i < use.end) continue;
    use.end = i + length;
    ++use.repeat.count;
    if (use.repeat.better_than(best)) best = use.repeat;
  }
  if (best.count == 0) return std::nullopt;
  return best;
}

/// Where the body stands in a trace, without overlaps, first come first served.
std::vector<std::size_t> places_of(const Tokens& body, const Tokens& tokens) {
  const std::boyer_moore_searcher searcher(body.begin(), body.end());
  std::vector<std::size_t> places;
  for (auto from = tokens.begin();;) {
    const auto found = std::search(from, tokens.end(), searcher);
    if (found == tokens.end()) return places;
    places.push_back(static_cast<std::size_t>(found - tokens.begin()));
    from = found + static_cast<std::ptrdiff_t>(body.size());
  }
}

/// A body and where it stands in each trace.
struct Requests {
  std::size_t trace = 0;  ///< where the body was found
  std::size_t first = 0;  ///< and stands first there
  std::size_t length = 0;
  std::vector<std::vector<std::size_t>> places;
  [[nodiscard]] std::size_t covered() const {
    std::size_t sum = 0;
    for (const auto& of_trace : places) sum += of_trace.size() * length;
    return sum;
  }
  [[nodiscard]] std::optional<std::size_t> missing() const {
    for (std::size_t t = 0; t < places.size(); ++t)
      if (places[t].empty()) return t;
    return std::nullopt;
  }
};

std::string kernel_text(const Trace& trace, std::size_t index) {
  const TracedKernel& kernel = trace.kernels[index];
  return "'" + trace.names[kernel.name] + "' (" + std::to_string(kernel.shape.workgroups) +
         " workgroups)";
}

/// The trace has no request as another has them: names the kernel where its best attempt ends.
std::string divergence(std::span<const Trace> traces, const std::vector<Tokens>& tokens,
                       const Requests& requests, std::size_t trace) {
  const Tokens& other = tokens[trace];
  const Tokens& whole = tokens[requests.trace];
  std::size_t longest = 0;
  std::size_t at = 0;
  for (std::size_t i = 0; i < other.size(); ++i) {
    std::size_t length = 0;
    while (length < requests.length && i + length < other.size() &&
           other[i + length] == whole[requests.first + length])
      ++length;
    if (length > longest) {
      longest = length;
      at = i;
    }
  }
  std::string text = traces[trace].source + ": no request in it is as those of " +
                     traces[requests.trace].source + ": kernel " + std::to_string(longest) +
                     " of a request is " +
                     kernel_text(traces[requests.trace], requests.first + longest) + " there, ";
  text += at + longest < other.size()
              ? kernel_text(traces[trace], at + longest) + " here (kernel " +
                    std::to_string(at + longest) + " of the trace)"
              : std::string("and the trace ends here");
  return text +
         ". Measure the same model with the same inputs on every number of CUs; a library that "
         "chooses kernels or sizes grids by the CU count cannot be compared";
}

/// Quantile by linear interpolation between order statistics; sorts.
double quantile(std::vector<double>& values, double share) {
  std::sort(values.begin(), values.end());
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  if (below + 1 >= values.size()) return values.back();
  return values[below] + (place - std::floor(place)) * (values[below + 1] - values[below]);
}

/// Where several sequences repeat because requests follow each other without anything between,
/// the one that begins after the longest pause of the device is a request.
void begin_after_pause(std::span<const Trace> traces, const std::vector<Tokens>& tokens,
                       Requests& requests) {
  std::vector<double> pauses;  // by kernel of the body
  for (std::size_t k = 0; k < requests.length; ++k) {
    std::vector<double> of_kernel;
    for (std::size_t t = 0; t < traces.size(); ++t)
      for (const std::size_t place : requests.places[t]) {
        if (place + k == 0) continue;
        const TracedKernel& before = traces[t].kernels[place + k - 1];
        of_kernel.push_back(traces[t].kernels[place + k].start_us - before.start_us -
                            before.duration_us);
      }
    pauses.push_back(of_kernel.empty() ? 0 : quantile(of_kernel, 0.5));
  }
  const auto longest = std::max_element(pauses.begin(), pauses.end());
  if (*longest <= 2 * std::max(pauses.front(), 0.0)) return;
  const auto shift = static_cast<std::size_t>(longest - pauses.begin());
  const Tokens body = tokens[requests.trace].substr(requests.first, requests.length);
  const Tokens shifted = body.substr(shift) + body.substr(0, shift);
  Requests other{.trace = requests.trace, .first = 0, .length = requests.length, .places = {}};
  for (const Tokens& trace : tokens) other.places.push_back(places_of(shifted, trace));
  // A trace that is cut in the middle of requests has one fewer.
  if (other.missing() || other.covered() + traces.size() * other.length < requests.covered())
    return;
  other.first = other.places[other.trace].front();
  requests = std::move(other);
}

Result<Requests> find_requests(std::span<const Trace> traces, const std::vector<Tokens>& tokens,
                               const MatchOptions& options) {
  std::optional<Requests> best;
  std::optional<Requests> incomplete;
  std::set<Tokens> seen;
  for (std::size_t t = 0; t < traces.size(); ++t) {
    const auto repeat = options.kernels_per_request > 0
                            ? find_repeat_of(tokens[t], options.kernels_per_request)
                            : find_repeat(tokens[t]);
    if (!repeat) continue;
    const Tokens body = tokens[t].substr(repeat->first, repeat->length);
    if (!seen.insert(body).second) continue;
    Requests found{.trace = t, .first = repeat->first, .length = repeat->length, .places = {}};
    for (const Tokens& trace : tokens) found.places.push_back(places_of(body, trace));
    auto& into = found.missing() ? incomplete : best;
    if (!into || found.covered() > into->covered()) into = std::move(found);
  }
  if (best) {
    begin_after_pause(traces, tokens, *best);
    return *best;
  }
  if (incomplete)
    return fail(Errc::invalid_argument,
                divergence(traces, tokens, *incomplete, *incomplete->missing()));
  return fail(Errc::invalid_argument,
              traces.front().source + ": nothing repeats in its " +
                  std::to_string(traces.front().kernels.size()) +
                  " kernels; trace several requests, or say how many kernels a request has");
}

/// Clocks that count from an epoch are known to a fraction of a microsecond only.
bool overlap(const TracedKernel& before, const TracedKernel& kernel) {
  constexpr double clock_error_us = 0.5;
  return kernel.start_us < before.start_us + before.duration_us - clock_error_us;
}

/// To a nanosecond: more digits than that are none of the clock's.
double rounded_us(double time_us) {
  return std::round(time_us * 1000) / 1000;
}

}  // namespace

Result<ProfileDocument> profile_from_traces(std::span<const Trace> traces,
                                            const MatchOptions& options, MatchReport& report) {
  report = {};
  if (traces.empty()) return fail(Errc::invalid_argument, "no trace; name at least one");
  for (const Trace& trace : traces)
    if (trace.kernels.empty())
      return fail(Errc::invalid_argument,
                  trace.source + ": has no kernels; trace a run that dispatches some");
  const std::vector<Tokens> tokens = tokenise(traces);
  const auto requests = find_requests(traces, tokens, options);
  if (!requests) return tl::unexpected(requests.error());

  ProfileDocument document;
  // By count of CUs, the places of the requests that count.
  std::map<std::uint32_t, std::vector<std::span<const TracedKernel>>> runs;
  for (std::size_t t = 0; t < traces.size(); ++t) {
    const auto& places = requests->places[t];
    report.requests.push_back(places.size());
    report.outside.push_back(traces[t].kernels.size() - places.size() * requests->length);
    if (places.size() <= options.skip)
      return fail(Errc::invalid_argument,
                  traces[t].source + ": has " + std::to_string(places.size()) +
                      " requests, of which the first " + std::to_string(options.skip) +
                      " do not count; trace more requests or skip fewer");
    for (std::size_t i = options.skip; i < places.size(); ++i)
      runs[traces[t].cus].push_back(
          std::span(traces[t].kernels).subspan(places[i], requests->length));
  }
  const Trace& origin = traces[requests->trace];
  for (std::size_t k = 0; k < requests->length; ++k) {
    const TracedKernel& kernel = origin.kernels[requests->first + k];
    document.kernels.push_back({.name = origin.names[kernel.name], .shape = kernel.shape});
  }
  for (const auto& [cus, of_cus] : runs) {
    document.cu_counts.push_back(cus);
    document.samples.push_back(static_cast<std::uint32_t>(of_cus.size()));
    std::vector<double> values(of_cus.size());
    for (std::size_t k = 0; k < requests->length; ++k) {
      for (std::size_t i = 0; i < of_cus.size(); ++i) {
        values[i] = of_cus[i][k].duration_us;
        if (k > 0 && overlap(of_cus[i][k - 1], of_cus[i][k])) ++report.overlaps;
      }
      document.kernels[k].time_us.push_back(rounded_us(quantile(values, 0.5)));
      document.kernels[k].iqr_us.push_back(
          rounded_us(quantile(values, 0.75) - quantile(values, 0.25)));
    }
    for (std::size_t i = 0; i < of_cus.size(); ++i)
      values[i] =
          of_cus[i].back().start_us + of_cus[i].back().duration_us - of_cus[i].front().start_us;
    document.request_us_at_cu_counts[cus] = rounded_us(quantile(values, 0.5));
  }
  document.request_us_unmasked = document.request_us_at_cu_counts.rbegin()->second;
  return document;
}

}  // namespace eclip::model
