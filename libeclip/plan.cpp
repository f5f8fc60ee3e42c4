// What the plan says of this worker, and what the worker says for the plan.
#include <algorithm>
#include <cmath>

#include "ipc/plan_table.h"
#include "libeclip/context.h"
#include "libeclip/errors.h"
#include "libeclip/versioned_struct.h"

namespace eclip {
namespace {

static_assert(ECLIP_NO_MASK == PlanTable::no_mask);

/// Changes of plan that one look-up follows.
constexpr int most_tries = 3;
/// Rates and ratios above are mistakes.
constexpr double most = 1e6;

int lookup(const eclip_context& context, std::uint32_t active, std::uint32_t kernel,
           eclip_plan_entry& entry) {
  const PlanReader reader(context.state().plans, context.board().plan_epoch);
  for (int tries = 0; tries < most_tries; ++tries) {
    const std::uint64_t epoch = reader.epoch();
    const auto groups = reader.groups(epoch);
    if (groups) {
      const std::uint32_t group = groups->of(kernel);
      if (const auto stream = reader.stream(epoch, active, group)) {
        entry.worker = groups->seat;
        entry.epoch = epoch;
        entry.stream = *stream;
        entry.first_kernel = groups->first_kernel[group];
        entry.end_kernel = groups->end(group);
        return 0;
      }
    }
    if (reader.epoch() == epoch)
      return report(ENOENT, "the plan has no stream for this worker among those active workers");
  }
  return report(EAGAIN, "plans change faster than they can be read");
}

/// In thousandths; 0 stays 0, and what is not 0 does not become it.
std::uint32_t thousandths(double value) {
  return value == 0 ? 0 : static_cast<std::uint32_t>(std::max(1.0, std::round(value * 1000)));
}

}  // namespace
}  // namespace eclip

int eclip_plan_lookup(eclip_context* context, uint32_t active_workers, uint32_t kernel,
                      struct eclip_plan_entry* entry) {
  return eclip::guarded([&] {
    if (context == nullptr) return eclip::report(EINVAL, "the context is NULL");
    if (const int failed = eclip::check_struct_size(entry); failed != 0) return failed;
    eclip_plan_entry found{};
    if (const int failed = eclip::lookup(*context, active_workers, kernel, found); failed != 0)
      return failed;
    eclip::write_struct(found, entry);
    return 0;
  });
}

int eclip_report_load(eclip_context* context, double requests_per_s, double time_ratio) {
  return eclip::guarded([&] {
    if (context == nullptr) return eclip::report(EINVAL, "the context is NULL");
    for (const double value : {requests_per_s, time_ratio})
      if (!(value >= 0 && value <= eclip::most))
        return eclip::report(EINVAL, "a rate or ratio must be a number from 0 to 1000000");
    eclip::WorkerRequest& request = context->request();
    request.requests_per_1000_s.store(eclip::thousandths(requests_per_s),
                                      std::memory_order_relaxed);
    request.time_permille.store(eclip::thousandths(time_ratio), std::memory_order_relaxed);
    return 0;
  });
}
