// What the opaque handles of the scheduler's C ABI stand for.
#pragma once

#include <array>
#include <atomic>
#include <list>
#include <mutex>
#include <thread>

#include "libeclip/scheduled_rings.h"

struct eclip_program {
  eclip_scheduler* owner = nullptr;
  eclip::Program* program = nullptr;
  std::uint32_t end = 0;  ///< event, for eclip_program_wait
};

struct eclip_scheduler {
  eclip_scheduler(eclip_context& owner, eclip::ScheduledRings::Grant granted);
  eclip_scheduler(const eclip_scheduler&) = delete;
  eclip_scheduler& operator=(const eclip_scheduler&) = delete;
  ~eclip_scheduler();

  void start_thread();
  /// After an operation: the thread goes on if it sleeps and there is something for it to do.
  void wake_thread();

  /// A copy that waits for its turn.
  struct Copy {
    eclip_scheduler* owner;
    void* to;
    const void* from;
    std::uint64_t bytes;
    std::list<Copy>::iterator self;
  };
  static void carry_out(void* copy);

  eclip_context* context;
  eclip::ScheduledRings::Grant grant;
  eclip::ScheduledRings rings;
  eclip::PlanTables no_plans{};            // with $ECLIP_CUS
  std::atomic<std::uint64_t> no_epoch{0};  // likewise
  eclip::Scheduler scheduler;
  std::array<eclip_program, eclip::Scheduler::most_programs> programs;
  std::uint32_t program_count = 0;

  std::mutex mutex;  // guards copies, and making programs
  std::list<Copy> copies;

  /// Raised with each thing that a waiting thread may want to look at and no signal tells of; a
  /// futex.
  std::atomic<std::uint32_t> changes{0};
  std::atomic<std::uint32_t> thread_asleep{0};
  std::atomic<bool> stopping{false};
  std::thread thread;

 private:
  void run_thread();
};
