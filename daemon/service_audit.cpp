// Service: the ledger of all processes' queues, and what the log says of the budget.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "daemon/processes.h"
#include "daemon/service.h"
#include "ipc/printable.h"

namespace eclip::daemon {
namespace {

/// Between looks at the queues of other processes.
constexpr std::chrono::seconds audit_tick{1};
/// Processes that one look names; the others are counted.
constexpr std::size_t most_named = 5;

}  // namespace

Result<std::vector<Service::LedgerEntry>> Service::all_queues() const {
  // What system calls return does not tell which queue has a mask.
  bool by_guard = false;
  if (guard_) {
    const auto state = guard_->state();
    by_guard = state && state->tier.accounting != guard_by_returns;
  }
  const auto seen = by_guard ? guard_->queues()
                    : ioctl_probe_
                        ? ioctl_probe_->queues()
                        : Result<std::vector<bpf::KfdQueues>>(tl::unexpected(ioctl_probe_.error()));
  if (!seen) return tl::unexpected(seen.error());
  std::map<std::pair<pid_t, std::uint32_t>, LedgerEntry> entries;
  // Probes of the driver's functions do not tell the GPU (0): each eclipd takes it for its own.
  const auto entry_of = [&](const bpf::KfdQueues& of) -> LedgerEntry& {
    const std::uint32_t gpu_id = of.gpu_id != 0 ? of.gpu_id : device_->topology().driver_id;
    LedgerEntry& entry = entries[{of.pid, gpu_id}];
    entry.pid = of.pid;
    entry.gpu_id = gpu_id;
    return entry;
  };
  for (const auto& of : *seen) {
    // A process that has executed another program may still have the queues of the one before.
    LedgerEntry& entry = entry_of(of);
    entry.alive += of.alive;
    entry.masked += of.masked;
  }
  for (const auto& of : queues_of_the_driver()) {
    LedgerEntry& entry = entry_of(of);
    if (of.alive <= entry.alive) continue;
    entry.from_before = of.alive - entry.alive;
    entry.alive = of.alive;
  }
  std::vector<LedgerEntry> ledger;
  ledger.reserve(entries.size());
  for (const auto& [key, entry] : entries) ledger.push_back(entry);
  return ledger;
}

Result<void> Service::take_lease_on_budget(std::size_t streams) {
  if (!guard_) return {};
  if (auto covered = guard_->cover(device_->topology().driver_id); !covered) return covered;
  if (auto granted = guard_->grant(::getpid(), static_cast<std::uint32_t>(streams)); !granted)
    return granted;
  // An eclipd that has just died may still have its queues: the driver destroys them in its time.
  constexpr std::chrono::seconds patience{5};
  const auto give_up = Clock::now() + patience;
  while (true) {
    const auto state = guard_->state();
    if (!state) return tl::unexpected(state.error());
    if (state->policy != guard_enforce ||
        state->in_use + static_cast<std::int64_t>(streams) <= state->limit)
      return {};
    if (Clock::now() > give_up) {
      std::string holders;
      if (const auto ledger = all_queues())
        for (const auto& of : *ledger)
          if (of.masked > 0)
            holders += "; process " + std::to_string(of.pid) + " '" + facts_of(of.pid).command +
                       "' has " + std::to_string(of.masked);
      return fail(Errc::budget_exceeded,
                  "the pool's " + std::to_string(streams) + " CU-masked streams and the " +
                      std::to_string(state->in_use) + " of others are more than the budget of " +
                      std::to_string(state->limit) + holders +
                      ": end them, make the pool smaller (pool.streams), or let it be "
                      "(eclipctl budget set audit)");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // no event tells of it
  }
}

std::map<pid_t, std::uint32_t> Service::unmanaged_masks() {
  std::map<pid_t, std::uint32_t> masks;
  const auto ledger = all_queues();
  if (!ledger) {
    // A guard that counts results, without the probe: nobody has asked for a ledger.
    if (ioctl_probe_ && !std::exchange(said_unaudited_, true))
      spdlog::warn("the budget is not audited: {}", ledger.error().message());
    return audited_masks_;
  }
  said_unaudited_ = false;
  for (const auto& of : *ledger)
    if (of.pid != ::getpid() && of.gpu_id == device_->topology().driver_id && of.masked > 0)
      masks[of.pid] = of.masked;
  return masks;
}

void Service::audit_budget() {
  audit_due_ = Clock::now() + audit_tick;
  audit_guard();
  auto masks = unmanaged_masks();
  const auto count_of = [](const auto& of, pid_t pid) {
    const auto found = of.find(pid);
    return found == of.end() ? 0U : found->second;
  };
  auto total = static_cast<std::uint32_t>(pool_size_);
  for (const auto& [pid, count] : masks) total += count;
  for (const auto& [pid, count] : masks) {
    if (count <= count_of(audited_masks_, pid)) continue;
    const ProcessFacts facts = facts_of(pid);
    spdlog::warn(
        "process {} '{}' of uid {} has {} CU-masked queues that are not eclipd's on this GPU; with "
        "the pool that is {} of a budget of {}{} (eclipctl budget)",
        pid, facts.command, facts.uid, count, total, Board::max_streams,
        total > Board::max_streams ? ": past it all of them become slower" : "");
  }
  for (const auto& [pid, count] : audited_masks_)
    if (count_of(masks, pid) < count)
      spdlog::info("process {} has {} CU-masked queues on this GPU now, {} before", pid,
                   count_of(masks, pid), count);
  audited_masks_ = std::move(masks);
  // Said once, and again for twice as many.
  const std::uint64_t unseen = ioctl_probe_ ? ioctl_probe_->unseen() : 0;
  if (unseen > 0 && unseen >= 2 * said_unseen_) {
    spdlog::warn("{} KFD calls or queues of all processes were not accounted: too many at a time",
                 unseen);
    said_unseen_ = unseen;
  }
}

void Service::audit_guard() {
  if (!guard_) return;
  if (!guard_->is_in_force()) {
    spdlog::warn(
        "the budget guard has been removed or replaced: eclipd's pool is under none until it "
        "restarts");
    guard_ = fail(Errc::not_found,
                  "the budget guard has been removed or replaced (eclipctl budget guard); restart "
                  "eclipd to have its pool under one");
    return;
  }
  const auto state = guard_->state();
  const auto denials = guard_->denials();
  if (!state || !denials) {
    const Error error = !state ? state.error() : denials.error();
    if (!std::exchange(said_unreadable_, true))
      spdlog::warn("the budget guard cannot be read: {}", error.message());
    return;
  }
  said_unreadable_ = false;
  if (state->unchecked > said_unchecked_)
    spdlog::error("{} KFD calls have reached the driver past the budget guard", state->unchecked);
  said_unchecked_ = state->unchecked;

  std::map<std::pair<std::uint64_t, std::uint32_t>, std::uint64_t> counts;
  std::size_t named = 0;
  std::uint64_t unnamed = 0;
  for (const DenialRecord& denial : *denials) {
    const std::pair key{denial.process_start_ns, denial.pid};
    const std::uint64_t now = denial.refused + denial.audited;
    counts[key] = now;
    const auto before = audited_denials_.find(key);
    // Of very many processes the map forgets some, and begins anew with them.
    const std::uint64_t known =
        before == audited_denials_.end() || before->second > now ? 0 : before->second;
    const std::uint64_t fresh = now - known;
    if (fresh == 0) continue;
    if (named++ >= most_named) {
      unnamed += fresh;
      continue;
    }
    spdlog::warn("process {} '{}' of uid {}: {} {}, {} times since it was last said, {} in all",
                 denial.pid, printable(denial.command.str()), denial.uid,
                 bpf::describe(static_cast<guard_reason>(denial.reason)),
                 state->policy == guard_enforce ? "was refused" : "was seen and let pass (audit)",
                 fresh, now);
  }
  if (unnamed > 0)
    spdlog::warn("the budget guard has refused or seen {} more, by {} other processes", unnamed,
                 named - most_named);
  audited_denials_ = std::move(counts);
}

}  // namespace eclip::daemon
