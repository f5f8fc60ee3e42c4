# Every outside library, from Debian's packages (packaging/apt-packages.txt).
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(tl-expected REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(Boost 1.74 REQUIRED)  # Interprocess, Tokenizer: headers only
pkg_check_modules(TOMLPLUSPLUS REQUIRED IMPORTED_TARGET tomlplusplus)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)
# Not by pkg-config: Debian's libhsakmt.pc names an include directory that does not exist.
find_package(hsakmt REQUIRED CONFIG)
find_package(hsa-runtime64 REQUIRED CONFIG)  # everywhere for its headers, in tests for itself
pkg_check_modules(DRM_AMDGPU REQUIRED IMPORTED_TARGET libdrm_amdgpu)
pkg_check_modules(CAP REQUIRED IMPORTED_TARGET libcap)
pkg_check_modules(SECCOMP REQUIRED IMPORTED_TARGET libseccomp)
pkg_check_modules(NCURSES REQUIRED IMPORTED_TARGET ncurses)
pkg_check_modules(LIBBPF REQUIRED IMPORTED_TARGET libbpf>=1.1)
find_program(ECLIP_CLANG clang REQUIRED)  # g++ does not compile for the BPF machine
find_program(ECLIP_BPFTOOL bpftool PATHS /usr/sbin REQUIRED)
if(ECLIP_TESTS)
  find_package(GTest REQUIRED)
  pkg_check_modules(CBC REQUIRED IMPORTED_TARGET cbc)  # exact plans to compare with
  include(GoogleTest)
endif()
