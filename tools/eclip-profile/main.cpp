// eclip-profile: measures, imports, shows, checks and merges profiles of models.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "daemon/model/profile.h"
#include "daemon/model/profile_merge.h"
#include "tools/eclip-profile/import.h"
#include "tools/eclip-profile/record.h"
#include "tools/eclip-profile/show.h"

namespace eclip::profile {
namespace {

namespace fs = std::filesystem;

constexpr int exit_good = 0;
constexpr int exit_failed = 1;
constexpr int exit_usage = 2;

constexpr const char* footer =
    "\nA profile says how long each kernel of one request of a model takes on several numbers of "
    "CUs (schema eclip.profile/1, docs/profiles.md).\n"
    "Exit codes: 0 done, for verify: good; 1 failed, for verify: not good; 2 bad usage.\n"
    "Examples:\n"
    "  eclip-profile record -o resnet.json --model resnet50 --batch 8 -- ./worker --requests 20\n"
    "  eclip-profile import --format rocprof --model resnet50 --batch 8 --device MI50 "
    "--device-cus 60 \\\n"
    "      full.csv@60 half.csv@30 -o resnet.json\n"
    "  eclip-profile show resnet.json --svg resnet.svg";

int complain(const Error& error) {
  fmt::print(stderr, "eclip-profile: {}\n", error.message());
  return exit_failed;
}

/// Writes a file as a whole, or leaves what was there.
Result<void> write_file(const fs::path& file, const std::string& text) {
  const std::string temporary = file.string() + "." + std::to_string(::getpid()) + ".tmp";
  const auto failed = [&](int error) {
    ::unlink(temporary.c_str());
    return fail_errno(error, "write " + file.string());
  };
  std::FILE* stream = std::fopen(temporary.c_str(), "we");
  if (stream == nullptr) return fail_errno(errno, "create " + temporary);
  const bool written = std::fwrite(text.data(), 1, text.size(), stream) == text.size();
  const int error = errno;
  if (std::fclose(stream) != 0 || !written) return failed(written ? errno : error);
  if (std::rename(temporary.c_str(), file.c_str()) != 0) return failed(errno);
  return {};
}

/// Writes a new profile, and says what it is.
int conclude(const model::ProfileDocument& profile, const model::MatchReport& report,
             const std::vector<std::string>& remarks, const fs::path& output) {
  if (auto written = write_file(output, model::to_json(profile)); !written)
    return complain(written.error());
  fmt::print("{}: {} kernels on {} numbers of CUs. {}", output.string(), profile.kernels.size(),
             profile.cu_counts.size(), matching_text(report));
  for (const std::string& remark : remarks) fmt::print("note: {}\n", remark);
  // A kernel that took no tick of the clock, for one.
  if (const auto usable = model::make_profile(profile, output.string()); !usable)
    return complain(usable.error());
  return exit_good;
}

void add_matching(CLI::App& command, model::MatchOptions& match) {
  command
      .add_option("--skip", match.skip, "Requests at the beginning of each run that do not count")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str()
      ->type_name("N");
  command
      .add_option("--kernels-per-request", match.kernels_per_request,
                  "How many kernels a request has; default: found, as what repeats")
      ->check(CLI::Range(1, 1'000'000))
      ->type_name("N");
}

struct Identity {
  std::string model;
  std::uint32_t batch = 1;
  std::string precision;
};

void add_identity(CLI::App& command, Identity& identity) {
  command.add_option("--batch", identity.batch, "Batch size of a request")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--precision", identity.precision, "Number format, for the file: fp16")
      ->type_name("NAME");
}

CLI::Option* add_output(CLI::App& command, fs::path& output) {
  return command.add_option("-o,--output", output, "Profile to write")
      ->required()
      ->type_name("FILE");
}

struct Commands {
  RecordOptions record;
  Identity record_identity;
  ImportOptions import;
  Identity import_identity;
  std::string format;
  std::vector<std::string> trace_files;
  fs::path output;
  fs::path input;
  fs::path svg;
  double tolerance_percent = 35;
  std::vector<fs::path> inputs;
};

void add_record(CLI::App& app, Commands& commands) {
  CLI::App* command = app.add_subcommand(
      "record",
      "Run a worker that uses libeclip alone on a stream of every size, and write a profile.\n"
      "While recording, kernels run one at a time; the command's standard output goes to standard "
      "error. Nobody else may hold a lease");
  add_output(*command, commands.output);
  command->add_option("--model", commands.record_identity.model,
                      "The model's name; default: the command's");
  add_identity(*command, commands.record_identity);
  command
      ->add_option("--cus", commands.record.cus,
                   "Sizes of streams, comma-separated; default: all of the pool's")
      ->delimiter(',')
      ->type_name("LIST");
  command->add_option("--repeats", commands.record.repeats, "Runs on each size")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str()
      ->type_name("N");
  add_matching(*command, commands.record.match);
  command
      ->add_option("--socket", commands.record.socket,
                   "eclipd's socket; default $ECLIP_SOCKET, else /run/eclip/eclipd.sock")
      ->type_name("PATH");
  command
      ->add_option("--keep", commands.record.keep,
                   "Leave the recordings of the runs in this directory")
      ->type_name("DIRECTORY");
  command->add_option("command", commands.record.command, "-- and the command to run")
      ->required()
      ->type_name("CMD");
}

void add_import(CLI::App& app, Commands& commands) {
  CLI::App* command =
      app.add_subcommand("import",
                         "Make a profile of other profilers' traces, one or more for each "
                         "number of CUs");
  command
      ->add_option("--format", commands.format,
                   "rocprof: results.csv of rocprof, kernel_trace.csv of rocprofv3; kineto: Chrome "
                   "trace of torch.profiler")
      ->required()
      ->check(CLI::IsMember({"rocprof", "kineto"}));
  command
      ->add_option("files", commands.trace_files, "Traces, and the CUs that each was measured on")
      ->required()
      ->type_name("FILE@CUS");
  add_output(*command, commands.output);
  command->add_option("--model", commands.import_identity.model, "The model's name")->required();
  add_identity(*command, commands.import_identity);
  command->add_option("--device", commands.import.device_name,
                      "The GPU's name; default: as the trace says (kineto)");
  command->add_option("--device-cus", commands.import.device_cus, "Its CUs; default: likewise")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  command->add_option(
      "--only-gpu", commands.import.only_gpu,
      "The trace's own name of the GPU to take, where kernels of several are in it");
  add_matching(*command, commands.import.match);
}

void add_others(CLI::App& app, Commands& commands) {
  CLI::App* show = app.add_subcommand("show", "Print a profile's kernels as a table");
  show->add_option("profile", commands.input, "Profile")->required()->type_name("FILE");
  show->add_option("--svg", commands.svg, "Draw the curves of time against CUs into this file")
      ->type_name("FILE");

  CLI::App* verify = app.add_subcommand(
      "verify", "Check a profile: schema, kernels that are slower on more CUs, what is missing");
  verify->add_option("profile", commands.input, "Profile")->required()->type_name("FILE");
  verify
      ->add_option("--tolerance", commands.tolerance_percent,
                   "Percent that a kernel may take longer on more CUs")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str()
      ->type_name("PERCENT");

  CLI::App* merge = app.add_subcommand(
      "merge",
      "Make one profile of several of one model, batch and device: more numbers of CUs, or more "
      "requests for the same");
  merge->add_option("profiles", commands.inputs, "Profiles")->required()->type_name("FILE");
  add_output(*merge, commands.output);
}

int run_record(Commands& commands) {
  RecordOptions& options = commands.record;
  options.model = commands.record_identity.model;
  options.batch = commands.record_identity.batch;
  options.precision = commands.record_identity.precision;
  const auto recorded = record(options);
  if (!recorded) return complain(recorded.error());
  return conclude(recorded->profile, recorded->report, recorded->remarks, commands.output);
}

int run_import(Commands& commands) {
  ImportOptions& options = commands.import;
  options.format = commands.format == "rocprof" ? TraceFormat::rocprof : TraceFormat::kineto;
  options.model = commands.import_identity.model;
  options.batch = commands.import_identity.batch;
  options.precision = commands.import_identity.precision;
  for (const std::string& text : commands.trace_files) {
    const auto file = parse_trace_file(text);
    if (!file) {
      complain(file.error());
      return exit_usage;
    }
    options.files.push_back(*file);
  }
  const auto imported = import_traces(options);
  if (!imported) return complain(imported.error());
  return conclude(imported->profile, imported->report, imported->remarks, commands.output);
}

int run_show(const Commands& commands) {
  const auto profile = model::load_profile_document(commands.input);
  if (!profile) return complain(profile.error());
  fmt::print("{}", table_of(*profile));
  if (commands.svg.empty()) return exit_good;
  if (auto written = write_file(commands.svg, svg_of(*profile)); !written)
    return complain(written.error());
  return exit_good;
}

int run_verify(const Commands& commands) {
  const auto profile = model::load_profile_document(commands.input);
  if (!profile) return complain(profile.error());
  const Verification verification = verify(*profile, commands.tolerance_percent / 100);
  fmt::print("{}", verification.text);
  return verification.good ? exit_good : exit_failed;
}

int run_merge(const Commands& commands) {
  std::vector<model::NamedProfile> profiles;
  for (const fs::path& input : commands.inputs) {
    auto profile = model::load_profile_document(input);
    if (!profile) return complain(profile.error());
    profiles.push_back({input.string(), std::move(*profile)});
  }
  const auto merged = model::merge_profiles(profiles);
  if (!merged) return complain(merged.error());
  if (auto written = write_file(commands.output, model::to_json(*merged)); !written)
    return complain(written.error());
  fmt::print("{}: {} kernels on {} numbers of CUs, of {} profiles\n", commands.output.string(),
             merged->kernels.size(), merged->cu_counts.size(), profiles.size());
  return exit_good;
}

int run(int argc, char** argv) {
  CLI::App app("Measures, imports, shows, checks and merges profiles of models", "eclip-profile");
  app.footer(footer);
  app.require_subcommand(1);
  Commands commands;
  add_record(app, commands);
  add_import(app, commands);
  add_others(app, commands);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? exit_good : exit_usage;
  }
  if (app.got_subcommand("record")) return run_record(commands);
  if (app.got_subcommand("import")) return run_import(commands);
  if (app.got_subcommand("show")) return run_show(commands);
  if (app.got_subcommand("verify")) return run_verify(commands);
  return run_merge(commands);
}

}  // namespace
}  // namespace eclip::profile

int main(int argc, char** argv) {
  try {
    return eclip::profile::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "eclip-profile: %s\n", error.what());
  } catch (...) {
    std::fputs("eclip-profile: unknown error\n", stderr);
  }
  return eclip::profile::exit_failed;
}
