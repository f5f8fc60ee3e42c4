// $ECLIP_RECORD: what each dispatch of a connection took, by the GPU's own clock, in a file.
//
// While recording, each dispatch gets the barrier bit, so that no two kernels of a lease run at
// once, and a completion signal: its own if it has one, else one of the recorder's. Its times are
// read once it has completed, and before its signal is used again.
//
// The file is text, one line for each event, in the order in which packets were submitted:
//
//   eclip-record 1
//   gpu CUS NAME
//   worker NAME
//   kernel HANDLE IMAGE-HASH OFFSET REGISTERS    of a kernel; the hash, hexadecimal, of its image
//   lease ID STREAM CUS
//   dispatch LEASE KERNEL GRID-X -Y -Z WORKGROUP-X -Y -Z LDS-BYTES START-NS END-NS
//   dropped LEASE KERNEL                         with its lease: it never ran
//   end                                          the worker disconnected
//
// eclip-profile record reads it (docs/profiles.md).
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "eclip/eclip.h"
#include "ipc/board.h"
#include "ipc/lease_ring.h"
#include "ipc/result.h"
#include "ipc/unique_fd.h"
#include "libeclip/signal_table.h"

namespace eclip {

/// Any thread may call anything.
class DispatchRecorder {
 public:
  /// Null when $ECLIP_RECORD is not set; else it names a directory, in which a new file is made.
  /// An Error when that fails. What is passed must outlive the recorder.
  static Result<std::unique_ptr<DispatchRecorder>> from_environment(const Board& board,
                                                                    const WorkerState& state,
                                                                    SignalTable& signals,
                                                                    std::string_view worker_name);
  ~DispatchRecorder();
  DispatchRecorder(const DispatchRecorder&) = delete;
  DispatchRecorder& operator=(const DispatchRecorder&) = delete;

  void code_loaded(std::uint32_t code, const void* image, std::uint64_t bytes);
  void kernel_registered(std::uint32_t kernel, std::uint32_t code, std::uint64_t offset);
  void lease_acquired(std::uint64_t lease, std::uint32_t stream, std::uint32_t cu_count);

  /// A signal for a dispatch that has none; nullopt while all are in use.
  std::optional<std::uint32_t> take_signal();
  /// Takes back a signal whose dispatch was not submitted.
  void give_back(std::uint32_t signal);
  /// Between a signal's begin_use() and the submission of its packet: the last moment for the times
  /// of its use before.
  void collect();
  /// A packet that was submitted; `own`: its signal is from take_signal().
  void submitted(std::uint64_t lease, const LeaseDispatch& dispatch, SignalUse use, bool own);

 private:
  struct InFlight {
    std::uint64_t lease;
    LeaseDispatch dispatch;
    SignalUse use;
    bool own;
    bool done = false;
    bool dropped = false;
    std::uint64_t start_ns = 0;
    std::uint64_t end_ns = 0;
  };
  struct Image {
    std::uint64_t hash;
    std::vector<std::byte> bytes;
  };

  DispatchRecorder(UniqueFd file, std::string path, const WorkerState& state, SignalTable& signals,
                   std::uint64_t gpu_counter_hz);
  void collect_locked();
  void read_times(InFlight& packet);
  void write_line(const std::string& line);
  void flush();

  UniqueFd file_;
  std::string path_;
  const WorkerState& state_;
  SignalTable& signals_;
  std::uint64_t gpu_counter_hz_;

  std::mutex mutex_;  // guards all below
  std::string unwritten_;
  std::unordered_map<std::uint32_t, Image> images_;  // by code handle
  std::vector<std::uint32_t> free_signals_;
  std::deque<InFlight> in_flight_;  // in the order of submission
};

}  // namespace eclip
