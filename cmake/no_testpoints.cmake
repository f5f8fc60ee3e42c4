# cmake -DFILE=... -P: fails when the file has an ECLIP_TESTPOINT (ipc/testpoint.h) in it.
file(STRINGS "${FILE}" found REGEX "eclip-testpoint:")
if(found)
  message(FATAL_ERROR "${FILE} has testpoints, and a build without ECLIP_TESTPOINTS must not")
endif()
