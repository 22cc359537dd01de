#pragma once

#include <string>
#include <vector>

#include "harness/report/predicate.h"
#include "harness/report/report.h"

namespace attn::harness {

/// A failure that is known and accepted until a day.
struct Waiver {
  std::string when;     ///< as written
  Predicate matches;    ///< of the case
  std::string backend;  ///< spec, or its part before the colon; "": every backend
  std::string link;     ///< to the issue; no two waivers have the same
  std::string expires;  ///< "2027-01-31", the last day that it holds
  std::string reason;
};

/// The waivers of a TOML file:
///
///     [[waiver]]
///     when = "mask == chunked_causal && head_dim > 128"
///     backend = "./kernel.so"
///     link = "https://example.org/issues/7"
///     expires = 2027-01-31
///     reason = "the tail of the last chunk is dropped"
class Waivers {
 public:
  /// None.
  Waivers() = default;
  /// Throws Error(kInput) with the file's name and the waiver's number.
  static Waivers load(const std::string& path);
  /// `name` is what errors call the text; `today` decides what is expired, "": the clock.
  static Waivers parse(const std::string& text, const std::string& name, std::string today = "");

  /// The file, "" for none.
  const std::string& text() const { return text_; }

  /// Sets row.waiver where a waiver that has not expired matches the case on row.backend, whether
  /// the row passed or not; outcome(row) tells these apart.
  void apply(const Case& c, ReportRow& row) const;

  /// What is wrong with the waivers themselves, a failed row each: expired; matching more rows that
  /// passed than rows that failed; and, when `rows` are those of a whole run, matching none that
  /// failed.
  std::vector<ReportRow> complaints(const std::vector<ReportRow>& rows, bool whole) const;

 private:
  bool is_expired(const Waiver& waiver) const { return waiver.expires < today_; }

  std::string text_;
  std::string today_;
  std::vector<Waiver> waivers_;
};

}  // namespace attn::harness
