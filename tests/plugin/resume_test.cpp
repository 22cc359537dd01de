// --resume: nothing that was finished is done again, and nothing is lost.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "harness/report/journal.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"
#include "tests/plugin/plugin_runner.h"

namespace attn::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

/// The items of a journal, in the order in which they were finished. A half line at the end is
/// none.
std::vector<std::string> items_of(const std::string& path) {
  std::vector<std::string> items;
  std::istringstream lines(read_file(path));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    if (lines.eof()) break;
    items.push_back(nlohmann::json::parse(line).at("item"));
  }
  return items;
}

/// The real program, killed as soon as it has finished `more` items; false when it ended before.
bool start_and_kill(const std::vector<std::string>& args, const std::string& journal,
                    std::size_t more) {
  std::vector<std::string> words = {ATTN_COMPARE};
  words.insert(words.end(), args.begin(), args.end());
  const std::size_t enough = items_of(journal).size() + more;
  const pid_t child = fork();
  if (child == 0) {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const int null = open("/dev/null", O_WRONLY);
    for (const int descriptor : {STDOUT_FILENO, STDERR_FILENO}) dup2(null, descriptor);
    if (chdir(ATTN_SOURCE_DIR) == 0) execv(argv[0], argv.data());
    _exit(127);
  }
  while (items_of(journal).size() < enough) {
    if (waitpid(child, nullptr, WNOHANG) == child) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return true;
}

TEST(Resume, AfterKillsItRepeatsNothingAndLosesNothing) {
  const ScratchFolder scratch;
  const std::string journal = scratch / "journal";
  const std::vector<std::string> plain = {
      "verify", "data/golden", "--backend",          plugin("bad", "slow"),
      "--jobs", "2",           "--allow-unsupported"};
  std::vector<std::string> resumed = plain;
  resumed.insert(resumed.end(), {"--resume", journal});
  std::vector<std::string> before;
  for (const std::size_t more : {1, 7, 3, 20, 2}) {
    EXPECT_TRUE(start_and_kill(resumed, journal, more)) << "ended before it could be killed";
    const std::vector<std::string> items = items_of(journal);
    // What was there stays where it was: nothing is lost.
    ASSERT_GE(items.size(), before.size() + more);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), items.begin()));
    before = items;
  }
  const Outcome whole = attn_compare(plain);
  const Outcome last = attn_compare(resumed);
  EXPECT_EQ(last.code, whole.code);
  EXPECT_EQ(last.out, whole.out);
  EXPECT_THAT(last.err, HasSubstr(std::to_string(before.size()) + " file"));
  const std::vector<std::string> items = items_of(journal);
  EXPECT_EQ(std::set<std::string>(items.begin(), items.end()).size(), items.size())
      << "a finished file was done again";
}

TEST(Resume, ALineThatWasCutOffIsDroppedAndDoneAgain) {
  const ScratchFolder scratch;
  const std::string journal = scratch / "journal";
  const std::vector<std::string> files = {"qk-norm", "mha-causal-f32", "mask-null"};
  const Outcome whole = verify_on("cpu", files, {"--resume", journal, "--jobs", "1"});
  const std::string bytes = read_file(journal);
  for (const std::size_t cut :
       {std::size_t{1}, std::size_t{100}, bytes.size() / 2, bytes.size() - 3, bytes.size() - 1}) {
    write_file(journal, bytes.substr(0, bytes.size() - cut));
    const Outcome again = verify_on("cpu", files, {"--resume", journal, "--jobs", "1"});
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(again.out, whole.out) << cut;
    EXPECT_EQ(items_of(journal).size(), files.size()) << cut;
  }
}

TEST(Resume, CrashesAreFinishedToo) {
  const ScratchFolder scratch;
  const std::string journal = scratch / "journal";
  const std::vector<std::string> more = {"--resume", journal, "-v", "--json", scratch / "r.json"};
  const Outcome first = verify_on(plugin("bad", "abort@3"), {"core-zero-keys", "qk-norm"}, more);
  const auto report = nlohmann::json::parse(read_file(scratch / "r.json"));
  const Outcome second = verify_on(plugin("bad", "abort@3"), {"core-zero-keys", "qk-norm"}, more);
  EXPECT_EQ(first.code, 5);
  EXPECT_EQ(second.code, 5);
  EXPECT_EQ(first.out, second.out);
  EXPECT_EQ(report["rows"], nlohmann::json::parse(read_file(scratch / "r.json"))["rows"]);
}

TEST(Resume, AJournalOfAnotherRunIsRefused) {
  const ScratchFolder scratch;
  const std::string journal = scratch / "journal";
  ASSERT_EQ(verify_on("cpu", {"qk-norm"}, {"--resume", journal}).code, 0);
  const std::string bytes = read_file(journal);
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--rows", "auto"},
                                               {"--no-taps"},
                                               {"--page-seed", "2"},
                                               {"--backend", "exact"},
                                               {"--isolate"}}) {
    std::vector<std::string> args = {"--resume", journal};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome outcome = verify_on("cpu", {"qk-norm"}, args);
    EXPECT_EQ(outcome.code, 2) << more.front();
    EXPECT_THAT(outcome.err, HasSubstr("of a run with other options"));
    EXPECT_EQ(read_file(journal), bytes);
  }
  const Outcome alien = verify_on("cpu", {"qk-norm"}, {"--resume", "README.md"});
  EXPECT_EQ(alien.code, 3);
  EXPECT_THAT(alien.err, HasSubstr("is no journal"));
}

TEST(Resume, APluginThatWasBuiltAgainStartsAnew) {
  const ScratchFolder scratch;
  const std::string journal = scratch / "journal";
  const std::string mine = scratch / "mine.so";
  std::filesystem::copy_file(plugin("minimal"), mine);
  ASSERT_EQ(verify_on(mine, {"mha-causal-f32"}, {"--resume", journal}).code, 0);
  EXPECT_EQ(verify_on(mine, {"mha-causal-f32"}, {"--resume", journal}).code, 0);
  std::filesystem::last_write_time(
      mine, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(verify_on(mine, {"mha-causal-f32"}, {"--resume", journal}).code, 2);
}

using harness::Journal;

TEST(Journal, OneRunAtATime) {
  const ScratchFolder scratch;
  Journal first(scratch / "j", "run");
  EXPECT_THROW(Journal(scratch / "j", "run"), Error);
}

TEST(Journal, KeepsWhatItIsGiven) {
  const ScratchFolder scratch;
  const Journal::Lines lines = {"{}", "a \"quoted\" line", ""};
  {
    Journal journal(scratch / "j", "run \"x\"\n2");
    journal.add("item\n1", lines);
    EXPECT_EQ(journal.find("item\n1"), nullptr);
  }
  Journal journal(scratch / "j", "run \"x\"\n2");
  EXPECT_EQ(journal.size(), 1U);
  ASSERT_NE(journal.find("item\n1"), nullptr);
  EXPECT_EQ(*journal.find("item\n1"), lines);
  EXPECT_EQ(journal.find("item 2"), nullptr);
}

TEST(Journal, ARowSurvivesTheWayThere) {
  harness::ReportRow row;
  row.name = "n";
  row.file = "f \"q\"";
  row.backend = "b";
  row.verdict.status = harness::Status::kFailed;
  row.verdict.first_bad = Stage::kAttnOut;
  row.verdict.detail = "d";
  row.verdict.rows_checked = 3;
  row.verdict.rows_total = 4;
  row.seconds = 0.1;
  row.repro = "r";
  row.properties = {{"i", std::int64_t{-7}}, {"d", 2.5}, {"t", std::string("text")}};
  harness::StageReport stage;
  stage.stage = Stage::kAttnOut;
  stage.elements = 12;
  stage.bad = 2;
  stage.worst_ratio = std::numeric_limits<double>::infinity();
  stage.worst_index = {1, 2};
  stage.worst_where = "w";
  stage.got = 1.0 / 3.0;
  stage.want = -std::numeric_limits<double>::infinity();
  stage.bound = 5e-324;
  stage.parts = {{"p", 0.1}, {"q", 1e300}};
  stage.weak_bound = true;
  stage.note = "note";
  row.verdict.stages = {stage};
  const std::string line = harness::to_json_line(row);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_EQ(harness::to_json_line(harness::parse_json_row(line)), line);
  for (const harness::Trouble trouble :
       {harness::Trouble::kUnreadable, harness::Trouble::kInternal}) {
    row.trouble = trouble;
    EXPECT_EQ(harness::parse_json_row(harness::to_json_line(row)).trouble, trouble);
  }
  EXPECT_THROW(harness::parse_json_row("{}"), Error);
}

}  // namespace
}  // namespace attn::test
