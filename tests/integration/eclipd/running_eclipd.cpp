#include "tests/integration/eclipd/running_eclipd.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "daemon/model/profile.h"
#include "tools/replay/replay_kernel.h"

namespace eclip::test {
namespace {

constexpr std::uint64_t kernarg_slots = 1023;  // behind one slot's room for the value
constexpr std::uint64_t slot_bytes = sizeof(replay::MixKernarg);

}  // namespace

std::string EclipdTest::write_config(const std::string& tables) const {
  const auto file = directory_.path() / "eclipd.toml";
  std::ofstream(file) << "daemon.socket = \"" << socket() << "\"\ndaemon.log_level = \""
                      << log_level_ << "\"\nplanner.state_dir = \"" << directory_.path().string()
                      << "\"\n"
                      << tables << "\n";
  return file.string();
}

void EclipdTest::start(const std::string& tables) {
  ::setenv("ECLIP_SOCKET", socket().c_str(), 1);
  daemon_ = std::make_unique<ChildProcess>(std::vector<std::string>{
      ECLIPD_PROGRAM, "--config", write_config(tables), "--ready-fd", "1"});
  if (daemon_->read_line() != "ready") {
    daemon_->wait();
    FAIL() << "eclipd did not start: " << daemon_->errors();
  }
}

int EclipdTest::stop_daemon() {
  ::kill(daemon_->pid(), SIGTERM);
  const int status = daemon_->wait();
  daemon_.reset();
  return status;
}

std::vector<pid_t> EclipdTest::daemon_processes() const {
  const std::string pid = std::to_string(daemon_->pid());
  std::vector<pid_t> processes{daemon_->pid()};
  std::ifstream children("/proc/" + pid + "/task/" + pid + "/children");
  for (pid_t child = 0; children >> child;) processes.push_back(child);
  return processes;
}

std::size_t EclipdTest::daemon_descriptors() const {
  std::size_t count = 0;
  for (const pid_t pid : daemon_processes()) {
    std::error_code error;
    const std::filesystem::directory_iterator files("/proc/" + std::to_string(pid) + "/fd", error);
    count += static_cast<std::size_t>(std::distance(begin(files), end(files)));
  }
  return count;
}

std::chrono::steady_clock::time_point EclipdTest::kill_daemon() {
  const auto at = std::chrono::steady_clock::now();
  ::kill(daemon_->pid(), SIGKILL);
  daemon_->wait();
  return at;
}

bool EclipdTest::is_running(const std::string& name, std::uint64_t packets) const {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < deadline)
    for (const auto& client : control({"client", "list"}))
      if (client.at("name") == name && client.at("packets") >= packets) return true;
  return false;
}

nlohmann::json EclipdTest::control(const std::vector<std::string>& arguments) const {
  std::vector<std::string> command{ECLIPCTL_PROGRAM, "--socket", socket(), "--json"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  ChildProcess eclipctl(command);
  const int status = eclipctl.wait();
  EXPECT_EQ(status, 0) << eclipctl.errors();
  return status == 0 ? nlohmann::json::parse(eclipctl.output()) : nlohmann::json();
}

std::vector<std::string> EclipdTest::stream_states() const {
  std::vector<std::string> states;
  for (const auto& stream : control({"stream", "list"}))
    states.emplace_back(stream.at("draining")          ? "draining"
                        : stream.at("lease").is_null() ? "free"
                                                       : "leased");
  return states;
}

bool EclipdTest::all_streams_become_free() const {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (std::chrono::steady_clock::now() < deadline) {
    const auto states = stream_states();
    if (std::all_of(states.begin(), states.end(), [](const auto& s) { return s == "free"; }))
      return true;
  }
  return false;
}

std::unique_ptr<ChildProcess> EclipdTest::replay(const std::vector<std::string>& more) const {
  std::vector<std::string> command{ECLIP_REPLAY_PROGRAM, "--json", "--profile",
                                   ECLIP_DATA_DIR "/profiles/shufflenet_v2_x1_0-b8.h100.json"};
  command.insert(command.end(), more.begin(), more.end());
  return std::make_unique<ChildProcess>(command);
}

std::vector<std::uint32_t> workgroups_of(const std::string& profile) {
  const auto loaded =
      model::load_profile(std::string(ECLIP_DATA_DIR "/profiles/") + profile + ".h100.json");
  if (!loaded) throw std::runtime_error(loaded.error().message());
  std::vector<std::uint32_t> workgroups;
  for (const auto& each : loaded->kernels)
    workgroups.push_back(std::max<std::uint32_t>(each.kernel.shape().workgroups, 1));
  return workgroups;
}

MixKernel::MixKernel(Connection& connection, std::uint32_t time_us)
    : memory_(connection.allocate(slot_bytes * (kernarg_slots + 1))) {
  replay::ReplayKernel kernel{.shape = {}, .points = {{.cus = 1, .time_us = 1.0 * time_us}}};
  kernel.mixes = true;
  const auto image = replay::build_replay_image({&kernel, 1});
  if (!image) throw std::runtime_error(image.error().message());
  const auto code = connection.load_code(image->bytes.data(), image->bytes.size());
  kernel_ = connection.register_kernel(code, image->kernel_offsets[0], slot_bytes);
}

eclip_dispatch MixKernel::next(std::uint32_t salt, std::uint32_t flags, std::uint32_t signal) {
  const std::uint64_t offset = (1 + slot_++ % kernarg_slots) * slot_bytes;
  auto& kernarg = *reinterpret_cast<replay::MixKernarg*>(memory_.host<std::byte>() + offset);
  kernarg = {.output = memory_.gpu_address(),
             .salt = salt,
             .input_count = 1,
             .inputs = {memory_.gpu_address()}};
  expected_ = replay::mix(salt, {&expected_, 1});
  eclip_dispatch dispatch{};
  dispatch.flags = flags;
  dispatch.kernel = kernel_;
  dispatch.signal = signal;
  for (auto& size : dispatch.grid_size) size = 1;
  for (auto& size : dispatch.workgroup_size) size = 1;
  dispatch.kernarg_memory = memory_.handle();
  dispatch.kernarg_offset = offset;
  return dispatch;
}

}  // namespace eclip::test
