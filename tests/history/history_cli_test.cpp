// attn-compare history as a user runs it: files in, files out, kills and bad input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program_runner.h"
#include "tests/history/google_json.h"

namespace attn::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr const char* kDate = "2026-01-01T00:00:00Z";

class HistoryCli : public testing::Test {
 protected:
  std::string run_file(const std::string& name, double time, const std::string& date = kDate) {
    write_file(
        scratch_ / name,
        google_json(date, {{"decode B1 ctx2048 32/8 | cuda/manual_time", {time, time, time}, ""}}));
    return scratch_ / name;
  }
  Outcome history(std::vector<std::string> args) const {
    args.insert(args.begin(), "history");
    args.insert(args.begin() + 2, {"--db", scratch_ / "db"});
    return attn_compare(args);
  }
  std::string csv() const { return history({"export", "--samples"}).out; }

  ScratchFolder scratch_;
};

TEST_F(HistoryCli, ImportsListsAndExports) {
  const std::string a = run_file("a.json", 10.0);
  const Outcome first = history({"import", a, "--commit", "abcd1234", "--subject", "Tile it"});
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("google-benchmark, 1 benchmark, 3 repetitions"));
  EXPECT_EQ(last_line(first.out), "1 run added to " + (scratch_ / "db") + ", 0 were there already");
  EXPECT_THAT(history({"import", a}).out, HasSubstr("(was there already)"));
  const Outcome list = history({"list"});
  EXPECT_THAT(list.out,
              AllOf(HasSubstr("abcd1234"), HasSubstr("attn-bench"), HasSubstr("1 run\n")));
  EXPECT_THAT(csv(), AllOf(HasSubstr("Tile it"), HasSubstr("decode B1 ctx2048 32/8")));
  const Outcome markdown = history({"export", "--format", "markdown", "--run", "abcd"});
  EXPECT_THAT(markdown.out, HasSubstr("| decode B1 ctx2048 32/8 | cuda | 10 us |"));
  const Outcome to_file = history({"export", "--format", "bencher", "-o", scratch_ / "bmf.json"});
  EXPECT_EQ(to_file.code, 0) << to_file.err;
  EXPECT_EQ(nlohmann::json::parse(read_file(scratch_ / "bmf.json")).size(), 1U);
}

TEST_F(HistoryCli, WritesJson) {
  const Outcome outcome = history({"import", run_file("a.json", 10.0), "--json", "-"});
  const auto report = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(report.at("schema_version"), 1);
  EXPECT_EQ(report.at("verb"), "history import");
  EXPECT_EQ(report.at("exit_code"), 0);
  EXPECT_EQ(report.at("files").at(0).at("samples"), 3);
  EXPECT_THAT(outcome.err, HasSubstr("1 run added"));
  const auto list = nlohmann::json::parse(history({"list", "--json", "-"}).out);
  EXPECT_EQ(list.at("runs").at(0).at("run"), report.at("files").at(0).at("run"));
  EXPECT_EQ(nlohmann::json::parse(history({"view", "--all", "--json", "-"}).out)
                .at("series")
                .at(0)
                .at("runs"),
            1);
}

TEST_F(HistoryCli, RefusesBadFilesInOneLineAndLosesNothing) {
  EXPECT_EQ(history({"import", run_file("a.json", 10.0)}).code, 0);
  const std::string before = csv();
  const std::string good = run_file("b.json", 11.0);
  const std::string whole = read_file(good);
  write_file(scratch_ / "cut.json", whole.substr(0, whole.size() / 2));
  write_file(scratch_ / "foreign.json", "{\"name\": \"package\", \"version\": \"1\"}");
  write_file(scratch_ / "bytes.json", std::string("\x00\xff\xfe{", 4));
  for (const std::string name : {"cut.json", "foreign.json", "bytes.json", "absent.json"}) {
    const Outcome outcome = history({"import", good, scratch_ / name});
    EXPECT_EQ(outcome.code, 3) << name;
    EXPECT_THAT(outcome.err,
                StartsWith("attn-compare history import: " + (scratch_ / name) + ": "));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_EQ(csv(), before) << name;
  }
  EXPECT_EQ(history({"import", scratch_.path()}).code, 3);
  EXPECT_EQ(csv(), before);
}

TEST_F(HistoryCli, RefusesWrongWords) {
  EXPECT_EQ(history({"import", run_file("a.json", 10.0)}).code, 0);
  EXPECT_EQ(history({"export", "--format", "markdwon"}).code, 2);
  EXPECT_THAT(history({"export", "--format", "markdwon"}).err, HasSubstr("did you mean"));
  EXPECT_EQ(history({"export", "--format", "bencher", "--run", "zzzz"}).code, 2);
  EXPECT_EQ(history({"import", scratch_ / "a.json", "--date", "soon"}).code, 2);
  EXPECT_EQ(attn_compare({"history"}).code, 2);
  EXPECT_EQ(attn_compare({"history", "list", "--db", scratch_ / "none.db"}).code, 3);
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "none.db"));
  for (const char* const verb : {"import", "list", "merge", "export", "gate", "view"}) {
    const Outcome help = attn_compare({"history", verb, "--help"});
    EXPECT_EQ(help.code, 0);
    EXPECT_LT(help.out.find("Examples:"), help.out.find("Usage:")) << verb;
  }
}

TEST_F(HistoryCli, MergesDatabases) {
  history({"import", run_file("a.json", 10.0)});
  const std::string b = run_file("b.json", 11.0);
  attn_compare({"history", "import", "--db", scratch_ / "b.db", b, scratch_ / "a.json"});
  const Outcome merged = attn_compare(
      {"history", "merge", scratch_ / "db", scratch_ / "b.db", "-o", scratch_ / "all"});
  EXPECT_EQ(merged.code, 0) << merged.err;
  EXPECT_EQ(last_line(merged.out),
            "2 runs added to " + (scratch_ / "all") + ", 1 were there already");
}

/// Killed at any moment, an import has taken all of its files or none.
TEST_F(HistoryCli, AKilledImportLeavesTheDatabaseAsItWas) {
  EXPECT_EQ(history({"import", run_file("a.json", 10.0)}).code, 0);
  std::vector<std::string> files{"history", "import", "--db", scratch_ / "db"};
  for (int i = 0; i < 60; ++i) {
    const std::string name = std::string("many").append(std::to_string(i));
    std::vector<Timed> benchmarks;
    for (int b = 0; b < 60; ++b) {
      const std::string kernel = std::string("k").append(std::to_string(b));
      benchmarks.push_back({kernel, std::vector<double>(20, 1.0 + i), ""});
    }
    write_file(scratch_ / name, google_json(kDate, benchmarks));
    files.push_back(scratch_ / name);
  }
  const std::string before = history({"list"}).out;
  // Killed when it begins to change the database, while it reads the files, and when it writes what
  // it has read into the database: SQLite's journal is there all the time.
  const std::string journal = scratch_ / "db-journal";
  int kills = 0;
  for (const auto& [moment, file] :
       {std::pair{0, journal}, std::pair{1, journal}, std::pair{2, journal}, std::pair{4, journal},
        std::pair{1, scratch_ / "db"}}) {
    const Outcome outcome = attn_compare(files, {.kill_when = written(file, moment)});
    if (outcome.code == 0) break;
    ASSERT_EQ(outcome.code, 128 + SIGKILL);
    ++kills;
    const std::string after = history({"list"}).out;
    EXPECT_TRUE(after == before || after.ends_with("61 runs\n")) << moment << " of " << file << "\n"
                                                                 << after;
  }
  RecordProperty("kills", kills);
  EXPECT_GT(kills, 0);
  EXPECT_EQ(attn_compare(files).code, 0);
  EXPECT_THAT(history({"list"}).out, HasSubstr("61 runs\n"));
}

TEST_F(HistoryCli, ViewNamesTheCommitThatChangedATime) {
  for (int i = 0; i < 24; ++i) {
    const double time = (i < 12 ? 100.0 : 110.0) + 0.1 * ((i * 7) % 5);
    std::string date = "2026-01-00T00:00:00Z";
    date[8] = static_cast<char>('0' + (i + 1) / 10);
    date[9] = static_cast<char>('0' + (i + 1) % 10);
    const std::string number = std::to_string(10 + i);
    const std::string file = run_file(number, time, date);
    history({"import", file, "--commit", "c0ffee" + number, "--subject", "Change to " + number});
  }
  const Outcome view = history({"view"});
  EXPECT_EQ(view.code, 0) << view.err;
  EXPECT_THAT(view.out, AllOf(HasSubstr("2026-01-13T00:00:00Z"), HasSubstr("c0ffee22"),
                              HasSubstr("slower"), HasSubstr("Change to 22"), HasSubstr("p 0.001"),
                              Not(HasSubstr("Change to 21"))));
  EXPECT_THAT(view.out, HasSubstr("1 series, 1 with a change\n"));
  const auto report = nlohmann::json::parse(history({"view", "--json", "-"}).out);
  const auto& change = report.at("series").at(0).at("changes").at(0);
  EXPECT_EQ(change.at("commit"), "c0ffee22");
  EXPECT_EQ(change.at("last_commit_before"), "c0ffee21");
  EXPECT_NEAR(change.at("size").get<double>(), 0.1, 0.01);
  EXPECT_EQ(history({"view", "--benchmark", "nothing"}).code, 4);
}

}  // namespace
}  // namespace attn::test
