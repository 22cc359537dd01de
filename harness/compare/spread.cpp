#include "harness/compare/spread.h"

#include <algorithm>
#include <utility>

namespace attn::harness {
namespace {

std::string range_word(const std::pair<std::int64_t, std::int64_t>& range) {
  const auto& [first, last] = range;
  return std::to_string(first) + (first == last ? "" : " to " + std::to_string(last));
}

/// "rows 3 to 5 of 8", "every row", "" where there is but one.
std::string axis_words(const std::string& word, const std::vector<std::int64_t>& bad,
                       std::size_t of) {
  if (of <= 1) return "";
  if (bad.size() == of) return "every " + word;
  return word + (bad.size() == 1 ? " " : "s ") + range_words(bad) + " of " + std::to_string(of);
}

}  // namespace

std::string range_words(const std::vector<std::int64_t>& ascending) {
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
  for (const std::int64_t n : ascending) {
    if (!ranges.empty() && ranges.back().second + 1 == n) {
      ranges.back().second = n;
    } else {
      ranges.emplace_back(n, n);
    }
  }
  for (std::size_t i = 0; i < ranges.size(); ++i) {  // two are no range
    const auto [first, last] = ranges[i];
    if (last != first + 1) continue;
    ranges[i].second = first;
    ranges.insert(ranges.begin() + static_cast<std::ptrdiff_t>(i) + 1, {last, last});
  }
  constexpr std::size_t kMost = 4;
  std::string text;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const bool is_last = i + 1 == ranges.size();
    if (i >= kMost && !is_last) continue;
    if (i > 0) text += ranges.size() > kMost && is_last ? ", ... " : is_last ? " and " : ", ";
    text += i >= kMost ? std::to_string(ranges[i].second) : range_word(ranges[i]);
  }
  return text;
}

void Spread::add(std::int64_t row, std::int64_t head, bool bad) {
  if (rows_.empty() || rows_.back() != row) {
    const auto known = std::ranges::find(rows_, row);
    if (known != rows_.end()) {
      auto& heads = bad_[static_cast<std::size_t>(known - rows_.begin())];
      heads[static_cast<std::size_t>(head)] = heads[static_cast<std::size_t>(head)] || bad;
      return;
    }
    rows_.push_back(row);
    bad_.emplace_back(static_cast<std::size_t>(heads_));
  }
  if (bad) bad_.back()[static_cast<std::size_t>(head)] = true;
}

std::string Spread::words() const {
  std::vector<std::int64_t> bad_rows, bad_heads;
  std::size_t pairs = 0;
  for (std::int64_t head = 0; head < heads_; ++head) {
    const bool any = std::ranges::any_of(bad_, [&](const std::vector<bool>& heads) {
      return heads[static_cast<std::size_t>(head)];
    });
    if (any) bad_heads.push_back(head);
  }
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const auto bad = static_cast<std::size_t>(std::ranges::count(bad_[i], true));
    if (bad > 0) bad_rows.push_back(rows_[i]);
    pairs += bad;
  }
  const std::size_t all = rows_.size() * static_cast<std::size_t>(heads_);
  if (pairs == 0 || all <= 1) return "";
  std::ranges::sort(bad_rows);
  const std::string rows = axis_words(std::string(row_word_), bad_rows, rows_.size());
  const std::string heads = axis_words("head", bad_heads, static_cast<std::size_t>(heads_));
  const std::string both = rows + (rows.empty() || heads.empty() ? "" : " and ") + heads;
  if (pairs == all) return "wrong in " + both;
  if (pairs == bad_rows.size() * bad_heads.size()) {
    return "wrong in " + both + ", right in all others";
  }
  return "wrong in " + std::to_string(pairs) + " of " + std::to_string(all) + " pairs of " +
         std::string(row_word_) + " and head, in " + both;
}

}  // namespace attn::harness
