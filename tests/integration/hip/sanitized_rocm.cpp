// Sanitizers in programs that use ROCm's libraries, which are not instrumented.

// They keep memory to the end of the process; LeakSanitizer is to tell of ours alone.
extern "C" __attribute__((visibility("default"))) const char* __lsan_default_suppressions();
const char* __lsan_default_suppressions() {
  return "leak:libamdhip64\nleak:libamd_comgr\nleak:libhsa-runtime64\nleak:libhsakmt\n";
}

// HIP gives the threads that use it a signal stack of its own, which AddressSanitizer would free.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options();
const char* __asan_default_options() {
  return "use_sigaltstack=0";
}
