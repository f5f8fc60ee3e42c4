#include "tools/eclip-replay/reattaching_runner.h"

#include <fmt/core.h>

namespace eclip::replay {

ReattachingRunner::ReattachingRunner(const Options& options, const Program& program,
                                     const eclip_connect_options& connect)
    : options_(options), session_({.connect = &connect}, [&options, &program](Connection& to) {
        return make_runner(to, program, options);
      }) {
  before_.session.emplace();
  session_.on_loss([this](const RequestRunner& runner) { give_up(runner); });
  if (Connection* connection = session_.connection())
    gpu_ = connection->gpu();
  else
    throw ApiError(ENOTCONN, session_.last_failure());
}

bool ReattachingRunner::run(RequestRunner::Clock::time_point next) {
  const Outcome outcome = session_.run([this, next](RequestRunner& runner) {
    runner.run(next);
    acknowledge(runner);
  });
  if (outcome != Outcome::without_eclipd) {
    last_attached_ = Clock::now();
    return outcome == Outcome::done;
  }
  if (!session_.wait_until_attached(time_without_eclipd) &&
      Clock::now() - last_attached_ > options_.timeout)
    throw ApiError(ENOTCONN, fmt::format("eclipd did not come back within {} s: {}",
                                         options_.timeout.count(), session_.last_failure()));
  return false;
}

void ReattachingRunner::acknowledge(const RequestRunner& runner) {
  const MixChain* chain = runner.mix_chain();
  if (chain == nullptr) return;
  acknowledged_ = chain->mark();
  // The first wrong value is what the report shows.
  if (!mix_ || mix_->matches()) mix_ = MixOutcome{chain->value(), chain->expected()};
}

void ReattachingRunner::give_up(const RequestRunner& runner) {
  before_.session->losses_ns.push_back(
      std::chrono::nanoseconds(Clock::now().time_since_epoch()).count());
  before_.packets += runner.packets();
  before_.switches += runner.switches();
  const MixChain* chain = runner.mix_chain();
  if (chain == nullptr) return;
  if (const auto value = chain->value_at(acknowledged_); value && mix_ && mix_->matches())
    mix_ = MixOutcome{*value, acknowledged_.expected};
  acknowledged_ = {};
}

double ReattachingRunner::device_time_rate() {
  if (Connection* connection = session_.connection()) gpu_ = connection->gpu();
  return gpu_.device_time_rate;
}

Work ReattachingRunner::work() {
  Work work = before_;
  if (const RequestRunner* runner = session_.state()) {
    const Work now = work_of(*runner);
    work.packets += now.packets;
    work.switches += now.switches;
    work.streams = now.streams;
    work.scheduler = now.scheduler;
  }
  work.mix = mix_;
  const auto& counts = session_.counts();
  work.session->done = counts.done;
  work.session->failed = counts.not_done;
  work.session->without_eclipd = counts.without_eclipd;
  work.session->reattachments = counts.reattachments;
  return work;
}

}  // namespace eclip::replay
