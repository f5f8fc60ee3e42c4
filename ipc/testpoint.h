// Places where a test may end or stop the process, to see what is left behind.
//
//   ECLIP_TESTPOINT("name");
//
// Compiled to nothing unless the build has -DECLIP_TESTPOINTS=ON, which a release does not. Then
// the environment variable ECLIP_TESTPOINT=NAME:kill|stop|segv[:N] arms the point NAME of a program
// from its start: the N-th time (default 1) that it is reached, the process gets SIGKILL, SIGSTOP
// or SIGSEGV from itself. A point that is not armed costs a load.
#pragma once

#ifdef ECLIP_TESTPOINTS

namespace eclip::testpoint {

/// Whether any point is armed; set before main().
extern const bool armed;
/// The point has been reached.
void reach(const char* name);

}  // namespace eclip::testpoint

// The prefix is what a test looks for in the release's files.
#define ECLIP_TESTPOINT(name) \
  (::eclip::testpoint::armed ? ::eclip::testpoint::reach("eclip-testpoint:" name) : void())

#else
#define ECLIP_TESTPOINT(name) static_cast<void>(0)
#endif
