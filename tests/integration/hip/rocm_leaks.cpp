// ROCm's libraries keep memory to the end of the process; LeakSanitizer is to tell of ours alone.

extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions();
const char* __lsan_default_suppressions() {
  return "leak:libamdhip64\nleak:libamd_comgr\nleak:libhsa-runtime64\nleak:libhsakmt\n";
}
