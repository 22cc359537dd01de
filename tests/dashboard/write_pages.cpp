// Writes pages for the browser's tests: write_pages FOLDER. sample.html is a small one, long.html
// one series of 10,000 runs, many.html 2,000 runs of 100 benchmarks, empty.html nothing at all.
#include <cstdio>
#include <exception>
#include <string>

#include "harness/report/writers.h"
#include "tests/dashboard/sample_page.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: write_pages FOLDER\n", stderr);
    return 2;
  }
  try {
    const std::string folder = argv[1];
    const auto write = [&](const char* name, const attn::dashboard::Page& page) {
      attn::harness::write_text_file(folder + "/" + name, attn::dashboard::render(page));
    };
    write("sample.html", attn::test::sample_page());
    write("long.html", attn::test::sample_page({10000, 2, true}));
    write("many.html", attn::test::sample_page({2000, 100, true}));
    write("empty.html",
          attn::dashboard::Page{"Nothing", "2026-11-29T12:00:00Z", {}, {}, {}, {}, {}, {}, {}, {}});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_pages: %s\n", error.what());
    return 1;
  }
  return 0;
}
