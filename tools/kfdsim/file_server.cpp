#include "tools/kfdsim/file_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "tools/kfdsim/device_nodes.h"
#include "tools/kfdsim/drm_ioctls.h"
#include "tools/kfdsim/kfd_ioctls.h"
#include "tools/kfdsim/process_files.h"
#include "tools/kfdsim/report.h"

namespace eclip::kfdsim {
namespace {

struct StaticFile {
  std::string_view name;
  std::uint64_t node;
};
constexpr std::array<StaticFile, 4> static_files{{{"power1_average", power_node},
                                                  {"energy1_input", energy_node},
                                                  {"ioctls", ioctls_node},
                                                  {"mem_info_vram_used", vram_node}}};
constexpr std::string_view kfd_name = "kfd";
constexpr std::string_view render_name = "renderD128";

}  // namespace

void FileServer::handle(const FuseRequest& request) {
  switch (request.header.opcode) {
    case FUSE_LOOKUP:
      return lookup(request);
    case FUSE_GETATTR:
    case FUSE_SETATTR:
      return connection_.reply_object(request.header.unique,
                                      attribute_reply(request.header.nodeid));
    case FUSE_OPEN:
      return open(request);
    case FUSE_READ:
      return read(request);
    case FUSE_READDIR:
      return read_directory(request);
    case FUSE_OPENDIR:
      return connection_.reply_object(request.header.unique, fuse_open_out{});
    case FUSE_RELEASE:
      return release(request);
    case FUSE_RELEASEDIR:
      return connection_.reply_errno(request.header.unique, 0);
    case FUSE_IOCTL:
      return ioctl(request);
    case FUSE_INTERRUPT:
      return interrupt(request.as<fuse_interrupt_in>().unique);
    case FUSE_STATFS:
      return connection_.reply_object(request.header.unique, fuse_statfs_out{});
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      return;  // have no answer; nodes live as long as their process
    default:
      return connection_.reply_errno(request.header.unique, ENOSYS);
  }
}

void FileServer::lookup(const FuseRequest& request) {
  const auto* text = reinterpret_cast<const char*>(request.body.data());
  const std::string_view name(text, ::strnlen(text, request.body.size()));
  std::uint64_t node = 0;
  if (name == kfd_name || name == render_name) {
    // Each process has its own inodes, hence its own pages behind its maps.
    const ClientProcess* client = clients_.of_thread(static_cast<pid_t>(request.header.pid));
    if (client == nullptr) return connection_.reply_errno(request.header.unique, EPERM);
    node = name == kfd_name ? client->kfd_node() : client->render_node();
  }
  for (const StaticFile& file : static_files) {
    if (file.name == name) node = file.node;
  }
  if (node == 0) node = process_file_named(name);
  if (node == 0) return connection_.reply_errno(request.header.unique, ENOENT);
  connection_.reply_object(request.header.unique, entry_of(node));
}

std::uint64_t FileServer::process_file_named(std::string_view name) const {
  for (const auto& [prefix, first] : {std::pair{process_vram_prefix, process_vram_node},
                                      {process_sdma_prefix, process_sdma_node}}) {
    if (!name.starts_with(prefix)) continue;
    const std::string_view number = name.substr(std::strlen(prefix));
    pid_t pid = 0;
    const auto read = std::from_chars(number.begin(), number.end(), pid);
    if (read.ec != std::errc() || read.ptr != number.end() || pid <= 0) continue;
    const ClientProcess* client = clients_.of_pid(pid);
    if (client != nullptr && client->gpu) return first + static_cast<std::uint64_t>(pid);
  }
  return 0;
}

std::string FileServer::content_of_process_file(std::uint64_t node) {
  const bool is_sdma = node >= process_sdma_node;
  const auto pid = static_cast<pid_t>(node - (is_sdma ? process_sdma_node : process_vram_node));
  const ClientProcess* client = clients_.of_pid(pid);
  if (client == nullptr || !client->gpu) return {};
  if (!is_sdma) return fmt::format("{}\n", client->gpu->memory.vram_bytes());
  gpu_.poll();
  const auto time = std::chrono::duration_cast<std::chrono::microseconds>(client->gpu->copying);
  return fmt::format("{}\n", time.count());
}

void FileServer::open(const FuseRequest& request) {
  if (is_device(request.header.nodeid)) return open_device(request);
  if ((request.as<fuse_open_in>().flags & O_ACCMODE) != O_RDONLY) {
    return connection_.reply_errno(request.header.unique, EACCES);
  }
  FuseOpenReply answer{};
  answer.fh = next_handle_++;
  answer.open_flags = FOPEN_DIRECT_IO;
  open_files_[answer.fh].node = request.header.nodeid;
  connection_.reply_object(request.header.unique, answer);
}

void FileServer::open_device(const FuseRequest& request) {
  const std::uint64_t node = request.header.nodeid;
  ClientProcess* client = clients_.of_node(node);
  // Somebody else's inode, reached through /proc/PID/fd for example: ESTALE makes the kernel look
  // the name up again where it came by name.
  if (client == nullptr || !client->has_thread(static_cast<pid_t>(request.header.pid))) {
    return connection_.reply_errno(request.header.unique, ESTALE);
  }
  // A reset that is due by now happens before.
  if (!is_render(node)) gpu_.poll();
  if (!is_render(node) && gpu_.is_resetting()) {
    return connection_.reply_errno(request.header.unique, EAGAIN);
  }
  if (const auto provided = clients_.provide_backing(*client); !provided) {
    report(fmt::format("process {} cannot open the device: {}", client->pid(),
                       provided.error().message()));
    return connection_.reply_errno(request.header.unique, ENOMEM);
  }
  if (!is_render(node)) clients_.open_gpu(*client);
  FuseOpenReply answer{};
  answer.fh = next_handle_++;
  if (connection_.mapping() == Mapping::passthrough) {
    answer.open_flags = open_passthrough | FOPEN_NOFLUSH;
    answer.backing_id = client->backing_id;
  } else {
    answer.open_flags = open_page_cache;
  }
  open_files_[answer.fh] = {node, client->pid(), {}};
  connection_.reply_object(request.header.unique, answer);
}

std::string FileServer::content_of(std::uint64_t node) {
  if (node >= process_vram_node) return content_of_process_file(node);
  if (node == ioctls_node) return clients_.ioctl_table();
  if (node == vram_node) {
    const std::uint64_t all = gpu_.description().topology.vram_bytes;
    return fmt::format("{}\n", all - clients_.budget().vram_bytes);
  }
  gpu_.poll();
  // hwmon's units: microwatt and microjoule.
  const double value = node == power_node ? gpu_.power_watts() : gpu_.energy_joules();
  return fmt::format("{}\n", std::llround(value * 1e6));
}

void FileServer::read(const FuseRequest& request) {
  const auto arguments = request.as<fuse_read_in>();
  const auto found = open_files_.find(arguments.fh);
  if (found == open_files_.end()) return connection_.reply_errno(request.header.unique, EBADF);
  OpenFile& file = found->second;
  // Like sysfs: a read from the start sees the present.
  if (arguments.offset == 0) file.content = content_of(file.node);
  const std::size_t start = std::min<std::size_t>(arguments.offset, file.content.size());
  const std::string_view part = std::string_view(file.content).substr(start, arguments.size);
  connection_.reply(request.header.unique, std::as_bytes(std::span(part.data(), part.size())));
}

void FileServer::read_directory(const FuseRequest& request) {
  const auto arguments = request.as<fuse_read_in>();
  std::vector<std::string_view> names{".", "..", kfd_name, render_name};
  for (const StaticFile& file : static_files) names.push_back(file.name);
  std::vector<std::byte> out;
  for (std::size_t i = arguments.offset; i < names.size(); ++i) {
    fuse_dirent entry{};
    entry.ino = i + 1;
    entry.off = i + 1;
    entry.namelen = static_cast<std::uint32_t>(names[i].size());
    entry.type = i < 2 ? S_IFDIR >> 12 : S_IFREG >> 12;
    const std::size_t at = out.size();
    if (at + FUSE_DIRENT_SIZE(&entry) > arguments.size) break;
    out.resize(at + FUSE_DIRENT_SIZE(&entry));
    std::memcpy(out.data() + at, &entry, FUSE_NAME_OFFSET);
    std::memcpy(out.data() + at + FUSE_NAME_OFFSET, names[i].data(), names[i].size());
  }
  connection_.reply(request.header.unique, out);
}

void FileServer::release(const FuseRequest& request) {
  const auto found = open_files_.find(request.as<fuse_release_in>().fh);
  if (found != open_files_.end()) {
    const OpenFile& file = found->second;
    ClientProcess* client = is_device(file.node) ? clients_.of_node(file.node) : nullptr;
    if (client != nullptr && !is_render(file.node) && --client->kfd_opens == 0) {
      clients_.last_closed(*client);
    }
    open_files_.erase(found);
  }
  connection_.reply_errno(request.header.unique, 0);
}

void FileServer::forget(pid_t pid) {
  std::erase_if(open_files_, [pid](const auto& entry) {
    return is_device(entry.second.node) && entry.second.pid == pid;
  });
}

void FileServer::ioctl(const FuseRequest& request) {
  const auto arguments = request.as<fuse_ioctl_in>();
  const std::uint64_t node = request.header.nodeid;
  ClientProcess* client = is_device(node) && !is_render(node) ? clients_.of_node(node) : nullptr;
  if (client == nullptr || !client->has_thread(static_cast<pid_t>(request.header.pid))) {
    return carry_out_ioctl(request, 0);
  }
  const auto outcome =
      injector_.ioctl(client->faults, static_cast<std::uint8_t>(arguments.cmd & 0xffU));
  if (outcome.delay.count() == 0) return carry_out_ioctl(request, outcome.error);
  const DeviceClock& clock = gpu_.clock();
  delayed_.hold(request, outcome.error, clock.wall(clock.now() + outcome.delay));
}

void FileServer::interrupt(std::uint64_t unique) {
  // A signal, which may be the end of the process, cuts an injected delay short.
  if (const auto held = delayed_.take(unique)) return carry_out_ioctl(held->request(), held->error);
  clients_.interrupt(unique);
}

std::optional<DelayedIoctls::Time> FileServer::run_delayed() {
  while (const auto due = delayed_.take_due(DelayedIoctls::Time::clock::now())) {
    carry_out_ioctl(due->request(), due->error);
  }
  return delayed_.next();
}

void FileServer::carry_out_ioctl(const FuseRequest& request, int error) {
  const auto arguments = request.as<fuse_ioctl_in>();
  const std::uint64_t unique = request.header.unique;
  const auto found = open_files_.find(arguments.fh);
  if (found == open_files_.end() || !is_device(found->second.node)) {
    // Also an inherited open whose process has ended.
    return connection_.reply_ioctl(unique, is_device(request.header.nodeid) ? -EBADF : -ENOTTY, {});
  }
  std::array<std::byte, max_ioctl_argument> buffer{};
  const auto given = request.body.subspan(std::min(sizeof arguments, request.body.size()));
  std::memcpy(buffer.data(), given.data(), std::min(given.size(), buffer.size()));
  const auto number = static_cast<std::uint8_t>(arguments.cmd & 0xffU);
  const int result = error != 0 ? -error : run_ioctl(request, found->second, number, buffer);
  if (result == ioctl_pending) return;
  const std::size_t out_size = std::min<std::size_t>(arguments.out_size, buffer.size());
  const auto out = std::span(buffer).first(out_size);
  if (const auto stall_end = gpu_.take_stall()) {
    return clients_.answer_at(*stall_end, {unique, result, {out.begin(), out.end()}});
  }
  connection_.reply_ioctl(unique, result, out);
}

int FileServer::run_ioctl(const FuseRequest& request, OpenFile& file, std::uint8_t number,
                          std::span<std::byte, 512> argument) {
  const auto caller = static_cast<pid_t>(request.header.pid);
  if (is_render(file.node)) {
    return drm_ioctl({caller, gpu_, clients_.budget()}, number, argument);
  }
  ClientProcess* client = clients_.of_node(file.node);
  // A /dev/kfd serves the process that opened it only, however another one came by it.
  if (client == nullptr || !client->gpu || !client->has_thread(caller)) return -EBADF;
  KfdCall call{*client, *client->gpu, gpu_, clients_.budget(), injector_, request.header.unique};
  return kfd_ioctl(call, number, argument);
}

}  // namespace eclip::kfdsim
