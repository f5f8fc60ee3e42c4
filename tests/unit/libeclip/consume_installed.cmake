# Installs the library into a directory of its own and builds a small project against it.
#   cmake -DBUILD=... -DWORK=... -DCONSUMER=... -DPROGRAM=... -DEXAMPLE=... -DGENERATOR=...
#         -DLIBDIR=...  -P consume_installed.cmake
cmake_minimum_required(VERSION 3.25)
file(REMOVE_RECURSE "${WORK}")
foreach(component libeclip libeclip-dev)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix
                          --component ${component}
                  OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endforeach()
set(ENV{PKG_CONFIG_PATH} "${WORK}/prefix/${LIBDIR}/pkgconfig")
execute_process(COMMAND ${CMAKE_COMMAND} -G ${GENERATOR} -S ${CONSUMER} -B ${WORK}/build
                        -DCMAKE_PREFIX_PATH=${WORK}/prefix -DPROGRAM=${PROGRAM}
                        -DEXAMPLE=${EXAMPLE}
                OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/build COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_CTEST_COMMAND} --test-dir ${WORK}/build COMMAND_ERROR_IS_FATAL ANY)
