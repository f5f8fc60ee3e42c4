// Requests are found in traces whatever is around them, and what cannot be compared is named.
#include "daemon/model/request_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>

namespace eclip::model {
namespace {

using ::testing::HasSubstr;

/// Builds a trace of kernels that are named by letters; a kernel's time is its place in the
/// alphabet, times 100 over the CUs.
class TraceBuilder {
 public:
  explicit TraceBuilder(std::uint32_t cus, std::string source = {}) {
    trace.cus = cus;
    trace.source = source.empty() ? "trace" + std::to_string(cus) : std::move(source);
    for (char c = 'a'; c <= 'z'; ++c) trace.names.emplace_back(1, c);
  }
  /// Kernels that the host submits at once.
  TraceBuilder& add(const std::string& kernels, double slower = 1) {
    now_us_ += 20;
    for (const char c : kernels) {
      const auto name = static_cast<std::uint32_t>(c - 'a');
      const double duration_us = (name + 1) * 100.0 / trace.cus * slower;
      trace.kernels.push_back({name, {.workgroups = 10 + name}, now_us_, duration_us});
      now_us_ += duration_us + 1;
    }
    return *this;
  }
  TraceBuilder& repeat(const std::string& kernels, int times) {
    for (int i = 0; i < times; ++i) add(kernels);
    return *this;
  }

  Trace trace;

 private:
  double now_us_ = 5;
};

std::string kernels_of(const ProfileDocument& document) {
  std::string names;
  for (const KernelRow& kernel : document.kernels) names += kernel.name;
  return names;
}

Result<ProfileDocument> match(const std::vector<Trace>& traces, const MatchOptions& options = {}) {
  MatchReport report;
  return profile_from_traces(traces, options, report);
}

std::string found(const Trace& trace) {
  const auto document = match({trace});
  return document ? kernels_of(*document) : document.error().message();
}

TEST(RequestPattern, FindsWhatRepeats) {
  EXPECT_EQ(found(TraceBuilder(10).repeat("abcabd", 5).trace), "abcabd");
  EXPECT_EQ(found(TraceBuilder(10).repeat("a", 5).trace), "a");
}

TEST(RequestPattern, WarmUpIsNoRequest) {
  EXPECT_EQ(found(TraceBuilder(10).add("xyzzyabc").repeat("abcde", 6).add("xy").trace), "abcde");
  // Not even one of the same kernels.
  EXPECT_EQ(found(TraceBuilder(10).add("aabbccddee").repeat("abcde", 6).trace), "abcde");
}

TEST(RequestPattern, RepeatedLayersAreNotRequests) {
  std::string layers;
  for (int i = 0; i < 12; ++i) layers += "bcd";
  EXPECT_EQ(found(TraceBuilder(10).repeat("a" + layers + "e", 4).trace), "a" + layers + "e");
  // Without any kernel that a request has once.
  EXPECT_EQ(found(TraceBuilder(10).repeat("bbbbbcccccbbb", 4).trace).size(), 13U);
}

TEST(RequestPattern, ATraceFromTheMiddleOfARequestToTheMiddleOfAnother) {
  // More kernels are covered by what begins with "de"; the host's pauses tell.
  EXPECT_EQ(found(TraceBuilder(10).add("defgh").repeat("abcdefgh", 4).add("abcde").trace),
            "abcdefgh");
}

TEST(RequestPattern, ATailThatVariesIsLeftOut) {
  TraceBuilder builder(10);
  for (const char* tail : {"x", "yy", "", "xyx", "z", "zyx", "xx", "yz"})
    builder.add("abcdefghij").add(tail);
  EXPECT_EQ(found(builder.trace), "abcdefghij");
}

TEST(RequestPattern, RandomTracesComeToTheRequestThatMadeThem) {
  std::mt19937 random(5);
  for (int round = 0; round < 60; ++round) {
    std::string body;
    const std::size_t length = 5 + random() % 60;
    for (std::size_t i = 0; i < length; ++i) body += static_cast<char>('a' + random() % 8);
    body += 'k';  // so that it is no repetition itself
    TraceBuilder builder(10);
    for (std::size_t i = random() % 30; i > 0; --i)
      builder.add(std::string(1, static_cast<char>('p' + random() % 4)));
    const std::size_t requests = 4 + random() % 10;
    for (std::size_t i = 0; i < requests; ++i) {
      builder.add(body);
      // Of kernels of other names, each as often as it happens.
      for (std::size_t k = random() % 3; k > 0; --k)
        builder.add(std::string(1, static_cast<char>('u' + random() % 6)));
    }
    const std::string names = found(builder.trace);
    // Tails that happen to begin alike in all requests are part of it.
    EXPECT_EQ(names.substr(0, body.size()), body) << "round " << round;
    EXPECT_LE(names.size(), body.size() + 2) << "round " << round;
  }
}

TEST(RequestPattern, TimesAreMediansWithTheirSpread) {
  TraceBuilder builder(10);
  builder.add("abc", 50);  // does not count
  for (const double slower : {1.0, 1.2, 1.1, 9.0, 1.0}) builder.add("abc", slower);
  const auto document = match({builder.trace});
  ASSERT_TRUE(document) << document.error().message();
  EXPECT_EQ(document->samples, std::vector<std::uint32_t>{5});
  EXPECT_NEAR(document->kernels[1].time_us[0], 20 * 1.1, 1e-9);
  EXPECT_NEAR(document->kernels[1].iqr_us[0], 20 * 0.2, 1e-9);
  EXPECT_NEAR(document->request_us_at_cu_counts.at(10), 60 * 1.1 + 2, 1e-9);
}

TEST(RequestPattern, TracesWithDifferentWarmUpAndNumbersOfRequestsAreMatched) {
  const std::vector<Trace> traces{TraceBuilder(30).add("zzzx").repeat("abcd", 7).trace,
                                  TraceBuilder(60).repeat("abcd", 4).add("ab").trace,
                                  TraceBuilder(30).add("x").repeat("abcd", 3).trace};
  MatchReport report;
  const auto document = profile_from_traces(traces, {}, report);
  ASSERT_TRUE(document) << document.error().message();
  EXPECT_EQ(kernels_of(*document), "abcd");
  EXPECT_EQ(document->cu_counts, (std::vector<std::uint32_t>{30, 60}));
  EXPECT_EQ(document->samples, (std::vector<std::uint32_t>{6 + 2, 3}));
  EXPECT_EQ(report.requests, (std::vector<std::size_t>{7, 4, 3}));
  EXPECT_EQ(report.outside, (std::vector<std::size_t>{4, 2, 1}));
  EXPECT_EQ(report.overlaps, 0U);
  EXPECT_EQ(document->kernels[2].time_us, (std::vector<double>{10, 5}));
}

TEST(RequestPattern, AKernelThatDiffersBetweenTracesIsNamed) {
  const auto document = match(
      {TraceBuilder(30).repeat("abcdef", 5).trace, TraceBuilder(60).repeat("abcxef", 5).trace});
  ASSERT_FALSE(document);
  EXPECT_THAT(document.error().message(), HasSubstr("trace60: no request in it is as those of "
                                                    "trace30: kernel 3 of a request is 'd' (13 "
                                                    "workgroups) there, 'x' (33 workgroups) here"));
}

TEST(RequestPattern, OtherWorkgroupsAreAnotherKernel) {
  Trace other = TraceBuilder(60).repeat("abcdef", 5).trace;
  for (TracedKernel& kernel : other.kernels)
    if (kernel.name == 4) kernel.shape.workgroups = 999;
  const auto document = match({TraceBuilder(30).repeat("abcdef", 5).trace, other});
  ASSERT_FALSE(document);
  EXPECT_THAT(document.error().message(), HasSubstr("'e' (999 workgroups) here"));
}

TEST(RequestPattern, NothingRepeats) {
  EXPECT_THAT(found(TraceBuilder(10).add("abcdefg").trace), HasSubstr("nothing repeats"));
  EXPECT_THAT(found(TraceBuilder(10).trace), HasSubstr("has no kernels"));
  EXPECT_FALSE(match({}));
}

TEST(RequestPattern, TheNumberOfKernelsCanBeGiven) {
  // All kernels equal: nothing else could tell.
  const auto document =
      match({TraceBuilder(10).repeat("a", 12).trace}, {.skip = 0, .kernels_per_request = 4});
  ASSERT_TRUE(document) << document.error().message();
  EXPECT_EQ(kernels_of(*document), "aaaa");
  EXPECT_EQ(document->samples[0], 3U);
  // One request is enough then.
  const auto one =
      match({TraceBuilder(10).add("abc").trace}, {.skip = 0, .kernels_per_request = 3});
  ASSERT_TRUE(one) << one.error().message();
  EXPECT_EQ(kernels_of(*one), "abc");
}

TEST(RequestPattern, MoreSkippedThanThereAre) {
  const auto document = match({TraceBuilder(10).repeat("abc", 3).trace}, {.skip = 3});
  ASSERT_FALSE(document);
  EXPECT_THAT(document.error().message(), HasSubstr("has 3 requests, of which the first 3"));
}

TEST(RequestPattern, KernelsThatOverlapAreCounted) {
  Trace trace = TraceBuilder(10).repeat("abc", 4).trace;
  for (TracedKernel& kernel : trace.kernels)
    if (kernel.name == 1) kernel.start_us -= 5;
  MatchReport report;
  ASSERT_TRUE(profile_from_traces(std::vector{trace}, {}, report));
  EXPECT_EQ(report.overlaps, 3U);
}

TEST(RequestPattern, AHundredThousandKernelsTakeSeconds) {
#if defined(ECLIP_SANITIZED)
  GTEST_SKIP() << "a sanitizer's time says nothing";
#endif
  std::mt19937 random(1);
  std::string body;
  for (int i = 0; i < 1500; ++i) body += static_cast<char>('a' + random() % 20);
  TraceBuilder builder(10);
  std::string warm_up;
  for (int i = 0; i < 10'000; ++i) warm_up += static_cast<char>('a' + random() % 26);
  builder.add(warm_up).repeat(body, 60);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(found(builder.trace), body);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace
}  // namespace eclip::model
