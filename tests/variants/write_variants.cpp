// Prints docs/variants.md: write_variants > docs/variants.md.
// With a backend's name, those names that it passes, as data/gpu/DEVICE/variants.json holds them.

#include <iostream>
#include <nlohmann/json.hpp>

#include "tests/variants/variants_table.h"

int main(int argc, char** argv) {
  if (argc == 1) {
    std::cout << attn::variants::markdown(attn::variants::proven_rows());
    return 0;
  }
  std::vector<std::string> complaints;
  const nlohmann::ordered_json json{
      {"schema_version", 1},
      {"backend", argv[1]},
      {"passed", attn::variants::names_passed_by(argv[1], complaints)}};
  std::cout << json.dump(1) << "\n";
  for (const std::string& complaint : complaints) std::cerr << complaint << "\n";
  return complaints.empty() ? 0 : 1;
}
