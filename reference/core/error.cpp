#include "reference/core/error.h"

#include <algorithm>
#include <cstddef>

namespace attn {

int edit_distance(std::string_view a, std::string_view b) {
  // Optimal string alignment; three rows of the dynamic programme are enough.
  std::vector<int> before(b.size() + 1);
  std::vector<int> previous(b.size() + 1);
  std::vector<int> current(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int substitution = previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      current[j] = std::min({previous[j] + 1, current[j - 1] + 1, substitution});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], before[j - 2] + 1);
      }
    }
    before.swap(previous);
    previous.swap(current);
  }
  return previous[b.size()];
}

std::string nearest_match(std::string_view word, const std::vector<std::string>& candidates) {
  const int limit = std::max(2, static_cast<int>(word.size() / 3));
  int best = limit + 1;
  std::string nearest;
  for (const std::string& candidate : candidates) {
    // The lengths alone bound the distance from below; this also keeps hostile words cheap.
    const std::size_t gap =
        std::max(word.size(), candidate.size()) - std::min(word.size(), candidate.size());
    if (gap > static_cast<std::size_t>(limit)) continue;
    const int distance = edit_distance(word, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string hint(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string nearest = nearest_match(word, candidates);
  if (!nearest.empty()) return "; did you mean \"" + nearest + "\"?";
  std::string known;
  for (const std::string& candidate : candidates) {
    known += (known.empty() ? "" : ", ") + candidate;
  }
  return known.empty() ? "" : "; known: " + known;
}

}  // namespace attn
