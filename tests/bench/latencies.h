// What every benchmark of latencies reports: p50, p99 and the longest, in nanoseconds.
#pragma once

#include <benchmark/benchmark.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace eclip::bench {

using Clock = std::chrono::steady_clock;

/// Collects one value for each iteration; reports when all are there.
class Latencies {
 public:
  explicit Latencies(benchmark::State& state) : state_(state) { values_.reserve(1 << 20); }
  Latencies(const Latencies&) = delete;
  Latencies& operator=(const Latencies&) = delete;
  ~Latencies() {
    if (values_.empty()) return;
    std::sort(values_.begin(), values_.end());
    const auto at = [this](double share) {
      return values_[static_cast<std::size_t>(share * static_cast<double>(values_.size() - 1))];
    };
    state_.counters["p50_ns"] = at(0.5);
    state_.counters["p99_ns"] = at(0.99);
    state_.counters["max_ns"] = values_.back();
  }

  /// `count` operations took so long together.
  void add(Clock::duration elapsed, double count = 1) {
    const std::chrono::duration<double, std::nano> nanoseconds = elapsed;
    values_.push_back(nanoseconds.count() / count);
    state_.SetIterationTime(std::chrono::duration<double>(elapsed).count());
  }

 private:
  benchmark::State& state_;
  std::vector<double> values_;
};

/// Keeps the calling thread, and those that it starts, on one CPU, where there are so many: two
/// threads that spin for each other must not share one.
inline void run_on_cpu(unsigned cpu) {
  cpu_set_t allowed;
  ::pthread_getaffinity_np(::pthread_self(), sizeof allowed, &allowed);
  static const cpu_set_t all = allowed;
  unsigned seen = 0;
  for (unsigned i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &all) || seen++ != cpu) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(i, &one);
    ::pthread_setaffinity_np(::pthread_self(), sizeof one, &one);
  }
}

/// So many operations took place in all iterations; shown per second.
inline void set_throughput(benchmark::State& state, double operations) {
  state.counters["per_second"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
}

}  // namespace eclip::bench
