# Writes the page's own files and uPlot's as the source file that harness/bench/dashboard/assets.h
# declares: cmake -DASSETS=DIR -DNPM=DIR -DOUTPUT=FILE.cpp -P DashboardAssets.cmake. Without uPlot
# (no npm) its parts are empty, and the page has tables only.
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/FetchNpm.cmake)

attn_fetch_npm(uplot ${NPM} missing)
if(missing)
  message("The dashboard will have tables and no charts: ${missing}.")
endif()

# Raw strings: no file has the closing mark, and their length has no limit in g++ and clang.
set(source "// Made by cmake/DashboardAssets.cmake.\n")
string(APPEND source "#include \"harness/bench/dashboard/assets.h\"\n\nnamespace attn::dashboard::assets {\n")
function(embed name)
  set(text "")
  foreach(file IN LISTS ARGN)
    if(EXISTS ${file})
      file(READ ${file} content)
      string(APPEND text "${content}")
    endif()
  endforeach()
  string(FIND "${text}" ")attn_asset\"" mark)
  if(NOT mark EQUAL -1)
    message(FATAL_ERROR "${ARGN} cannot be embedded: it holds the closing mark of the string")
  endif()
  set(source "${source}const std::string_view ${name} = R\"attn_asset(${text})attn_asset\";\n"
      PARENT_SCOPE)
endfunction()

file(GLOB scripts ${ASSETS}/*.js)
list(SORT scripts)
embed(kPageHtml ${ASSETS}/page.html)
embed(kStyleCss ${ASSETS}/style.css)
embed(kScript ${scripts})
embed(kChartScript ${NPM}/uplot/dist/uPlot.iife.min.js)
embed(kChartCss ${NPM}/uplot/dist/uPlot.min.css)
embed(kChartLicence ${NPM}/uplot/LICENSE)
string(APPEND source "}  // namespace attn::dashboard::assets\n")
file(WRITE ${OUTPUT} "${source}")
