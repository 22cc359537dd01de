#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace attn {

/// What kind of mistake an Error reports; the command line maps each to its exit code.
enum class ErrorKind {
  kUsage,        ///< a wrong argument or an impossible request: exit 2
  kConfig,       ///< a config or a case that a rule refuses: exit 2 (3 when it came from a file)
  kInput,        ///< an unreadable, malformed or tampered file: exit 3
  kUnsupported,  ///< a valid case that this implementation does not cover
  kInternal,     ///< a broken promise of our own: exit 70
};

/// The one exception type of the library. The message is a single line that names the field, the
/// value, the rule and what to try. `field` is the config key or dataset at fault, `rule` the id of
/// the row in the table of refused combinations ("" where no rule applies).
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message, std::string field = "", std::string rule = "")
      : std::runtime_error(message), kind_(kind), field_(std::move(field)), rule_(std::move(rule)) {}
  ErrorKind kind() const { return kind_; }
  const std::string& field() const { return field_; }
  const std::string& rule() const { return rule_; }

 private:
  ErrorKind kind_;
  std::string field_;
  std::string rule_;
};

/// Damerau-Levenshtein distance (insertions, deletions, substitutions, swaps of neighbours).
int edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `word`, or "" when none is within a third of its length (at least 2).
std::string nearest_match(std::string_view word, const std::vector<std::string>& candidates);

/// "; did you mean \"X\"?" for the nearest candidate, or "; known: a, b, c" when none is near.
std::string hint(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace attn
