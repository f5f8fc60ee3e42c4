// Traces of other profilers become profiles; what is wrong in them is named by line or event.
#include "tools/eclip-profile/import.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace eclip::profile {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using ::testing::HasSubstr;

/// As rocprof writes it (results.csv with --timestamp on).
const std::string rocprof_header =
    "\"Index\",\"KernelName\",\"gpu-id\",\"queue-id\",\"queue-index\",\"pid\",\"tid\",\"grd\","
    "\"wgr\","
    "\"lds\",\"scr\",\"vgpr\",\"sgpr\",\"fbar\",\"sig\",\"obj\",\"DispatchNs\",\"BeginNs\","
    "\"EndNs\","
    "\"CompleteNs\",\"DurationNs\"\n";

std::string rocprof_line(int index, const std::string& name, std::uint64_t begin, std::uint64_t end,
                         int gpu = 1) {
  return std::to_string(index) + ",\"" + name + "\"," + std::to_string(gpu) +
         ",0,0,10,11,1000,256,512,0,24,16,0,0x0,0x7f," + std::to_string(begin - 10) + "," +
         std::to_string(begin) + "," + std::to_string(end) + "," + std::to_string(end + 5) + "," +
         std::to_string(end - begin) + "\n";
}

TEST(Rocprof, ResultsOfVersionOne) {
  // Lines in another order than kernels ran.
  const auto trace =
      parse_rocprof(rocprof_header +
                        rocprof_line(0, "second(float*, int) [clone .kd]",
                                     1'700'000'000'000'003'000, 1'700'000'000'000'003'250) +
                        rocprof_line(1, "void first<4, \"\"x\"\">(int).kd",
                                     1'700'000'000'000'001'000, 1'700'000'000'000'002'500),
                    "results.csv", "");
  ASSERT_TRUE(trace) << trace.error().message();
  ASSERT_EQ(trace->trace.kernels.size(), 2U);
  const model::TracedKernel& first = trace->trace.kernels[0];
  EXPECT_EQ(trace->trace.names[first.name], "void first<4, x>(int)");
  EXPECT_EQ(trace->trace.names[trace->trace.kernels[1].name], "second(float*, int)");
  EXPECT_EQ(first.duration_us, 1.5) << "exact, though the clock's microseconds are not";
  EXPECT_EQ(first.shape, (model::LaunchShape{.workgroups = 4,
                                             .workgroup_size = 256,
                                             .registers_per_thread = 24,
                                             .local_memory_bytes = 512}));
}

TEST(Rocprof, ResultsOfVersionTwo) {
  const auto trace = parse_rocprof(
      "Dispatch_ID,GPU_ID,Queue_ID,Queue_Index,PID,TID,Grid_Size,Workgroup_Size,LDS_Per_Workgroup,"
      "Scratch_Per_Workitem,Arch_VGPR,Accum_VGPR,SGPR,Wave_Size,Kernel_Name,Start_Timestamp,"
      "End_Timestamp,Correlation_ID\r\n"
      "1,1,1,0,10,10,1024,64,128,0,8,4,16,64,\"k(int, int)\",100,300,1\r\n",
      "results.csv", "");
  ASSERT_TRUE(trace) << trace.error().message();
  EXPECT_EQ(trace->trace.names[0], "k(int, int)");
  EXPECT_EQ(trace->trace.kernels[0].shape.workgroups, 16U);
  EXPECT_EQ(trace->trace.kernels[0].shape.registers_per_thread, 8U);
  EXPECT_EQ(trace->trace.kernels[0].duration_us, 0.2);
}

const std::string rocprofv3_header =
    "\"Kind\",\"Agent_Id\",\"Queue_Id\",\"Stream_Id\",\"Thread_Id\",\"Dispatch_Id\",\"Kernel_Id\","
    "\"Kernel_Name\",\"Correlation_Id\",\"Start_Timestamp\",\"End_Timestamp\",\"LDS_Block_Size\","
    "\"Scratch_Size\",\"VGPR_Count\",\"Accum_VGPR_Count\",\"SGPR_Count\",\"Workgroup_Size_X\","
    "\"Workgroup_Size_Y\",\"Workgroup_Size_Z\",\"Grid_Size_X\",\"Grid_Size_Y\",\"Grid_Size_Z\"\n";

TEST(Rocprof, KernelTracesOfVersionThree) {
  const auto trace = parse_rocprof(
      rocprofv3_header +
          "\"KERNEL_DISPATCH\",\"Agent 4\",1,1,8,1,10,\"void add<float>(float*, int)\",1,"
          "1551874061244694,1551874061255734,256,0,8,0,16,64,2,1,1000,10,3\n",
      "kernel_trace.csv", "");
  ASSERT_TRUE(trace) << trace.error().message();
  EXPECT_EQ(trace->trace.kernels[0].shape, (model::LaunchShape{.workgroups = 16 * 5 * 3,
                                                               .workgroup_size = 128,
                                                               .registers_per_thread = 8,
                                                               .local_memory_bytes = 256}));
  EXPECT_EQ(trace->trace.kernels[0].duration_us, 11.04);
}

TEST(Rocprof, KernelsOfSeveralGpusHaveToBeChosenFrom) {
  const std::string text =
      rocprof_header + rocprof_line(0, "a", 10, 20, 1) + rocprof_line(1, "b", 30, 40, 2);
  const auto both = parse_rocprof(text, "r.csv", "");
  ASSERT_FALSE(both);
  EXPECT_THAT(both.error().message(), HasSubstr("r.csv:3: kernels of GPU '1' and of GPU '2'; "
                                                "choose one with --only-gpu"));
  const auto one = parse_rocprof(text, "r.csv", "2");
  ASSERT_TRUE(one) << one.error().message();
  EXPECT_EQ(one->trace.names, std::vector<std::string>{"b"});
  EXPECT_THAT(parse_rocprof(text, "r.csv", "3").error().message(), HasSubstr("of GPU '3'"));
}

TEST(Rocprof, WhatIsWrongIsNamedByLine) {
  const auto error = [](const std::string& text) {
    const auto trace = parse_rocprof(text, "r.csv", "");
    return trace ? std::string("no error") : trace.error().message();
  };
  EXPECT_THAT(error(""), HasSubstr("r.csv: has no kernels"));
  EXPECT_THAT(error("a,b\n"), HasSubstr("r.csv:1: no column KernelName or Kernel_Name"));
  EXPECT_THAT(error("KernelName,grd,wgr\n"), HasSubstr("no column BeginNs"));
  const std::string good = rocprof_line(0, "a", 10, 20);
  EXPECT_THAT(error(rocprof_header + good + "1,2\n"), HasSubstr("r.csv:3: 2 fields, and 21"));
  EXPECT_THAT(error(rocprof_header + good.substr(0, good.size() - 1) + ",9\n"),
              HasSubstr("r.csv:2: 22 fields"));
  std::string no_number = good;
  no_number.replace(no_number.find(",24,"), 4, ",x4,");
  EXPECT_THAT(error(rocprof_header + no_number), HasSubstr("r.csv:2: column 12: 'x4'"));
  std::string no_group = good;
  no_group.replace(no_group.find(",256,"), 5, ",0,");
  EXPECT_THAT(error(rocprof_header + no_group), HasSubstr("a grid of 1000 in workgroups of 0"));
  EXPECT_THAT(error(rocprof_header + rocprof_line(0, "a", 30, 20)), HasSubstr("before it begins"));
  EXPECT_THAT(error("KernelName,BeginNs,EndNs,Grid_Size_X,Grid_Size_Y,wgr\n"),
              HasSubstr("as many dimensions"));
}

Json kineto_kernel(const std::string& name, double ts, double dur) {
  return {{"ph", "X"},
          {"cat", "kernel"},
          {"name", name},
          {"pid", 0},
          {"tid", 7},
          {"ts", ts},
          {"dur", dur},
          {"args",
           {{"device", 0},
            {"stream", 7},
            {"registers per thread", 32},
            {"shared memory", 4096},
            {"grid", {10, 2, 1}},
            {"block", {128, 2, 1}}}}};
}

Json kineto_trace() {
  Json copy = kineto_kernel("Memcpy HtoD", 1'689'345'123'456'700.25, 3);
  copy["cat"] = "gpu_memcpy";
  copy["args"] = {{"device", 0}, {"bytes", 4096}};
  return {{"schemaVersion", 1},
          {"deviceProperties", {{{"id", 0}, {"name", "Some GPU"}, {"numSms", 60}}}},
          {"traceEvents",
           {{{"ph", "M"}, {"name", "process_name"}},
            {{"ph", "X"}, {"cat", "cpu_op"}, {"name", "aten::add"}, {"ts", 1}, {"dur", 2}},
            kineto_kernel("add", 1'689'345'123'456'789.5, 1.375),
            copy}}};
}

TEST(Kineto, KernelsCopiesAndTheDevice) {
  const auto trace = parse_kineto(kineto_trace().dump(), "t.json", "");
  ASSERT_TRUE(trace) << trace.error().message();
  EXPECT_EQ(trace->device_name, "Some GPU");
  EXPECT_EQ(trace->device_cus, 60U);
  ASSERT_EQ(trace->trace.kernels.size(), 2U);
  EXPECT_EQ(trace->trace.kernels[0].shape.workgroups, 0U) << "a copy is no kernel";
  EXPECT_EQ(trace->trace.kernels[1].duration_us, 1.375);
  EXPECT_EQ(trace->trace.kernels[1].shape, (model::LaunchShape{.workgroups = 20,
                                                               .workgroup_size = 256,
                                                               .registers_per_thread = 32,
                                                               .local_memory_bytes = 4096}));
}

TEST(Kineto, AListOfEventsAloneIsATraceToo) {
  const auto trace = parse_kineto(kineto_trace()["traceEvents"].dump(), "t.json", "");
  ASSERT_TRUE(trace) << trace.error().message();
  EXPECT_EQ(trace->device_name, "");
}

TEST(Kineto, WhatIsWrongIsNamedByEvent) {
  const auto error_after = [](const std::function<void(Json&)>& spoil) {
    Json trace = kineto_trace();
    spoil(trace);
    const auto parsed = parse_kineto(trace.dump(), "t.json", "");
    return parsed ? std::string("no error") : parsed.error().message();
  };
  const auto error_of_kernel = [&](const std::function<void(Json&)>& spoil) {
    return error_after([&](Json& trace) { spoil(trace["traceEvents"][2]); });
  };
  EXPECT_THAT(parse_kineto("{", "t.json", "").error().message(), HasSubstr("gunzip"));
  EXPECT_THAT(parse_kineto("7", "t.json", "").error().message(), HasSubstr("no Chrome trace"));
  EXPECT_THAT(error_after([](Json& t) { t.erase("traceEvents"); }), HasSubstr("'traceEvents'"));
  EXPECT_THAT(error_after([](Json& t) { t["traceEvents"] = Json::array(); }),
              HasSubstr("t.json: has no kernels"));
  for (const char* key : {"name", "ts", "dur", "args"})
    EXPECT_THAT(error_of_kernel([&](Json& k) { k.erase(key); }),
                HasSubstr("t.json: event 2 of 'traceEvents': key '" + std::string(key) + "'"));
  for (const Json& wrong :
       {Json("x"), Json({1, 2}), Json({1, 2, -1}), Json({0, 1, 1}), Json({4'000'000'000U, 4, 1})}) {
    EXPECT_THAT(error_of_kernel([&](Json& k) { k["args"]["grid"] = wrong; }),
                HasSubstr("event 2 of 'traceEvents': 'grid'"))
        << wrong;
  }
  EXPECT_THAT(error_of_kernel([](Json& k) { k["dur"] = -1; }), HasSubstr("'dur'"));
  EXPECT_THAT(error_of_kernel([](Json& k) { k["args"]["shared memory"] = "much"; }),
              HasSubstr("'shared memory'"));
  EXPECT_THAT(error_of_kernel([](Json& k) { k["args"]["device"] = 1; }),
              HasSubstr("of device 1 and of device 0: choose one with --only-gpu"));
}

/// Writes traces into a directory of the test's own.
class Import : public ::testing::Test {
 protected:
  Import() {
    std::string name = (fs::temp_directory_path() / "eclip-import-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
  }
  ~Import() override { fs::remove_all(directory_); }

  TraceFile write(const std::string& name, const std::string& text, std::uint32_t cus) const {
    std::ofstream(directory_ / name) << text;
    return {directory_ / name, cus};
  }
  /// A run of requests of two kernels, after some warm-up.
  static std::string run(int warm_up, int requests, std::uint64_t time_ns) {
    std::string text = rocprof_header;
    std::uint64_t now = 1000;
    const auto kernel = [&](const std::string& name, std::uint64_t ns) {
      text += rocprof_line(0, name, now, now + ns);
      now += ns + 100;
    };
    for (int i = 0; i < warm_up; ++i) kernel("init" + std::to_string(i), 10);
    for (int i = 0; i < requests; ++i) {
      kernel("conv", time_ns);
      kernel("relu", 500);
    }
    return text;
  }

  fs::path directory_;
};

TEST_F(Import, OneFileForEachNumberOfCus) {
  ImportOptions options{
      .files = {write("half.csv", run(3, 5, 8000), 30), write("full.csv", run(1, 4, 4000), 60),
                write("again.csv", run(0, 4, 4000), 60)},
      .model = "resnet",
      .batch = 8,
      .precision = "fp16",
      .device_name = "MI50",
      .device_cus = 60};
  const auto imported = import_traces(options);
  ASSERT_TRUE(imported) << imported.error().message();
  const model::ProfileDocument& profile = imported->profile;
  EXPECT_EQ(profile.cu_counts, (std::vector<std::uint32_t>{30, 60}));
  EXPECT_EQ(profile.samples, (std::vector<std::uint32_t>{4, 6}));
  ASSERT_EQ(profile.kernels.size(), 2U);
  EXPECT_EQ(profile.kernels[0].name, "conv");
  EXPECT_EQ(profile.kernels[0].time_us, (std::vector<double>{8, 4}));
  EXPECT_EQ(profile.kernels[1].time_us, (std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(profile.request_us_at_cu_counts.at(30), 8.6);
  EXPECT_EQ(profile.precision, "fp16");
  EXPECT_TRUE(model::parse_profile_document(model::to_json(profile), "it"));

  options.device_name.clear();
  EXPECT_THAT(import_traces(options).error().message(), HasSubstr("--device NAME"));
  options.device_name = "MI50";
  options.device_cus = 32;
  EXPECT_THAT(import_traces(options).error().message(), HasSubstr("measured on 60 CUs"));
}

TEST_F(Import, TheDeviceMustBeOne) {
  Json trace = kineto_trace();
  for (int i = 1; i < 4; ++i)
    trace["traceEvents"].push_back(kineto_kernel("add", 1'689'345'123'456'789.5 + 10 * i, 1));
  Json other = trace;
  other["deviceProperties"][0]["name"] = "Another GPU";
  ImportOptions options{
      .format = TraceFormat::kineto,
      .files = {write("a.json", trace.dump(), 30), write("b.json", other.dump(), 60)},
      .model = "m"};
  const auto differing = import_traces(options);
  ASSERT_FALSE(differing);
  EXPECT_THAT(differing.error().message(), HasSubstr("measured on Another GPU, the files before"));
  options.files.pop_back();
  const auto imported = import_traces(options);
  ASSERT_TRUE(imported) << imported.error().message();
  EXPECT_EQ(imported->profile.device_name, "Some GPU");
  EXPECT_EQ(imported->profile.device_compute_units, 60U);
}

TEST(TraceFiles, AreFileAtCus) {
  const auto file = parse_trace_file("a@b/trace.csv@60");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->path, "a@b/trace.csv");
  EXPECT_EQ(file->cus, 60U);
  for (const char* text : {"trace.csv", "trace.csv@", "@60", "trace.csv@0", "trace.csv@x",
                           "trace.csv@60x", "trace.csv@2000", ""})
    EXPECT_FALSE(parse_trace_file(text)) << text;
}

}  // namespace
}  // namespace eclip::profile
