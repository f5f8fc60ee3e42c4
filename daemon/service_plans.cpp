// Service: plans for its workers, and what administrators ask and say of them.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/service.h"
#include "ipc/region.h"

namespace eclip::daemon {
namespace {

constexpr std::uint64_t most_plan_bytes = 16UL << 20U;

Result<void> check_administrator(const Peer& peer) {
  if (peer.uid == 0 || peer.uid == ::geteuid()) return {};
  return fail(Errc::access_denied,
              "plans are for root and the user of eclipd to change, not for uid " +
                  std::to_string(peer.uid));
}

std::string name_of(const Peer& peer) {
  return "uid " + std::to_string(peer.uid);
}

}  // namespace

void Service::start_planning(PlanHistory history) {
  auto gpu = describe_for_plans(config_, device_->topology());
  if (!gpu) {
    spdlog::warn("eclipd does not plan: {}", gpu.error().message());
    plans_ = fail(gpu.error(), "eclipd does not plan");
    return;
  }
  plans_ =
      std::make_unique<PlanKeeper>(config_, std::move(*gpu), table_->masks(), board().plan_epoch,
                                   std::move(history), mailbox_, &active_set());
}

Result<std::vector<PlanPart>> Service::plan(std::uint64_t epoch) {
  if (!plans_) return tl::unexpected(plans_.error());
  const auto text = (*plans_)->text(epoch);
  if (!text) return tl::unexpected(text.error());
  std::vector<PlanPart> parts;
  for (std::string_view rest = **text; !rest.empty(); rest.remove_prefix(parts.back().bytes)) {
    PlanPart& part = parts.emplace_back();
    part.bytes = static_cast<std::uint32_t>(std::min(rest.size(), part.text.size()));
    std::copy_n(rest.begin(), part.bytes, part.text.begin());
  }
  return parts;
}

Result<std::vector<PlanRecord>> Service::plans() const {
  if (!plans_) return tl::unexpected(plans_.error());
  return (*plans_)->records();
}

Result<std::uint64_t> Service::apply_plan(const Peer& peer, std::uint64_t bytes, int fd) {
  if (!plans_) return tl::unexpected(plans_.error());
  if (auto may = check_administrator(peer); !may) return tl::unexpected(may.error());
  if (bytes == 0 || bytes > most_plan_bytes)
    return fail(Errc::invalid_argument, "a plan of " + std::to_string(bytes) + " bytes; 1 to " +
                                            std::to_string(most_plan_bytes) + " are possible");
  std::string text(bytes, '\0');
  if (auto read = read_memfd(fd, std::as_writable_bytes(std::span(text)), "a plan"); !read)
    return tl::unexpected(read.error());
  return (*plans_)->apply(text, name_of(peer));
}

Result<std::uint64_t> Service::choose_plan(const Peer& peer, const PlanChoice& choice) {
  if (!plans_) return tl::unexpected(plans_.error());
  if (auto may = check_administrator(peer); !may) return tl::unexpected(may.error());
  return (*plans_)->choose(choice, name_of(peer));
}

}  // namespace eclip::daemon
