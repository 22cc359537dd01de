# The git revision goes into one generated source, written anew only when it changes, so that a new
# commit recompiles one file.
find_package(Git QUIET)
add_custom_target(attn_git_revision
    COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DOUT=${PROJECT_BINARY_DIR}/generated/git_revision.h
            -DGIT=${GIT_EXECUTABLE} -P ${PROJECT_SOURCE_DIR}/cmake/GitRevision.cmake
    BYPRODUCTS ${PROJECT_BINARY_DIR}/generated/git_revision.h
    COMMENT "")
