// A PacketSink that keeps what it gets and completes it on command.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "libeclip/scheduler.h"

namespace eclip::test {

inline LeaseDispatch kernel(std::uint32_t id, std::uint32_t workgroups = 1) {
  LeaseDispatch dispatch{};
  dispatch.kernel = id;
  dispatch.grid_size = {64 * workgroups, 1, 1};
  dispatch.workgroup_size = {64, 1, 1};
  return dispatch;
}

class RecordingSink : public PacketSink {
 public:
  struct Sent {
    std::uint32_t stream;
    LeasePacket packet;
  };

  [[nodiscard]] bool has_stream(std::uint32_t stream) const override {
    return streams.contains(stream);
  }
  Pushed push(std::uint32_t stream, const LeasePacket& packet) override {
    if (lost) return Pushed::lost;
    if (room == 0 || refused_pushes_ < refusals) {
      ++refused_pushes_;
      return Pushed::full;
    }
    refused_pushes_ = 0;
    --room;
    sent.push_back({stream, packet});
    if (packet.completion.generation != 0)
      signals_[packet.completion.signal].pushed.store(packet.completion.generation);
    return Pushed::yes;
  }
  std::optional<SignalUse> begin_use(std::uint32_t signal) override {
    Signal& of = signals_[signal];
    const std::uint32_t begun = of.begun.load();
    if (signal >= usable_signals || of.done.load() != begun) return std::nullopt;
    if (refused_signals_ < refusals) {
      ++refused_signals_;
      return std::nullopt;
    }
    refused_signals_ = 0;
    of.begun.store(begun + 1);
    return SignalUse{signal, begun + 1};
  }
  void cancel_use(SignalUse use) override { signals_[use.signal].begun.store(use.generation - 1); }
  [[nodiscard]] bool is_complete(SignalUse use) const override {
    return use.generation == 0 || signals_[use.signal].done.load() >= use.generation;
  }
  [[nodiscard]] std::optional<Times> times(SignalUse use) const override {
    const Signal& of = signals_[use.signal];
    return of.begun.load() == use.generation ? of.times : std::nullopt;
  }

  void complete(SignalUse use, std::optional<Times> times = std::nullopt) {
    signals_[use.signal].times = times;
    signals_[use.signal].done.store(use.generation);
  }
  void complete_all_but(SignalUse use) {
    for (std::uint32_t i = 0; i < signal_count; ++i)
      if (i != use.signal) signals_[i].done.store(signals_[i].begun.load());
  }
  void complete_all() {
    for (auto& each : signals_) each.done.store(each.begun.load());
  }
  /// What has been pushed so far. Any thread.
  void complete_pushed() {
    for (auto& each : signals_) each.done.store(each.pushed.load());
  }

  /// What was sent since the last take: stream:K<kernel> or stream:B(<signal.generation>,...),
  /// then > and the completion signal, then ! when it ends a group.
  std::string take() {
    std::string text;
    for (; taken_ < sent.size(); ++taken_) text += (text.empty() ? "" : " ") + name(sent[taken_]);
    return text;
  }
  /// The same of the kernels only, without signals.
  std::string take_kernels() {
    std::string text;
    for (; taken_ < sent.size(); ++taken_) {
      Sent each = sent[taken_];
      if (each.packet.type != LeasePacketType::dispatch) continue;
      each.packet.completion = {0, 0};
      each.packet.flags = 0;
      text += (text.empty() ? "" : " ") + name(each);
    }
    return text;
  }

  std::vector<Sent> sent;
  std::set<std::uint32_t> streams{0, 1, 2, unmasked};
  std::size_t room = SIZE_MAX;
  std::uint32_t refusals = 0;  ///< of each packet and of each signal, before it is taken
  std::uint32_t usable_signals = signal_count;
  bool lost = false;

 private:
  struct Signal {
    std::atomic<std::uint32_t> begun{0};
    std::atomic<std::uint32_t> pushed{0};
    std::atomic<std::uint32_t> done{0};
    std::optional<Times> times;
  };

  static std::string name(const SignalUse& use) {
    return std::to_string(use.signal) + "." + std::to_string(use.generation);
  }
  static std::string name(const Sent& each) {
    std::string text = std::to_string(each.stream) + ":";
    if (each.packet.type == LeasePacketType::dispatch) {
      text += "K" + std::to_string(each.packet.dispatch.kernel);
    } else {
      std::string uses;
      for (const SignalUse& use : each.packet.barrier.dependencies)
        if (use.generation != 0) uses += (uses.empty() ? "" : ",") + name(use);
      text += "B(" + uses + ")";
    }
    if (each.packet.completion.generation != 0) text += ">" + name(each.packet.completion);
    if ((each.packet.flags & LeasePacket::flag_group_end) != 0) text += "!";
    return text;
  }

  std::array<Signal, signal_count> signals_;
  std::size_t taken_ = 0;
  std::uint32_t refused_pushes_ = 0;
  std::uint32_t refused_signals_ = 0;
};

}  // namespace eclip::test
