#pragma once

#include <string>
#include <vector>

namespace attn::variants {

/// One line of data/seed-names.txt: a public name of the pages that describe the layer family.
struct SeedName {
  std::string page;  ///< older, newer, borrowed
  std::string kind;  ///< class, parameter, property, ...
  std::string name;
};
std::vector<SeedName> seed_names();

/// What data/variants.json says of a name, and whether it holds.
struct Row {
  SeedName seed;
  std::string where;     ///< file that implements it
  std::string proof;     ///< one phrase
  std::string backends;  ///< those that ran the proof
  std::string note;
  std::string not_applicable;      ///< the reason, when there is nothing to implement
  std::vector<std::string> tests;  ///< "program.Suite.Name", when tests prove it
  std::string failure;             ///< "" when the proof holds
};

/// Finds each name's row and carries its proof out: a changed config is evaluated by every backend,
/// judged, and must move the result (or must not); a refused one must be refused by its field.
/// Tests are not run here: see missing_tests.
std::vector<Row> proven_rows();

/// Names proven by a change whose changed config `backend` evaluates and passes; why the others do
/// not goes to `complaints`.
std::vector<std::string> names_passed_by(const std::string& backend,
                                         std::vector<std::string>& complaints);

/// Of "program.Suite.Name" tests, those that did not pass when their programs were run. A skipped
/// test did not pass.
std::vector<std::string> missing_tests(const std::vector<std::string>& tests);

/// docs/variants.md.
std::string markdown(const std::vector<Row>& rows);

}  // namespace attn::variants
