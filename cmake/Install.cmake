# Libraries, public headers, the program, the golden files and a CMake package:
#   find_package(attn_compare 0.1 REQUIRED)
#   target_link_libraries(mine PRIVATE attn::harness)
include(CMakePackageConfigHelpers)
include(PublicHeaders)

set(install_targets "")
foreach(name core reference golden cpu gpu harness)
  if(TARGET attn_${name})
    list(APPEND install_targets attn_${name})
  endif()
endforeach()
install(TARGETS ${install_targets} EXPORT attn_compare_targets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET attn_compare_cli)
  install(TARGETS attn_compare_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

foreach(header IN LISTS ATTN_PUBLIC_HEADERS)
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${PROJECT_SOURCE_DIR}/${header}
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/attn_compare/${folder})
endforeach()
if(EXISTS ${PROJECT_SOURCE_DIR}/data/golden)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/data/golden
          DESTINATION ${CMAKE_INSTALL_DATADIR}/attn_compare FILES_MATCHING PATTERN "*.h5")
endif()
install(FILES ${PROJECT_SOURCE_DIR}/data/faults/score.json
        DESTINATION ${CMAKE_INSTALL_DATADIR}/attn_compare/faults)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/attn_compare)
install(EXPORT attn_compare_targets NAMESPACE attn:: FILE attn_compareTargets.cmake
        DESTINATION ${package_folder})
configure_package_config_file(
    ${PROJECT_SOURCE_DIR}/cmake/attn_compareConfig.cmake.in
    ${PROJECT_BINARY_DIR}/attn_compareConfig.cmake
    INSTALL_DESTINATION ${package_folder} PATH_VARS CMAKE_INSTALL_DATADIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/attn_compareConfigVersion.cmake
                                 COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/attn_compareConfig.cmake
              ${PROJECT_BINARY_DIR}/attn_compareConfigVersion.cmake
        DESTINATION ${package_folder})
