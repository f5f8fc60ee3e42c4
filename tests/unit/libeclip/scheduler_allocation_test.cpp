// The scheduler does not allocate: a program of its own, all of whose allocations are counted.
#include <cstdlib>
#include <new>

#include "tests/unit/libeclip/scheduler_fixture.h"

namespace {
std::atomic<std::uint64_t> scheduler_test_allocations{0};
}  // namespace

// All of this program's allocations are counted.
void* operator new(std::size_t size) {
  scheduler_test_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  scheduler_test_allocations.fetch_add(1, std::memory_order_relaxed);
  const auto align = static_cast<std::size_t>(alignment);
  if (void* const memory = std::aligned_alloc(align, (size + align - 1) / align * align))
    return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*size*/) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t /*size*/, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}

namespace eclip::test {
namespace {

TEST_F(SchedulerTest, DoesNotAllocate) {
  put_in_force(pairs({0, 1, 0}));
  sink.sent.reserve(10'000);
  std::array<std::uint32_t, 4> events{new_event(), new_event(), new_event(), new_event()};
  Program& first = program();
  Program& second = another();
  const std::uint64_t before = scheduler_test_allocations.load();
  for (int round = 0; round < 100; ++round) {
    std::array<EventUse, 1> use{};
    scheduler.begin_request(first);
    for (std::uint32_t k = 0; k < 6; ++k) scheduler.dispatch(first, kernel(k + 1));
    scheduler.end_request(first);
    scheduler.record(first, events[static_cast<std::size_t>(round % 4)], use.data());
    scheduler.wait(second, use);
    scheduler.call(
        second, [](void*) {}, nullptr);
    scheduler.dispatch(second, kernel(9));
    for (int i = 0; i < 4; ++i) {
      sink.complete_all();
      scheduler.advance();
    }
  }
  EXPECT_EQ(scheduler_test_allocations.load(), before);
  EXPECT_EQ(scheduler.requests_done(first), 100U);
}

}  // namespace
}  // namespace eclip::test
