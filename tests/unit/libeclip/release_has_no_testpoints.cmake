# Builds libeclip as a release and looks for testpoints in it; the build with testpoints shows that
# they would be found.
foreach(command
    "${CMAKE_COMMAND};--preset;release;-DCMAKE_CXX_FLAGS_RELEASE=-DNDEBUG;-B;${WORK}"
    "${CMAKE_COMMAND};--build;${WORK};--target;eclip")
  execute_process(COMMAND ${command} WORKING_DIRECTORY ${SOURCE}
                  RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(failed)
    message(FATAL_ERROR "${command}: ${said}")
  endif()
endforeach()
execute_process(COMMAND ${CMAKE_COMMAND} -DFILE=${WORK}/libeclip/libeclip.so
                        -P ${SOURCE}/cmake/no_testpoints.cmake
                RESULT_VARIABLE found)
if(found)
  message(FATAL_ERROR "the release has testpoints")
endif()
if(LIBRARY)
  execute_process(COMMAND ${CMAKE_COMMAND} -DFILE=${LIBRARY} -P ${SOURCE}/cmake/no_testpoints.cmake
                  RESULT_VARIABLE found ERROR_QUIET)
  if(NOT found)
    message(FATAL_ERROR "no testpoints in ${LIBRARY}: this test finds nothing")
  endif()
endif()
