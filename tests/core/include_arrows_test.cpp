// The arrows of docs/architecture.md, checked on every #include of the tree: what a folder may use
// from the project, and which other libraries.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Prefixes = std::vector<std::string>;

/// A part of the tree: the files whose path begins with `path`, the longest such part winning.
struct Zone {
  std::string path;
  Prefixes project;    // what quoted includes may begin with
  Prefixes libraries;  // likewise for includes in angle brackets; the standard library always may
};

const Prefixes kSystem{"dlfcn.h",  "fcntl.h", "locale.h", "malloc.h", "poll.h",
                       "signal.h", "spawn.h", "sys/",     "unistd.h"};

Prefixes with_system(Prefixes libraries) {
  libraries.insert(libraries.end(), kSystem.begin(), kSystem.end());
  return libraries;
}

const std::vector<Zone>& zones() {
  static const std::vector<Zone> kZones{
      {"reference/core/", {"reference/core/"}, {}},
      {"reference/core/config_json", {"reference/core/"}, {"nlohmann/"}},
      {"reference/", {"reference/"}, {"Eigen/"}},
      {"golden/",
       {"golden/", "reference/core/", "git_revision.h"},
       with_system({"hdf5.h", "nlohmann/", "openssl/", "zip.h"})},
      // An independent implementation: a kernel is not checked against itself.
      {"harness/backends/cpu/",
       {"harness/backends/cpu/", "reference/core/", "harness/backends/backend.h",
        "harness/compare/arithmetic.h"},
       {"immintrin.h"}},
      // C99, for compilers that know nothing of us.
      {"harness/backends/attn_plugin.h", {}, {"stddef.h", "stdint.h"}},
      {"harness/capi/attn_compare.h", {"harness/backends/attn_plugin.h"}, {"stddef.h", "stdint.h"}},
      {"harness/",
       {"harness/", "golden/", "reference/", "gpu/"},
       with_system({"Eigen/", "nlohmann/", "toml++/", "sqlite3.h"})},
      {"harness/cli/",
       {"harness/", "golden/", "reference/", "gpu/", "git_revision.h"},
       with_system({"CLI/", "nlohmann/"})},
      {"harness/bench/",
       {"harness/", "golden/", "reference/", "gpu/"},
       {"benchmark/", "Eigen/", "valgrind/"}},
      {"harness/bench/history/",
       {"harness/bench/history/", "harness/report/", "golden/", "reference/core/"},
       with_system({"nlohmann/"})},
      {"harness/bench/dashboard/",
       {"harness/bench/dashboard/", "harness/bench/history/", "harness/report/", "reference/core/"},
       with_system({"nlohmann/"})},
      {"gpu/",
       {"gpu/", "reference/core/"},
       {"cub/", "cublas", "cuda", "dlfcn.h", "nccl.h", "nvtx3/"}},
  };
  return kZones;
}

const Zone* zone_of(const std::string& file) {
  const Zone* best = nullptr;
  for (const Zone& zone : zones()) {
    if (file.starts_with(zone.path) && (best == nullptr || zone.path.size() > best->path.size())) {
      best = &zone;
    }
  }
  return best;
}

bool begins_with_any(const std::string& text, const Prefixes& prefixes) {
  return std::ranges::any_of(prefixes, [&](const std::string& p) { return text.starts_with(p); });
}

struct Include {
  bool quoted;
  std::string name;
};

std::vector<Include> includes_of(const std::string& text) {
  static const std::regex kInclude("^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]");
  std::vector<Include> list;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_search(line, match, kInclude)) list.push_back({match[1] == "\"", match[2]});
  }
  return list;
}

/// The includes of one file that break an arrow, "file includes name".
std::vector<std::string> broken_arrows(const std::string& file, const std::string& text) {
  std::vector<std::string> broken;
  const Zone* zone = zone_of(file);
  for (const Include& include : includes_of(text)) {
    const bool standard = !include.quoted && include.name.find_first_of("./") == std::string::npos;
    const bool allowed =
        zone != nullptr &&
        (standard ||
         begins_with_any(include.name, include.quoted ? zone->project : zone->libraries));
    if (!allowed) broken.push_back(file + " includes " + include.name);
  }
  return broken;
}

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// Sources and headers of the checked folders, by their paths from the root.
std::vector<std::string> source_files() {
  const std::set<std::string> extensions{".h", ".cpp", ".cu", ".cuh"};
  const fs::path root(ATTN_SOURCE_DIR);
  std::vector<std::string> files;
  for (const char* folder : {"reference", "golden", "harness", "gpu"}) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (entry.is_regular_file() && extensions.count(entry.path().extension().string()) != 0) {
        files.push_back(fs::relative(entry.path(), root).generic_string());
      }
    }
  }
  std::ranges::sort(files);
  return files;
}

/// The installed headers, a line each (written by tests/core/CMakeLists.txt).
std::vector<std::string> public_headers() {
  std::istringstream lines(read(ATTN_PUBLIC_HEADERS_FILE));
  std::vector<std::string> headers;
  for (std::string line; std::getline(lines, line);) headers.push_back(line);
  return headers;
}

TEST(IncludeArrows, HoldInTheTree) {
  const std::vector<std::string> files = source_files();
  EXPECT_GT(files.size(), 30U) << "the tree was not found";
  for (const std::string& file : files) {
    EXPECT_THAT(broken_arrows(file, read(fs::path(ATTN_SOURCE_DIR) / file)), testing::IsEmpty());
  }
}

TEST(IncludeArrows, LeadToFilesFromTheRoot) {
  for (const std::string& file : source_files()) {
    for (const Include& include : includes_of(read(fs::path(ATTN_SOURCE_DIR) / file))) {
      if (!include.quoted || include.name == "git_revision.h") continue;
      EXPECT_TRUE(fs::exists(fs::path(ATTN_SOURCE_DIR) / include.name))
          << file << " includes " << include.name << ", which is no path from the root";
    }
  }
}

TEST(IncludeArrows, PublicHeadersNeedNothingButPublicHeaders) {
  const std::vector<std::string> headers = public_headers();
  EXPECT_GT(headers.size(), 10U);
  for (const std::string& header : headers) {
    for (const Include& include : includes_of(read(fs::path(ATTN_SOURCE_DIR) / header))) {
      const bool c_header = include.name == "stddef.h" || include.name == "stdint.h";
      const bool allowed = include.quoted
                               ? std::ranges::count(headers, include.name) != 0
                               : c_header || include.name.find_first_of("./") == std::string::npos;
      EXPECT_TRUE(allowed) << header << " is public and includes " << include.name;
    }
  }
}

// Each arrow against a planted file that breaks it.
TEST(IncludeArrows, AreSeenWhenBroken) {
  struct Planted {
    std::string file;
    std::string line;
  };
  const Planted planted[] = {
      {"reference/core/tensor.cpp", "#include \"reference/stages/rope.h\""},
      {"reference/core/tensor.cpp", "#include <nlohmann/json.hpp>"},
      {"reference/core/tensor.h", "#include <Eigen/Core>"},
      {"reference/stages/rope.cpp", "#include \"golden/golden_file.h\""},
      {"reference/stages/rope.cpp", "#include \"harness/compare/compare.h\""},
      {"reference/stages/rope.cpp", "  #  include <hdf5.h>"},
      {"golden/golden_file.cpp", "#include \"reference/reference.h\""},
      {"golden/second_evaluation.cpp", "#include \"reference/stages/rope.h\""},
      {"golden/golden_file.cpp", "#include <Eigen/Dense>"},
      {"harness/backends/cpu/rope.cpp", "#include \"reference/stages/rope.h\""},
      {"harness/backends/cpu/rope.cpp", "#include \"golden/golden_file.h\""},
      {"harness/backends/cpu/rope.cpp", "#include \"harness/compare/compare.h\""},
      {"harness/backends/cpu/linalg.cpp", "#include <Eigen/Core>"},
      {"harness/compare/compare.cpp", "#include <cuda_runtime.h>"},
      {"harness/compare/compare.cpp", "#include <CLI/CLI.hpp>"},
      {"gpu/kernels/attention.cu", "#include \"reference/stages/attention.h\""},
      {"gpu/kernels/attention.cu", "#include <Eigen/Core>"},
      {"gpu/layers/layer.cpp", "#include \"harness/backends/backend.h\""},
      {"elsewhere/file.cpp", "#include \"reference/core/tensor.h\""},
  };
  for (const Planted& p : planted) {
    EXPECT_EQ(broken_arrows(p.file, "#pragma once\n" + p.line + "\n").size(), 1U)
        << p.file << ": " << p.line;
  }
  EXPECT_THAT(broken_arrows("reference/core/x.cpp", "#include <vector>\n// #include <hdf5.h>\n"),
              testing::IsEmpty());
}

}  // namespace
