#pragma once

#include <string>
#include <vector>

#include "tests/cli/program_runner.h"

namespace attn::test {

/// A library of tests/plugin/CMakeLists.txt.
inline std::string plugin(const std::string& name, const std::string& options = "") {
  const std::string path = std::string(ATTN_PLUGINS) + "/" + name + ".so";
  return options.empty() ? path : path + ":" + options;
}

/// attn-compare verify of golden files on a plug-in.
inline Outcome verify_on(const std::string& backend, const std::vector<std::string>& names,
                         const std::vector<std::string>& more = {}) {
  std::vector<std::string> args = {"verify"};
  for (const std::string& name : names) args.push_back(golden(name));
  args.insert(args.end(), {"--backend", backend});
  args.insert(args.end(), more.begin(), more.end());
  return attn_compare(args);
}

/// The text with every run of white space as one space: lines are wrapped where they end.
inline std::string unwrapped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n';
    if (!space) out += c;
    if (space && (out.empty() || out.back() != ' ')) out += ' ';
  }
  return out;
}

}  // namespace attn::test
