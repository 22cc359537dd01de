#include "harness/cli/case_source.h"

#include <charconv>
#include <filesystem>

#include "harness/cli/session.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

/// A rule that a file's content breaks is bad input, not a wrong argument.
template <typename Load>
auto from_file(const std::string& path, const Load& load) {
  try {
    return load();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kConfig) throw;
    const std::string what = error.what();
    throw Error(ErrorKind::kInput, what.find(path) == 0 ? what : path + ": " + what, error.field(),
                error.rule());
  }
}

LoadedCase load_toml(const std::string& path, std::optional<std::uint64_t> seed) {
  return from_file(path, [&] {
    const harness::TomlCase toml = harness::load_toml_case(path);
    LoadedCase loaded;
    loaded.file = path;
    loaded.spec = toml.spec;
    loaded.seed = seed.value_or(toml.seed);
    loaded.c = harness::make_case(toml.spec, loaded.seed);
    loaded.words = "--case " + shell_quote(path);
    if (seed) loaded.words += " --seed " + std::to_string(*seed);
    return loaded;
  });
}

LoadedCase load_config(const std::string& config, std::uint64_t seed) {
  const auto load = [&] {
    LoadedCase loaded;
    loaded.spec = harness::load_case_spec(config);
    loaded.seed = seed;
    loaded.c = harness::make_case(*loaded.spec, seed);
    loaded.words = loaded.c.repro;
    return loaded;
  };
  if (is_json_text(config)) return load();
  LoadedCase loaded = from_file(config, load);
  loaded.file = config;
  loaded.words = "--config " + shell_quote(config) + " --seed " + std::to_string(seed);
  return loaded;
}

}  // namespace

bool is_json_text(const std::string& config) {
  const std::size_t first = config.find_first_not_of(" \t\r\n");
  return first != std::string::npos && config[first] == '{';
}

LoadedCase load_golden_case(const std::string& path, std::uint64_t page_seed) {
  return from_file(path, [&] {
    const golden::GoldenFile file = golden::read(path);
    LoadedCase loaded;
    loaded.file = path;
    loaded.seal = file.seal;
    loaded.c = golden::to_case(file, PagingOptions{.seed = page_seed});
    loaded.expected = golden::expected(file, loaded.c);
    loaded.words = "--case " + shell_quote(path) + " --page-seed " + std::to_string(page_seed);
    return loaded;
  });
}

LoadedCase load_case(const CaseOptions& options) {
  if (options.file.empty() == options.config.empty()) {
    throw Error(ErrorKind::kUsage,
                "give the case as either --case FILE or --config JSON (one of the two)");
  }
  if (!options.config.empty()) return load_config(options.config, options.seed.value_or(1));
  if (!std::filesystem::exists(options.file)) {
    throw Error(ErrorKind::kInput, options.file + ": no such file", "--case");
  }
  if (!golden::is_hdf5(options.file)) return load_toml(options.file, options.seed);
  if (options.seed) {
    throw Error(ErrorKind::kUsage,
                "--seed makes no sense with a golden file, whose values are stored; --page-seed "
                "chooses its page table",
                "--seed");
  }
  return load_golden_case(options.file, options.page_seed);
}

harness::RowSelection parse_rows(const std::string& text, std::uint64_t seed) {
  harness::RowSelection rows;
  rows.seed = seed;
  if (text == "all") return rows;
  rows.all = false;
  if (text == "auto") return rows;
  const auto [end, status] =
      std::from_chars(text.data(), text.data() + text.size(), rows.random_rows);
  if (status != std::errc() || end != text.data() + text.size() || rows.random_rows < 0) {
    throw Error(ErrorKind::kUsage, "--rows " + text + ": use all, auto or a number of random rows",
                "--rows");
  }
  return rows;
}

harness::Gate parse_gate(const std::string& name) {
  if (name == "smoke") return harness::Gate::kSmoke;
  if (name == "pr") return harness::Gate::kPr;
  if (name == "nightly") return harness::Gate::kNightly;
  throw Error(ErrorKind::kUsage,
              "--gate " + name + " is none" + hint(name, {"smoke", "pr", "nightly"}), "--gate");
}

}  // namespace attn::cli
