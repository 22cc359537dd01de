#include "harness/cli/fault_rows.h"

#include <algorithm>
#include <ostream>
#include <sstream>
#include <utility>

#include "harness/cli/session.h"
#include "harness/faults/memory_faults.h"
#include "harness/report/format.h"

namespace attn::cli {
namespace {

using harness::Detector;
using harness::FaultInfo;
using harness::FaultOutcome;
using harness::ReportRow;
using harness::Status;

bool is_control(const FaultInfo& fault) { return !fault.equivalent_because.empty(); }

bool is_of_memory(const FaultInfo& fault) {
  const auto faults = harness::memory_faults();
  return &fault >= faults.data() && &fault < faults.data() + faults.size();
}

/// Why a bug survived: what to mend.
std::string survival(const FaultOutcome& outcome) {
  const std::string trigger = " (needs: " + std::string(outcome.fault->trigger) + ")";
  if (is_of_memory(*outcome.fault)) return "survived" + trigger;
  if (!outcome.reached) return "survived: not reached, no case has its trigger" + trigger;
  if (!outcome.infected) return "survived: reached, but no bit differs; the data do not show it";
  return "survived: bits differ, but nothing failed; the oracle does not see it";
}

std::string kill(const FaultOutcome& outcome) {
  std::string text = "case " + std::to_string(outcome.cases_to_kill) + ", " +
                     std::string(name_of(outcome.kill.detector));
  if (outcome.kill.stage) text += ", " + std::string(name_of(*outcome.kill.stage));
  return text;
}

const harness::PropertyValue* property(const ReportRow& row, std::string_view name) {
  const auto found =
      std::ranges::find_if(row.properties, [&](const auto& entry) { return entry.first == name; });
  return found == row.properties.end() ? nullptr : &found->second;
}

std::string text_of(const ReportRow& row, std::string_view name) {
  const auto* const value = property(row, name);
  return value != nullptr ? std::get<std::string>(*value) : "";
}

std::int64_t number_of(const ReportRow& row, std::string_view name) {
  const auto* const value = property(row, name);
  return value != nullptr ? std::get<std::int64_t>(*value) : 0;
}

Detector parse_detector(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(Detector::kRefusal); ++i) {
    if (name_of(static_cast<Detector>(i)) == name) return static_cast<Detector>(i);
  }
  return Detector::kValue;
}

}  // namespace

ReportRow fault_row(const FaultOutcome& outcome, const std::vector<std::string>& known_survivors,
                    const std::string& plugin) {
  const FaultInfo& fault = *outcome.fault;
  const bool memory = is_of_memory(fault);
  ReportRow row;
  row.name = std::string(fault.id);
  row.backend = (memory ? "faulty_memory:" : "faulty:") + row.name;
  row.seconds = outcome.seconds_to_kill;
  const auto yes_or_no = [](bool yes) { return std::string(yes ? "yes" : "no"); };
  row.properties = {{"kind", std::string(memory ? "memory" : "value")},
                    {"summary", std::string(fault.summary)},
                    {"control", yes_or_no(is_control(fault))},
                    {"reached", yes_or_no(outcome.reached)},
                    {"infected", yes_or_no(outcome.infected)},
                    {"killed", yes_or_no(outcome.killed())},
                    {"cases_to_kill", outcome.cases_to_kill},
                    {"seconds_to_kill", outcome.seconds_to_kill},
                    {"random_kills", outcome.random_kills}};
  if (outcome.killed()) {
    row.properties.emplace_back("detector", std::string(name_of(outcome.kill.detector)));
    row.properties.emplace_back("mode", std::string(name_of(outcome.kill.mode)));
    const std::string spec = memory ? plugin + ":fault=" + row.name : row.backend;
    row.repro = "attn-compare run " + outcome.repro + " --backend " + shell_quote(spec);
  }
  row.verdict.detail = outcome.killed() ? kill(outcome) : survival(outcome);
  if (is_control(fault)) {
    if (outcome.killed()) {
      row.verdict.status = Status::kFailed;
      row.verdict.detail = "false alarm on what is right: " + outcome.kill.detail;
    } else {
      row.verdict.detail = "right, and passed";
    }
  } else if (!outcome.killed()) {
    const bool known = std::ranges::find(known_survivors, row.name) != known_survivors.end();
    row.verdict.status = known ? Status::kSkipped : Status::kFailed;
  }
  return row;
}

ReportRow false_alarm_row(const std::string& alarm, bool memory) {
  ReportRow row;
  row.name = "none";
  row.backend = memory ? "faulty_memory:none" : "faulty:none";
  row.verdict.status = Status::kFailed;
  row.verdict.detail = "false alarm without a bug: " + alarm;
  return row;
}

std::string clean_note(const harness::FaultRun& run, bool memory) {
  return (memory ? "memory " : "value ") + std::to_string(run.cases) + " " +
         std::to_string(run.random);
}

void FaultTotals::add(const harness::ItemResult& item) {
  std::istringstream note(item.note);
  std::string kind;
  if (note >> kind) {
    harness::FaultRun& run = kind == "memory" ? memory_ : value_;
    (kind == "memory" ? memory_clean_ : clean_) = true;
    note >> run.cases >> run.random;
  }
  for (const ReportRow& row : item.rows) add_row(row);
}

void FaultTotals::add_row(const ReportRow& row) {
  if (row.name == "none") {
    (row.backend == "faulty:none" ? value_ : memory_).false_alarms.push_back(row.verdict.detail);
    return;
  }
  const bool memory = text_of(row, "kind") == "memory";
  const std::span<const FaultInfo> known =
      memory ? harness::memory_faults() : harness::fault_catalogue();
  FaultOutcome outcome;
  const auto fault = std::ranges::find(known, row.name, &FaultInfo::id);
  if (fault == known.end()) return;  // of another version, which a result file is refused for
  outcome.fault = &*fault;
  outcome.cases_to_kill = number_of(row, "cases_to_kill");
  outcome.random_kills = number_of(row, "random_kills");
  outcome.kill.detector = parse_detector(text_of(row, "detector"));
  (memory ? memory_ : value_).outcomes.push_back(std::move(outcome));
}

void FaultTotals::set_cases(std::int64_t value, std::int64_t memory) {
  value_.cases = value;
  memory_.cases = memory;
}

harness::GateScore FaultTotals::score(std::uint64_t seed) const {
  return harness::score_of(value_, memory_, seed);
}

std::map<std::string, std::int64_t> FaultTotals::random_kills() const {
  std::map<std::string, std::int64_t> kills;
  for (const FaultOutcome& outcome : value_.outcomes) {
    if (is_control(*outcome.fault)) continue;
    kills[std::string(outcome.fault->id)] = outcome.random_kills;
  }
  return kills;
}

void FaultTotals::print(std::ostream& out, const std::string& gate) const {
  const auto count = [](std::int64_t n) { return harness::format_count(n); };
  const auto alarms = [](const harness::FaultRun& run) {
    return std::to_string(run.false_alarms.size()) +
           (run.false_alarms.size() == 1 ? " false alarm" : " false alarms");
  };
  const harness::GateScore score = this->score(1);
  if (!value_.outcomes.empty()) {
    out << score.killed << " of " << score.planted << " planted bugs killed; gate " << gate << ", "
        << count(score.cases) << " cases; cases to a kill: median " << score.median_cases
        << ", most " << score.most_cases << "\n"
        << std::ssize(value_.outcomes) - score.planted << " controls";
    if (clean_) {
      out << ", " << count(value_.cases + value_.random)
          << " cases without a bug: " << alarms(value_);
    }
    out << "\n";
  }
  if (!memory_.outcomes.empty()) {
    out << to_string(score.memory) << "; " << count(memory_.cases) << " cases";
    if (memory_clean_) out << ", without a bug " << alarms(memory_);
    out << "\n";
  }
}

void print_fault_rows(std::ostream& out, const std::vector<ReportRow>& rows, bool all) {
  constexpr std::size_t kNameWidth = 34;
  for (const ReportRow& row : rows) {
    const bool passed = row.verdict.status == Status::kPassed;
    if (passed && !all) continue;
    std::string line = row.name;
    line.resize(std::max(line.size() + 2, kNameWidth), ' ');
    line += std::string(passed ? "" : "! ") + row.verdict.detail;
    out << harness::wrap(line, kNameWidth) << "\n";
  }
}

}  // namespace attn::cli
