// The page as text: what a reader without a script gets, and that no text of the data becomes code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <vector>

#include "harness/bench/dashboard/html.h"
#include "harness/bench/dashboard/interval.h"
#include "harness/bench/dashboard/peaks.h"
#include "tests/dashboard/sample_page.h"

namespace attn::dashboard {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::size_t count(const std::string& text, const std::string& word) {
  std::size_t n = 0;
  for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

/// Coverage by counting all 2^n ways in which n samples can fall to either side of the median.
double counted_coverage(std::size_t n, std::size_t rank) {
  std::size_t inside = 0;
  for (std::size_t ways = 0; ways < (std::size_t{1} << n); ++ways) {
    const auto below = static_cast<std::size_t>(__builtin_popcountll(ways));
    if (below >= rank && n - below >= rank) ++inside;
  }
  return static_cast<double>(inside) / static_cast<double>(std::size_t{1} << n);
}

TEST(Interval, RankIsTheLargestThatCovers) {
  for (std::size_t n = 6; n <= 16; ++n) {
    const std::size_t rank = median_rank(n, 0.95);
    EXPECT_GE(counted_coverage(n, rank), 0.95) << n;
    EXPECT_LT(counted_coverage(n, rank + 1), 0.95) << n;
  }
  EXPECT_EQ(median_rank(5, 0.95), 1U);  // the range covers 93.75 %, and nothing covers more
  EXPECT_EQ(median_rank(100000, 0.95), 49690U);  // 50000 - 1.96 sqrt(100000) / 2, rounded
}

TEST(Interval, SaysWhatItCovers) {
  const Interval five = median_interval({5, 1, 4, 2, 3});
  EXPECT_EQ(five.median, 3);
  EXPECT_EQ(five.low, 1);
  EXPECT_EQ(five.high, 5);
  EXPECT_NEAR(five.coverage, 1 - 2 * std::pow(0.5, 5), 1e-12);
  std::vector<double> many(15);
  for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<double>(i);
  const Interval interval = median_interval(many);
  EXPECT_EQ(interval.median, 7);
  EXPECT_EQ(interval.low, 3);  // the 4th of 15: the textbook's table
  EXPECT_EQ(interval.high, 11);
  EXPECT_NEAR(interval.coverage, counted_coverage(15, 4), 1e-12);
  EXPECT_EQ(median_interval({2, 1}).median, 1.5);
  EXPECT_EQ(median_interval({7}).coverage, 0.0);
  EXPECT_THROW(median_interval({}), std::invalid_argument);
}

TEST(Roofline, IsTheLargerFraction) {
  history::Benchmark b;
  b.dtype = "bfloat16";
  const Peak peak = peak_of("NVIDIA H200", b);
  EXPECT_NEAR(roofline_of(peak, 494.75, 480), 0.5, 1e-12);
  EXPECT_NEAR(roofline_of(peak, 98.95, 2400), 0.5, 1e-12);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NEAR(roofline_of(peak, nan, 1200), 0.25, 1e-12);
  EXPECT_TRUE(std::isnan(roofline_of(peak, nan, nan)));
  EXPECT_TRUE(std::isnan(roofline_of(peak_of("Some GPU", b), 100, 100)));
  b.weights = "float8_e4m3fn";
  EXPECT_NEAR(peak_of("NVIDIA H200", b).tflops, 1979, 1e-9);
  b.dtype = "float32";
  EXPECT_EQ(peak_of("NVIDIA H200", b).tflops, 0);
}

TEST(Format, WritesFiguresForReaders) {
  EXPECT_EQ(digits(1044.2), "1044");
  EXPECT_EQ(digits(10.4411), "10.44");
  EXPECT_EQ(digits(0.97314), "0.9731");
  EXPECT_EQ(digits(123456.7), "123457");
  EXPECT_EQ(digits(std::numeric_limits<double>::quiet_NaN()), "");
  EXPECT_EQ(time_text(10.4411), "10.44 µs");
  EXPECT_EQ(time_text(1234.5), "1.234 ms");
  EXPECT_EQ(time_text(2.5e6), "2.500 s");
  EXPECT_EQ(percent(0.073), "7.3 %");
  EXPECT_EQ(percent(0.94), "94 %");
  EXPECT_EQ(times(1.337), "1.34×");
  EXPECT_EQ(short_date("2026-11-22T23:42:36Z"), "2026-11-22 23:42");
  EXPECT_EQ(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
}

TEST(Page, HoldsEveryTableWithoutAScript) {
  const Page page = test::sample_page();
  const std::string html = render(page);
  EXPECT_THAT(html, HasSubstr("IMPROVED: 4 benchmarks faster"));
  EXPECT_EQ(count(html, "<span class=\"tag v-REGRESSED\">▲ slower"), 4U);
  const std::string latest = html.substr(html.find("id=\"latest-table\""));
  EXPECT_EQ(count(latest.substr(0, latest.find("</table>")), "<tr data-s="), page.series.size());
  EXPECT_THAT(html, HasSubstr("geometric mean of 16 shapes, ahead at 16"));
  EXPECT_THAT(html, HasSubstr("2,498 of 2,500"));
  EXPECT_THAT(html, HasSubstr("160 of 160"));
  EXPECT_THAT(html, HasSubstr("0.995"));
}

TEST(Page, SaysWhyTheGateCannotTell) {
  Page page = test::sample_page();
  for (GateRow& row : page.gate) row.verdict = "AMBIGUOUS";
  EXPECT_THAT(render(page), HasSubstr("0 improved, 0 same, 8 ambiguous</p>"));
  for (std::size_t i = 0; i < 5; ++i) page.gate[i].low = page.gate[i].high = 0.0;
  EXPECT_THAT(render(page), HasSubstr("8 ambiguous (5 for too few repetitions)</p>"));
}

TEST(Page, TextOfTheDataNeverBecomesCode) {
  const std::string html = render(test::sample_page());
  EXPECT_THAT(html, Not(HasSubstr(test::kHostileText)));
  EXPECT_THAT(html, Not(HasSubstr("<img src=x>")));
  EXPECT_THAT(html, Not(HasSubstr("<i>&")));
  // Only the page's own scripts: the data, the chart library, ours.
  EXPECT_EQ(count(html, "<script"), 3U);
  EXPECT_EQ(count(html, "</script>"), 3U);
}

TEST(Page, DataBlockIsJsonThatSaysTheSame) {
  const Page page = test::sample_page();
  const nlohmann::json data = nlohmann::json::parse(data_block(page));
  EXPECT_EQ(data["runs"].size(), page.runs.size());
  EXPECT_EQ(data["runs"][2]["subject"], test::kHostileText);
  ASSERT_EQ(data["series"].size(), page.series.size());
  for (std::size_t s = 0; s < page.series.size(); ++s) {
    const auto& json = data["series"][s];
    const Series& series = page.series[s];
    ASSERT_EQ(json["t"].size(), series.points.size());
    ASSERT_EQ(json["run"].size(), series.points.size());
    EXPECT_EQ(json.contains("roofline"), std::isfinite(series.points[0].roofline));
    for (std::size_t i = 0; i < series.points.size(); ++i) {
      EXPECT_EQ(json["run"][i], series.points[i].run);
      EXPECT_NEAR(json["t"][i].get<double>(), series.points[i].median_us,
                  1e-4 * series.points[i].median_us);
    }
  }
}

TEST(Page, RefersToNothingOutside) {
  const std::string html = render(test::sample_page());
  const std::regex reference("(src|href|action)=\"([^\"#][^\"]*)\"|url\\(|@import|<link|<iframe");
  for (std::sregex_iterator at(html.begin(), html.end(), reference), end; at != end; ++at) {
    const bool is_icon = at->str() == "<link" || (*at)[2] == "data:,";
    EXPECT_TRUE(is_icon) << at->str();
  }
}

TEST(Page, AnEmptyDatabaseIsAPageToo) {
  const std::string html = render(Page{"Nothing", "", {}, {}, {}, {}, {}, {}, {}, {}});
  EXPECT_THAT(html, HasSubstr("Nothing measured yet"));
  EXPECT_THAT(html, HasSubstr("attn-compare history import"));
}

TEST(Page, SaysWhenItHasNoCharts) {
  const std::string html = render(test::sample_page());
  EXPECT_EQ(html.find("without npm") == std::string::npos, has_charts());
  EXPECT_EQ(html.find("Leon Sorokin") != std::string::npos, has_charts());
}

}  // namespace
}  // namespace attn::dashboard
