#include "daemon/model/group_line.h"

#include <utility>

namespace eclip::model {
namespace {

void touch(Residency& kernel, std::vector<Residency*>& touched) {
  if (!std::exchange(kernel.touched, true)) touched.push_back(&kernel);
}

}  // namespace

std::size_t GroupLine::place_of(const Residency& kernel) const {
  const auto place = std::lower_bound(
      places_.begin(), places_.end(), kernel.arrival,
      [](const Place& other, std::uint64_t arrival) { return other.arrival < arrival; });
  return static_cast<std::size_t>(place - places_.begin());
}

bool GroupLine::deal_from(std::size_t place) {
  if (place > holders_ || (place == holders_ && left_before(place).free == 0)) return false;
  return std::exchange(deal_from_, std::min(deal_from_, place)) == nowhere;
}

bool GroupLine::join(Residency& kernel, std::size_t index) {
  const std::size_t place = place_of(kernel);
  places_.insert(places_.begin() + static_cast<std::ptrdiff_t>(place),
                 {kernel.arrival, &kernel, index, {}});
  if (place < holders_) ++holders_;
  return deal_from(place);
}

bool GroupLine::leave(const Residency& kernel) {
  const std::size_t place = place_of(kernel);
  places_.erase(places_.begin() + static_cast<std::ptrdiff_t>(place));
  if (place >= holders_) return false;
  --holders_;
  return deal_from(place);
}

void GroupLine::deal_all() {
  holders_ = places_.size();
  deal_from_ = 0;
}

void GroupLine::deal(double cus, std::vector<Residency*>& touched) {
  const std::size_t first = std::exchange(deal_from_, nowhere);
  const std::size_t held_before = std::exchange(holders_, first);
  Left left = left_before(first);
  for (std::size_t at = first; at < places_.size() && (left.free != 0 || at < held_before); ++at) {
    Place& place = places_[at];
    if (left.free != 0) holders_ = at + 1;
    const double slots = place.kernel->slots();
    const double part = left.free >= slots ? 1 : left.free / slots;
    left.free -= part * slots;
    left.load += part * place.kernel->occupancy.load;
    place.left = left;
    place.kernel->held[place.index] = part * cus;
    touch(*place.kernel, touched);
  }
  const double load = left_before(holders_).load;
  if (std::exchange(load_, load) == load) return;
  for (std::size_t at = 0; at < first; ++at) touch(*places_[at].kernel, touched);
}

}  // namespace eclip::model
