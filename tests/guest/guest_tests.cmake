# Included by CTest with PROGRAM, DRIVERS, OUT, BOOT and REPORT set: a CTest test for each test of the
# program and each driver, which looks up what became of it in the guest. Suites with StandIn in their
# names, which skip with the real driver, are for the stand-in alone.
if(NOT EXISTS ${PROGRAM})
  return()
endif()
get_filename_component(name ${PROGRAM} NAME)
execute_process(COMMAND ${PROGRAM} --gtest_list_tests OUTPUT_VARIABLE listed COMMAND_ERROR_IS_FATAL ANY)
string(REGEX REPLACE " *#[^\n]*" "" listed "${listed}")  # values of parameters
string(REGEX MATCHALL "[^\n]+" listed "${listed}")
foreach(line ${listed})
  if(line MATCHES "^[^ ].*\\.$")
    set(suite ${line})
  elseif(line MATCHES "^  (.*)")
    set(test ${suite}${CMAKE_MATCH_1})
    foreach(driver ${DRIVERS})
      if(suite MATCHES "StandIn" AND NOT driver MATCHES "stand-in")
        continue()
      endif()
      add_test(guest.${BOOT}.${driver}.${test} ${REPORT} ${OUT}/${driver}.${name}.log ${test})
      set_tests_properties(guest.${BOOT}.${driver}.${test} PROPERTIES
        LABELS guest TIMEOUT 10 SKIP_RETURN_CODE 77 FIXTURES_REQUIRED guest.boot.${BOOT})
    endforeach()
  endif()
endforeach()
