#include "harness/report/waivers.h"

#include <toml++/toml.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <sstream>
#include <utility>

#include "reference/core/error.h"

namespace attn::harness {
namespace {

/// The day in UTC, "2026-11-22".
std::string clock_day() {
  const std::time_t now = std::time(nullptr);
  std::tm day{};
  gmtime_r(&now, &day);
  char text[16];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%d", &day)};
}

/// Reads one [[waiver]]; `where` is "waivers.toml: waiver 2".
class WaiverReader {
 public:
  WaiverReader(const toml::table& table, std::string where)
      : table_(table), where_(std::move(where)) {}

  Waiver read() const {
    const std::vector<std::string> known = {"when", "backend", "link", "expires", "reason"};
    for (const auto& [key, value] : table_) {
      const std::string name(key.str());
      if (std::ranges::count(known, name) == 0) {
        refuse("has no key \"" + name + "\"" + hint(name, known));
      }
    }
    Waiver waiver;
    waiver.when = text("when");
    waiver.link = text("link");
    waiver.reason = text("reason");
    if (table_.contains("backend")) waiver.backend = text("backend");
    waiver.expires = day();
    try {
      waiver.matches = parse_predicate(waiver.when);
    } catch (const Error& error) {
      refuse(error.what());
    }
    return waiver;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(ErrorKind::kInput, where_ + ": " + what, "--waivers");
  }

  std::string text(const std::string& key) const {
    const auto value = table_[key].value<std::string>();
    if (!value || value->empty()) refuse("needs " + key + " = \"...\"");
    return *value;
  }

  std::string day() const {
    const auto date = table_["expires"].value<toml::date>();
    if (!date) refuse("needs a last day, as in expires = 2027-01-31");
    std::ostringstream out;
    out << *date;
    return out.str();
  }

  const toml::table& table_;
  std::string where_;
};

ReportRow complaint(const Waiver& waiver, const std::string& what) {
  ReportRow row;
  row.name = "waiver " + waiver.link;
  row.backend = waiver.backend;
  row.verdict.status = Status::kFailed;
  row.verdict.detail = "when = '" + waiver.when + "': " + what;
  return row;
}

}  // namespace

Waivers Waivers::load(const std::string& path) {
  std::ostringstream text;
  const std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorKind::kInput, path + ": cannot be read", "--waivers");
  text << file.rdbuf();
  return parse(text.str(), path);
}

Waivers Waivers::parse(const std::string& text, const std::string& name, std::string today) {
  Waivers waivers;
  waivers.text_ = text;
  waivers.today_ = today.empty() ? clock_day() : std::move(today);
  toml::table table;
  try {
    table = toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw Error(ErrorKind::kInput, name + ": " + std::string(error.description()), "--waivers");
  }
  const toml::array* const list = table["waiver"].as_array();
  if (table.size() != (list != nullptr ? 1U : 0U)) {
    throw Error(ErrorKind::kInput, name + ": holds more than [[waiver]] tables", "--waivers");
  }
  for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
    const std::string where = name + ": waiver " + std::to_string(i + 1);
    const toml::table* const entry = list->get(i)->as_table();
    if (entry == nullptr) throw Error(ErrorKind::kInput, where + ": is no table", "--waivers");
    Waiver waiver = WaiverReader(*entry, where).read();
    if (std::ranges::count(waivers.waivers_, waiver.link, &Waiver::link) > 0) {
      throw Error(ErrorKind::kInput,
                  where + ": has the link of another one; join their conditions with ||",
                  "--waivers");
    }
    waivers.waivers_.push_back(std::move(waiver));
  }
  return waivers;
}

void Waivers::apply(const Case& c, ReportRow& row) const {
  if (waivers_.empty()) return;
  const Facts facts = facts_of(c);
  const std::string family = row.backend.substr(0, row.backend.find(':'));
  for (const Waiver& waiver : waivers_) {
    const bool backend =
        waiver.backend.empty() || waiver.backend == row.backend || waiver.backend == family;
    if (!backend || is_expired(waiver) || !waiver.matches(facts)) continue;
    row.waiver = waiver.link;
    return;
  }
}

std::vector<ReportRow> Waivers::complaints(const std::vector<ReportRow>& rows, bool whole) const {
  std::vector<ReportRow> found;
  for (const Waiver& waiver : waivers_) {
    std::int64_t waived = 0, passed = 0;
    for (const ReportRow& row : rows) {
      if (row.waiver != waiver.link) continue;
      waived += is_waived(row);
      passed += outcome(row) == "passed";
    }
    if (is_expired(waiver)) {
      found.push_back(complaint(waiver, "expired on " + waiver.expires + " (" + waiver.reason +
                                            "); mend the cause, or decide again and renew it"));
    } else if (passed > waived) {
      found.push_back(complaint(waiver, "is too wide: it matches " + std::to_string(passed) +
                                            " rows that passed and " + std::to_string(waived) +
                                            " that failed; narrow it"));
    } else if (whole && waived == 0) {
      found.push_back(complaint(waiver, "waived nothing in this run; take it out"));
    }
  }
  return found;
}

}  // namespace attn::harness
