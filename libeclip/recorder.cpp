#include "libeclip/recorder.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ipc/clock_ticks.h"

namespace eclip {
namespace {

/// Dispatches in flight that the worker gave no signal.
constexpr std::size_t own_signals = 256;

/// compute_pgm_rsrc1 in a kernel descriptor (LLVM AMDGPU usage guide, "Kernel Descriptor"). Its
/// lowest six bits are the vector registers of a work item, in granules of four, less one: so on
/// gfx9 before gfx90a.
constexpr std::size_t descriptor_bytes = 64;
constexpr std::size_t rsrc1_offset = 48;
constexpr std::uint32_t granule_mask = 0x3F;
constexpr std::uint32_t registers_per_granule = 4;

/// FNV-1a.
std::uint64_t hash_of(const std::vector<std::byte>& bytes) {
  std::uint64_t hash = 0xCBF29CE484222325;
  for (const std::byte byte : bytes)
    hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001B3;
  return hash;
}

template <class... Values>
std::string line_of(const char* format, Values... values) {
  std::array<char, 256> line{};
  std::snprintf(line.data(), line.size(), format, values...);
  return line.data();
}

/// A name as one line.
std::string single_line(std::string_view name) {
  std::string line(name);
  for (char& c : line)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return line;
}

}  // namespace

Result<std::unique_ptr<DispatchRecorder>> DispatchRecorder::from_environment(
    const Board& board, const WorkerState& state, SignalTable& signals,
    std::string_view worker_name) {
  const char* directory = std::getenv("ECLIP_RECORD");
  if (directory == nullptr || *directory == '\0') return nullptr;
  static std::atomic<std::uint32_t> connections;
  std::string path = std::string(directory) + "/" + std::to_string(::getpid()) + "-" +
                     std::to_string(connections++) + ".eclip-record";
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file)
    return fail_errno(errno, "ECLIP_RECORD=" + std::string(directory) + ": create " + path +
                                 "; name a directory that can be written, or unset ECLIP_RECORD");
  std::unique_ptr<DispatchRecorder> recorder(
      new DispatchRecorder(std::move(file), std::move(path), state, signals, board.gpu_counter_hz));
  const std::string_view gpu(board.gpu_name.data(),
                             ::strnlen(board.gpu_name.data(), board.gpu_name.size()));
  recorder->write_line("eclip-record 1\ngpu " + std::to_string(board.gpu_cu_count) + " " +
                       single_line(gpu) + "\nworker " + single_line(worker_name));
  recorder->flush();
  return recorder;
}

DispatchRecorder::DispatchRecorder(UniqueFd file, std::string path, const WorkerState& state,
                                   SignalTable& signals, std::uint64_t gpu_counter_hz)
    : file_(std::move(file)),
      path_(std::move(path)),
      state_(state),
      signals_(signals),
      gpu_counter_hz_(gpu_counter_hz) {
  for (std::size_t i = 0; i < own_signals; ++i) {
    const auto signal = signals_.reserve();
    if (signal) free_signals_.push_back(*signal);
  }
}

DispatchRecorder::~DispatchRecorder() {
  collect_locked();
  write_line("end");
  flush();
}

void DispatchRecorder::code_loaded(std::uint32_t code, const void* image, std::uint64_t bytes) {
  const auto* from = static_cast<const std::byte*>(image);
  Image copy{.hash = 0, .bytes = {from, from + bytes}};
  copy.hash = hash_of(copy.bytes);
  const std::lock_guard lock(mutex_);
  images_.insert_or_assign(code, std::move(copy));
}

void DispatchRecorder::kernel_registered(std::uint32_t kernel, std::uint32_t code,
                                         std::uint64_t offset) {
  const std::lock_guard lock(mutex_);
  const Image& image = images_[code];
  std::uint32_t rsrc1 = 0;
  if (offset + descriptor_bytes <= image.bytes.size())
    std::memcpy(&rsrc1, image.bytes.data() + offset + rsrc1_offset, sizeof rsrc1);
  write_line(line_of("kernel %" PRIu32 " %016" PRIx64 " %" PRIu64 " %" PRIu32, kernel, image.hash,
                     offset, ((rsrc1 & granule_mask) + 1) * registers_per_granule));
}

void DispatchRecorder::lease_acquired(std::uint64_t lease, std::uint32_t stream,
                                      std::uint32_t cu_count) {
  const std::lock_guard lock(mutex_);
  write_line(line_of("lease %" PRIu64 " %" PRIu32 " %" PRIu32, lease, stream, cu_count));
}

std::optional<std::uint32_t> DispatchRecorder::take_signal() {
  const std::lock_guard lock(mutex_);
  if (free_signals_.empty()) collect_locked();
  if (free_signals_.empty()) return std::nullopt;
  const std::uint32_t signal = free_signals_.back();
  free_signals_.pop_back();
  return signal;
}

void DispatchRecorder::give_back(std::uint32_t signal) {
  const std::lock_guard lock(mutex_);
  free_signals_.push_back(signal);
}

void DispatchRecorder::submitted(std::uint64_t lease, const LeaseDispatch& dispatch, SignalUse use,
                                 bool own) {
  const std::lock_guard lock(mutex_);
  in_flight_.push_back({.lease = lease, .dispatch = dispatch, .use = use, .own = own});
}

void DispatchRecorder::collect() {
  const std::lock_guard lock(mutex_);
  collect_locked();
}

void DispatchRecorder::collect_locked() {
  for (InFlight& packet : in_flight_)
    if (!packet.done && signals_.is_complete(packet.use)) read_times(packet);
  while (!in_flight_.empty() && in_flight_.front().done) {
    const InFlight& packet = in_flight_.front();
    const LeaseDispatch& d = packet.dispatch;
    if (packet.dropped)
      write_line(line_of("dropped %" PRIu64 " %" PRIu32, packet.lease, d.kernel));
    else
      write_line(line_of("dispatch %" PRIu64 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32
                         " %d %d %d %" PRIu32 " %" PRIu64 " %" PRIu64,
                         packet.lease, d.kernel, d.grid_size[0], d.grid_size[1], d.grid_size[2],
                         d.workgroup_size[0], d.workgroup_size[1], d.workgroup_size[2],
                         d.group_segment_bytes, packet.start_ns, packet.end_ns));
    in_flight_.pop_front();
  }
  flush();
}

void DispatchRecorder::read_times(InFlight& packet) {
  const SignalSlot& slot = state_.signals[packet.use.signal];
  packet.done = true;
  packet.dropped = signals_.is_cancelled(packet.use);
  packet.start_ns = ticks_to_ns(__atomic_load_n(&slot.start_ts, __ATOMIC_ACQUIRE), gpu_counter_hz_);
  packet.end_ns = ticks_to_ns(__atomic_load_n(&slot.end_ts, __ATOMIC_ACQUIRE), gpu_counter_hz_);
  if (packet.own) free_signals_.push_back(packet.use.signal);
}

void DispatchRecorder::write_line(const std::string& line) {
  if (file_) unwritten_ += line + "\n";
}

void DispatchRecorder::flush() {
  for (std::size_t done = 0; file_ && done < unwritten_.size();) {
    const ssize_t size = ::write(file_.get(), unwritten_.data() + done, unwritten_.size() - done);
    if (size >= 0) {
      done += static_cast<std::size_t>(size);
    } else if (errno != EINTR) {
      // The worker's kernels matter more than their record, which says that it is not complete.
      std::fprintf(stderr, "eclip: recording ends: write %s: %s\n", path_.c_str(),
                   std::strerror(errno));
      file_.reset();
    }
  }
  unwritten_.clear();
}

}  // namespace eclip
