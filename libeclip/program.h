// What the opaque handles of the scheduler's C ABI stand for.
#pragma once

#include <array>
#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "libeclip/scheduled_rings.h"

struct eclip_program {
  eclip_scheduler* owner = nullptr;
  eclip::Program* program = nullptr;
  std::uint32_t number = 0;    ///< of the scheduler's programs
  std::uint32_t end = 0;       ///< event, for eclip_program_wait
  eclip::EventUse ended{};     ///< its last recording
  std::uint64_t ended_at = 0;  ///< operations then
};

struct eclip_scheduler {
  eclip_scheduler(eclip_context& owner, eclip::ScheduledRings::Grant granted);
  eclip_scheduler(const eclip_scheduler&) = delete;
  eclip_scheduler& operator=(const eclip_scheduler&) = delete;
  ~eclip_scheduler();

  /// Destroys it; in a child of fork(), where its thread is not, forgets it. Null is allowed.
  static void end(std::unique_ptr<eclip_scheduler> scheduler);

  void start_thread();
  /// After an operation: the thread goes on, unless it waits for the program's packets anyway.
  void wake_thread(const eclip_program& program);
  /// The completions that programs wait for, and which programs. They are as of the last advance.
  struct Awaited {
    std::array<eclip::SignalUse, eclip::Scheduler::most_programs> uses{};
    std::uint32_t count = 0;
    std::uint32_t programs = 0;  ///< a set
  };
  [[nodiscard]] Awaited awaited() const;

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
  std::atomic<std::uint32_t> program_count{0};

  std::mutex mutex;  // guards copies, and making programs
  std::list<Copy> copies;

  /// Raised with each thing that a waiting thread may want to look at and no signal tells of; a
  /// futex.
  std::atomic<std::uint32_t> changes{0};
  static constexpr std::uint32_t asleep = 1U << 31U;
  /// 0, or `asleep` and the set of programs for whose packets the thread waits.
  std::atomic<std::uint32_t> thread_state{0};
  std::atomic<bool> stopping{false};
  std::thread thread;

 private:
  void run_thread();
  bool run_thread_once();
  [[nodiscard]] bool all_gone() const;
};
