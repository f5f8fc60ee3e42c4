# What every target of the project shares: warnings as errors, sanitizers, the include root.
option(ECLIP_TESTS "Build the tests" ON)
option(ECLIP_FUZZ "Build the fuzz targets too, and what they call instrumented for them (clang)" OFF)
option(ECLIP_WERROR "Treat compiler warnings as errors" ON)
option(ECLIP_TESTPOINTS "Compile the points where tests kill the process (ipc/testpoint.h)" OFF)
set(ECLIP_SANITIZE "" CACHE STRING "Value of -fsanitize= for all targets; empty for none")

add_library(eclip_build_flags INTERFACE)
target_include_directories(eclip_build_flags INTERFACE "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>")
target_compile_options(eclip_build_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -Wno-missing-field-initializers  # designated initializers leave out what has a default
  -fvisibility=hidden
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
  $<$<COMPILE_LANGUAGE:CXX>:-fvisibility-inlines-hidden>
  $<$<BOOL:${ECLIP_WERROR}>:-Werror>)
if(ECLIP_TESTPOINTS)
  target_compile_definitions(eclip_build_flags INTERFACE ECLIP_TESTPOINTS)
endif()
if(ECLIP_SANITIZE)
  target_compile_options(eclip_build_flags INTERFACE
    -fsanitize=${ECLIP_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(eclip_build_flags INTERFACE -fsanitize=${ECLIP_SANITIZE})
  # Compilers have macros of their own, and different ones.
  target_compile_definitions(eclip_build_flags INTERFACE ECLIP_SANITIZED)
  if(ECLIP_SANITIZE MATCHES "address")
    target_compile_definitions(eclip_build_flags INTERFACE ECLIP_SANITIZE_ADDRESS)
  endif()
  if(ECLIP_SANITIZE MATCHES "undefined")
    # At each access to an object, and much to compile: AddressSanitizer shows what such accesses do.
    target_compile_options(eclip_build_flags INTERFACE -fno-sanitize=null,vptr)
  endif()
  if(ECLIP_SANITIZE MATCHES "thread")
    # std::atomic_thread_fence is outside what ThreadSanitizer models; the code that needs one says so.
    target_compile_options(eclip_build_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
  endif()
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # Parts of -Wconversion that GCC's has not.
  target_compile_options(eclip_build_flags INTERFACE -Wno-sign-conversion -Wno-shorten-64-to-32)
endif()

# eclip_has_no_testpoints(TARGET): the build fails when what is installed has testpoints after all.
function(eclip_has_no_testpoints target)
  if(NOT ECLIP_TESTPOINTS)
    add_custom_command(TARGET ${target} POST_BUILD
      COMMAND ${CMAKE_COMMAND} -DFILE=$<TARGET_FILE:${target}>
              -P ${CMAKE_SOURCE_DIR}/cmake/no_testpoints.cmake)
  endif()
endfunction()

# eclip_cold(TARGET [SANITIZED]): little time is spent in it, and optimising it takes most of the time
# to build it. So builds for tests do not, or only those with a sanitizer.
function(eclip_cold target)
  if(ECLIP_SANITIZE OR (ECLIP_TESTS AND NOT "SANITIZED" IN_LIST ARGN))
    target_compile_options(${target} PRIVATE -O0)
  endif()
endfunction()

# eclip_library(NAME SOURCES ... LINK ...): a static library eclip_NAME with the alias eclip::NAME.
function(eclip_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK" ${ARGN})
  add_library(eclip_${name} STATIC ${arg_SOURCES})
  add_library(eclip::${name} ALIAS eclip_${name})
  target_link_libraries(eclip_${name} PUBLIC ${arg_LINK} PRIVATE eclip_build_flags)
  target_include_directories(eclip_${name} PUBLIC "$<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>")
endfunction()

# eclip_program(NAME SOURCES ... LINK ... [INSTALL dir]): an executable, installed where asked.
function(eclip_program name)
  cmake_parse_arguments(arg "" "INSTALL" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_LINK} eclip_build_flags)
  eclip_cold(${name})  # what runs for long is in libraries
  if(arg_INSTALL)
    install(TARGETS ${name} RUNTIME DESTINATION ${arg_INSTALL})
  endif()
endfunction()
