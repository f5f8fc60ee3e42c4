#include "tools/kfdsim/trace_writer.h"

#include <fmt/format.h>

#include <cerrno>
#include <nlohmann/json.hpp>

namespace eclip::kfdsim {
namespace {

/// A JSON string, quotes included. Process names may hold any byte: what is not UTF-8 is replaced.
std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

double in_microseconds(model::DeviceTime time) {
  return static_cast<double>(time.count()) / 1000;
}

}  // namespace

Result<TraceWriter> TraceWriter::create(const std::filesystem::path& file, std::string_view gpu) {
  std::unique_ptr<std::FILE, FileCloser> stream(std::fopen(file.c_str(), "we"));
  if (!stream) {
    return fail_errno(errno, fmt::format("cannot write the trace file {}", file.string()));
  }
  TraceWriter writer(std::move(stream), file);
  writer.write(fmt::format(
      R"({{"displayTimeUnit":"ms","otherData":{{"gpu":{},"clock":"device time of the simulation"}},)"
      R"("traceEvents":[)",
      json_string(fmt::format("{} simulated", gpu))));
  return writer;
}

TraceWriter::~TraceWriter() {
  static_cast<void>(close());
}

void TraceWriter::write(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), file_.get());
}

void TraceWriter::name_rows(const TracedPacket& packet) {
  constexpr std::uint32_t process_row = ~0U;
  const auto name = [this](std::string_view kind, pid_t pid, std::uint32_t row,
                           const std::string& text) {
    write(fmt::format(R"({}{{"ph":"M","name":"{}","pid":{},"tid":{},"args":{{"name":{}}}}})",
                      first_ ? "\n" : ",\n", kind, pid, row, json_string(text)));
    first_ = false;
  };
  if (named_.emplace(packet.pid, process_row).second) {
    name("process_name", packet.pid, 0, fmt::format("{} (simulated GPU)", packet.command));
  }
  if (named_.emplace(packet.pid, packet.queue).second) {
    name("thread_name", packet.pid, packet.queue, fmt::format("queue {}", packet.queue));
  }
}

void TraceWriter::add(const TracedPacket& packet) {
  if (!file_) return;
  name_rows(packet);
  write(fmt::format(
      R"(,{}{{"ph":"X","name":{},"cat":"simulated","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f},)"
      R"("args":{{"mask":{},"workgroups":{},"start_us":{:.3f},"end_us":{:.3f}}}}})",
      "\n", json_string(packet.name), packet.pid, packet.queue, in_microseconds(packet.start),
      in_microseconds(packet.end - packet.start), json_string(packet.mask), packet.workgroups,
      in_microseconds(packet.start), in_microseconds(packet.end)));
}

Result<void> TraceWriter::close() {
  if (!file_) return {};
  write("\n]}\n");
  const bool written = std::fflush(file_.get()) == 0 && std::ferror(file_.get()) == 0;
  const int error = errno;
  file_.reset();
  if (written) return {};
  return fail_errno(error, fmt::format("the trace file {} is incomplete", path_.string()));
}

}  // namespace eclip::kfdsim
