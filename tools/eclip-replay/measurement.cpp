#include "tools/eclip-replay/measurement.h"

#include <ctime>
#include <random>

namespace eclip::replay {
namespace {

/// When requests arrive. In a closed loop that is whenever the last one has ended.
class Arrivals {
 public:
  Arrivals(const Options& options, const Workload& workload)
      : rate_(options.poisson_rate), workload_(&workload), random_(options.seed) {}

  /// Waits for the next request and returns its arrival; nullopt when the run is to stop.
  std::optional<HostClock::time_point> next() {
    if (!rate_) return *workload_->stop ? std::nullopt : std::optional(HostClock::now());
    last_ = upcoming();
    upcoming_.reset();
    sleep_until(*last_);
    return *workload_->stop ? std::nullopt : last_;
  }
  /// When the request after that arrives; in a closed loop it is there already.
  HostClock::time_point upcoming() {
    if (!rate_) return HostClock::time_point::min();
    if (upcoming_) return *upcoming_;
    if (!last_) last_ = HostClock::now();
    // Mersenne Twister and division are the same everywhere; std::exponential_distribution is not.
    const double uniform = (static_cast<double>(random_() >> 11U) + 0.5) * 0x1p-53;
    const double device_seconds = -std::log(uniform) / *rate_;
    const std::chrono::duration<double> host(device_seconds / workload_->device_time_rate());
    upcoming_ = *last_ + std::chrono::duration_cast<HostClock::duration>(host);
    return *upcoming_;
  }

 private:
  /// Until then or until a signal stops the run.
  void sleep_until(HostClock::time_point when) const {
    while (!*workload_->stop && HostClock::now() < when) {
      // A signal between the look at `stop` and the sleep would go unnoticed; so sleep in slices.
      const auto until = std::min(when, HostClock::now() + std::chrono::milliseconds(100));
      const auto count = std::chrono::nanoseconds(until.time_since_epoch()).count();
      const timespec time{.tv_sec = count / 1'000'000'000, .tv_nsec = count % 1'000'000'000};
      ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr);
    }
  }

  std::optional<double> rate_;
  const Workload* workload_;
  std::mt19937_64 random_;
  std::optional<HostClock::time_point> last_;      // that next() has returned
  std::optional<HostClock::time_point> upcoming_;  // the one after, if it has been drawn
};

/// One worker's run.
class Run {
 public:
  Run(const Options& options, const Workload& workload, Cohort* cohort)
      : options_(&options), workload_(&workload), cohort_(cohort), arrivals_(options, workload) {}

  Measurement operator()() {
    if (!start() || !warm_up()) {
      finished_.interrupted = !finished_.cohort_error;
      if (cohort_ != nullptr) cohort_->finish();
      return std::move(finished_);
    }
    measure_requests();
    if (cohort_ != nullptr) {
      cohort_->finish();
      keep_up_load();
    }
    return std::move(finished_);
  }

 private:
  /// False when the request was not done, which does not count as measured.
  bool request(HostClock::time_point next) {
    const bool done = workload_->run_request(next);
    if (cohort_ != nullptr) cohort_->count_request();
    return done;
  }

  bool start() {
    if (cohort_ == nullptr) return true;
    const auto started = cohort_->wait_for_all(options_->timeout, *workload_->stop);
    if (!started) finished_.cohort_error = started.error();
    return started && *started;
  }

  bool warm_up() {
    for (std::uint64_t i = 0; i < options_->warmup; ++i) {
      if (*workload_->stop) return false;
      request(HostClock::time_point::min());
      ++finished_.unmeasured;
    }
    return true;
  }

  void measure_requests() {
    finished_.begin = finished_.end = HostClock::now();
    while (!enough()) {
      const auto arrival = arrivals_.next();
      if (!arrival) {
        finished_.interrupted = true;
        return;
      }
      if (!request(arrivals_.upcoming())) continue;
      finished_.end = HostClock::now();
      finished_.latencies.push_back(finished_.end - *arrival);
    }
  }

  [[nodiscard]] bool enough() const {
    if (options_->requests != 0 && finished_.latencies.size() >= options_->requests) return true;
    if (!options_->duration_s) return false;
    const std::chrono::duration<double> host = finished_.end - finished_.begin;
    return host.count() * workload_->device_time_rate() >= *options_->duration_s;
  }

  void keep_up_load() {
    while (!*workload_->stop) {
      const auto all = cohort_->all_finished(options_->timeout);
      if (!all) finished_.cohort_error = all.error();
      if (!all || *all || !arrivals_.next()) return;
      request(arrivals_.upcoming());
      ++finished_.unmeasured;
    }
  }

  const Options* options_;
  const Workload* workload_;
  Cohort* cohort_;
  Arrivals arrivals_;
  Measurement finished_;
};

}  // namespace

Measurement measure(const Options& options, const Workload& workload, Cohort* cohort) {
  return Run(options, workload, cohort)();
}

}  // namespace eclip::replay
