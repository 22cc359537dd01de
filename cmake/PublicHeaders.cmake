# The headers that users of the installed libraries include. They need no other library's header
# and no header that is not listed here; tests/core checks both.
file(GLOB ATTN_PUBLIC_HEADERS CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}"
     "${PROJECT_SOURCE_DIR}/reference/core/*.h")
list(FILTER ATTN_PUBLIC_HEADERS EXCLUDE REGEX "_internal\\.h$")
list(APPEND ATTN_PUBLIC_HEADERS
     reference/reference.h
     golden/golden_file.h
     golden/second_evaluation.h
     harness/backends/attn_plugin.h
     harness/backends/backend.h
     harness/backends/exec_mode.h
     harness/compare/arithmetic.h
     harness/compare/compare.h
     harness/generate/case_spec.h)
