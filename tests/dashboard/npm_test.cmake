# Fetching from npm: a missing npm leaves tables without charts and no error, an archive that is not
# the pinned one stops the build and is not kept.
cmake_minimum_required(VERSION 3.25)
set(assets ${SOURCE}/harness/bench/dashboard/assets)
file(REMOVE_RECURSE ${SCRATCH})
file(MAKE_DIRECTORY ${SCRATCH})

function(make_assets npm folder code text)
  execute_process(
      COMMAND ${CMAKE_COMMAND} -DASSETS=${assets} -DNPM=${SCRATCH}/${folder} -DATTN_NPM=${npm}
              -DOUTPUT=${SCRATCH}/${folder}.cpp -P ${SOURCE}/cmake/DashboardAssets.cmake
      RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  string(REGEX REPLACE "[ \n]+" " " out "${out}")
  set(${code} ${result} PARENT_SCOPE)
  set(${text} "${out}" PARENT_SCOPE)
endfunction()

make_assets(/bin/false offline code text)
if(code OR NOT text MATCHES "tables and no charts: npm could not fetch uplot")
  message(FATAL_ERROR "without a network: ${code}: ${text}")
endif()
make_assets(NOTFOUND without code text)
if(code OR NOT text MATCHES "tables and no charts: npm was not found")
  message(FATAL_ERROR "without npm: ${code}: ${text}")
endif()
file(READ ${SCRATCH}/without.cpp source)
if(NOT source MATCHES "kChartScript = R\"attn_asset\\(\\)attn_asset\"" OR NOT source MATCHES "Dash.filter")
  message(FATAL_ERROR "without npm the page's own files must be there, and no charts")
endif()

# An npm whose registry was tampered with.
file(WRITE ${SCRATCH}/npm "#!/bin/sh\nwhile [ \"$1\" != --pack-destination ]; do shift; done\n"
                          "echo other bytes > \"$2/uplot-1.6.32.tgz\"\n")
file(CHMOD ${SCRATCH}/npm PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
make_assets(${SCRATCH}/npm tampered code text)
if(NOT code OR NOT text MATCHES "is not what" OR EXISTS ${SCRATCH}/tampered.cpp
   OR EXISTS ${SCRATCH}/tampered/uplot-1.6.32.tgz)
  message(FATAL_ERROR "a tampered archive: ${code}: ${text}")
endif()
