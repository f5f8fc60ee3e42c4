#include "ipc/testpoint.h"

#ifdef ECLIP_TESTPOINTS

#include <sys/mman.h>

#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <new>
#include <optional>
#include <string_view>

namespace eclip::testpoint {
namespace {

constexpr std::string_view prefix = "eclip-testpoint:";

struct Order {
  std::string_view name;
  int signal = SIGKILL;
  unsigned at = 1;
};

/// "NAME:kill|stop|segv[:N]". What cannot be read arms nothing.
std::optional<Order> parse(const char* text) {
  if (text == nullptr) return std::nullopt;
  const std::string_view whole(text);
  const std::size_t colon = whole.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  Order order{.name = whole.substr(0, colon)};
  std::string_view what = whole.substr(colon + 1);
  if (const std::size_t second = what.find(':'); second != std::string_view::npos) {
    const std::string_view number = what.substr(second + 1);
    std::from_chars(number.data(), number.data() + number.size(), order.at);
    what = what.substr(0, second);
  }
  if (what == "stop")
    order.signal = SIGSTOP;
  else if (what == "segv")
    order.signal = SIGSEGV;
  else if (what != "kill")
    return std::nullopt;
  return order;
}

const std::optional<Order> order = parse(std::getenv("ECLIP_TESTPOINT"));
/// How often the point was reached, by this process and by those that it forked: the N-th time
/// comes once, though eclipd starts another serving process then. Null when no point is armed.
std::atomic<unsigned>* map_count() {
  if (!order) return nullptr;
  void* const shared = ::mmap(nullptr, sizeof(std::atomic<unsigned>), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return shared == MAP_FAILED ? nullptr : new (shared) std::atomic<unsigned>(0);
}
std::atomic<unsigned>* const reached = map_count();

}  // namespace

const bool armed = reached != nullptr;

void reach(const char* name) {
  if (std::string_view(name).substr(prefix.size()) != order->name) return;
  if (reached->fetch_add(1) + 1 != order->at) return;
  // A sanitizer's handler would write a report and exit instead.
  if (order->signal == SIGSEGV) std::signal(SIGSEGV, SIG_DFL);
  std::raise(order->signal);
}

}  // namespace eclip::testpoint

#endif
