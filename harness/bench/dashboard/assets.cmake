# The files that the page is made of, as a source file of the program. uPlot comes by npm while
# building; where npm is missing the file has no charts, and configuring again tries anew.
set(dashboard_folder ${CMAKE_CURRENT_LIST_DIR})
set(dashboard_npm ${PROJECT_BINARY_DIR}/npm)
set(dashboard_assets ${CMAKE_CURRENT_BINARY_DIR}/dashboard_assets.cpp)
if(EXISTS ${dashboard_assets} AND NOT EXISTS ${dashboard_npm}/uplot)
  file(REMOVE ${dashboard_assets})
endif()
file(GLOB dashboard_files CONFIGURE_DEPENDS ${dashboard_folder}/assets/*)
add_custom_command(
    OUTPUT ${dashboard_assets}
    COMMAND ${CMAKE_COMMAND} -DASSETS=${dashboard_folder}/assets -DNPM=${dashboard_npm}
            -DOUTPUT=${dashboard_assets} -P ${PROJECT_SOURCE_DIR}/cmake/DashboardAssets.cmake
    DEPENDS ${dashboard_files} ${PROJECT_SOURCE_DIR}/cmake/DashboardAssets.cmake
            ${PROJECT_SOURCE_DIR}/cmake/FetchNpm.cmake ${PROJECT_SOURCE_DIR}/scripts/npm-packages.txt
    COMMENT "Embedding the dashboard's files" VERBATIM)
