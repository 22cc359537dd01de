// Mistakes of the harness itself: with each of them planted in the product's own sources a
// self-test fails that passes without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "golden/golden_file.h"
#include "harness/backends/backend.h"
#include "harness/cli/exit_code.h"
#include "harness/compare/compare.h"
#include "harness/compare/rows.h"
#include "harness/faults/fault_run.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"
#include "tests/faults/harness_mutants/planted.h"

namespace {
std::string_view g_planted;
}

bool planted(std::string_view id) { return id == g_planted; }

namespace attn::harness {
namespace {

CaseSpec layer_spec() {
  return parse_case_spec(R"({"config": {"variant": "attention_with_rope", "dtype": "float32",
      "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64,
      "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4}},
      "rows": [[20, 5], [0, 7]], "layers": 2})");
}

/// A case with the cpu backend's answer, to be spoilt.
struct Answer {
  Case c = make_case(layer_spec(), 3);
  std::unique_ptr<Backend> backend = make_backend("cpu:threads=1");
  Arithmetic arithmetic = backend->arithmetic(c.config);
  Trace trace = backend->run(c, stages_of(c.config));

  Verdict verdict() const { return compare(c, trace, arithmetic); }
  bool passes() const { return verdict().status == Status::kPassed; }
  float* floats(Stage stage) { return trace[stage].as<float>(); }
  std::int64_t last(Stage stage) const { return trace[stage].size() - 1; }
};

/// True when `spoil` turns an answer that passes into one that fails.
template <typename Spoil>
bool is_noticed(Spoil spoil) {
  Answer answer;
  if (!answer.passes()) return false;
  spoil(answer);
  return answer.verdict().status == Status::kFailed;
}

bool notices_three_bounds() {
  return is_noticed([](Answer& a) {
    const Verdict verdict = a.verdict();
    const auto out = std::ranges::find(verdict.stages, Stage::kOut, &StageReport::stage);
    const std::int64_t at =
        out->worst_index.at(0) * a.c.config.hidden_size + out->worst_index.at(1);
    a.floats(Stage::kOut)[at] = static_cast<float>(out->want + 3.0 * out->bound);
  });
}

bool notices_nan() {
  return is_noticed(
      [](Answer& a) { a.floats(Stage::kOut)[5] = std::numeric_limits<float>::quiet_NaN(); });
}

// Copying k into the cache is exact: nothing is allowed, and nothing must pass for it.
bool notices_a_copy_that_differs() {
  return is_noticed([](Answer& a) {
    a.trace.cache.reset();
    a.floats(Stage::kCacheK)[a.last(Stage::kCacheK)] *= 1.0f + 0x1p-20f;
  });
}

bool notices_the_last_row() {
  return is_noticed([](Answer& a) { a.floats(Stage::kOut)[a.last(Stage::kOut)] += 1.0f; });
}

bool notices_a_late_stage() {
  return is_noticed([](Answer& a) { a.floats(Stage::kOut)[0] += 1.0f; });
}

bool notices_lse() {
  return is_noticed([](Answer& a) { a.floats(Stage::kLse)[0] += 0.1f; });
}

bool notices_a_cached_token() {
  return is_noticed([](Answer& a) {
    a.trace.cache.reset();
    a.floats(Stage::kCacheV)[0] += 0x1p-6f;
    // What follows from it is recomputed, so that nothing but the cached token is wrong.
    a.trace[Stage::kLse] = {};
    a.trace[Stage::kAttnOut] = {};
    a.trace[Stage::kOut] = {};
  });
}

bool notices_another_layers_slot() {
  return is_noticed([](Answer& a) {
    const std::int64_t in_layer_1 = a.trace.cache->page_size * a.c.config.k_width();
    a.trace.cache->k.set_code(in_layer_1, a.trace.cache->k.code(in_layer_1) ^ 1U);
  });
}

// All values zero: zeros, the mean and moved rows are right as well.
bool mistrusts_what_shows_nothing() {
  CaseSpec spec = layer_spec();
  spec.config.variant = Variant::kAttention;
  spec.config.entry_point = EntryPoint::kAttention;
  spec.config.hidden_size = 0;
  spec.rows = {{5, 20}};
  Case c = make_case(spec, 1);
  std::ranges::fill(c.cache.v.bytes(), std::byte{0});
  const auto backend = make_backend("cpu:threads=1");
  const Trace trace = backend->run(c, stages_of(c.config));
  return compare(c, trace, backend->arithmetic(c.config)).status == Status::kMistrusted;
}

bool judges_first_and_last_rows() {
  CaseSpec spec = layer_spec();
  spec.rows = {{0, 100}, {0, 100}};
  const Case c = make_case(spec, 1);
  const std::vector<std::int64_t> rows = select_rows(c, {false, 1, 1}, 0);
  return std::ranges::all_of(std::array<std::int64_t, 4>{0, 99, 100, 199}, [&](std::int64_t row) {
    return std::ranges::find(rows, row) != rows.end();
  });
}

bool seeds_make_different_cases() {
  return make_case(layer_spec(), 2).x != make_case(layer_spec(), 3).x &&
         make_case(layer_spec(), 2).x == make_case(layer_spec(), 2).x;
}

bool profiles_make_different_cases() {
  CaseSpec spec = layer_spec();
  const Tensor normal = make_case(spec, 2).x;
  spec.profile = "extreme";
  return make_case(spec, 2).x != normal;
}

bool shuffles_pages() {
  const Case c = make_case(layer_spec(), 2);
  const std::vector<double> pages = c.cache.page_table.values();
  return !std::ranges::is_sorted(pages);
}

bool poisons_unused_slots() {
  const Case c = make_case(layer_spec(), 2);
  const std::vector<double> pool = c.cache.k.values();
  return std::ranges::any_of(pool, [](double v) { return std::isnan(v); });
}

bool refuses_a_changed_file() {
  const Answer answer;
  const std::string path = testing::TempDir() + "harness_mutants.h5";
  golden::write(golden::make(answer.c, answer.trace, {}), path, true);
  golden::read(path);
  std::ifstream in(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const auto x = std::as_bytes(answer.c.x.bytes());
  const std::string needle(reinterpret_cast<const char*>(x.data()), x.size());
  const std::size_t at = bytes.find(needle);
  if (at == std::string::npos) return false;
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  std::ofstream(path, std::ios::binary) << bytes;
  try {
    golden::read(path);
    return false;
  } catch (const Error&) {
    return true;
  }
}

bool lets_what_is_right_survive() {
  const FaultCase c({layer_spec(), 7}, Oracle::kAll);
  const Attempt attempt = c.run(find_fault("values_added_backward"), ExecMode::kPlain);
  return attempt.infected && !attempt.killed;
}

bool mistrusted_ends_with_its_code() {
  Report report;
  report.rows.resize(2);
  report.rows[1].verdict.status = Status::kMistrusted;
  return cli::exit_code(report) == cli::kMistrusted;
}

struct Mutant {
  const char* id;
  bool (*self_test)();
};

constexpr Mutant kMutants[] = {
    {"bound_times_10", notices_three_bounds},
    {"nan_passes", notices_nan},
    {"no_bound_passes", notices_a_copy_that_differs},
    {"last_row_skipped", notices_the_last_row},
    {"first_stage_only", notices_a_late_stage},
    {"lse_not_judged", notices_lse},
    {"cached_tokens_not_judged", notices_a_cached_token},
    {"pool_not_guarded", notices_another_layers_slot},
    {"trust_not_checked", mistrusts_what_shows_nothing},
    {"boundary_rows_left_out", judges_first_and_last_rows},
    {"seed_ignored", seeds_make_different_cases},
    {"profile_ignored", profiles_make_different_cases},
    {"pages_in_order", shuffles_pages},
    {"unused_slots_zero", poisons_unused_slots},
    {"digests_not_checked", refuses_a_changed_file},
    {"survivors_counted_as_killed", lets_what_is_right_survive},
    {"mistrusted_passes", mistrusted_ends_with_its_code},
};

class HarnessMutant : public testing::TestWithParam<Mutant> {
 protected:
  void TearDown() override { g_planted = ""; }
};

TEST_P(HarnessMutant, IsCaughtByItsSelfTest) {
  EXPECT_TRUE(GetParam().self_test()) << "fails without the mistake";
  g_planted = GetParam().id;
  EXPECT_FALSE(GetParam().self_test()) << "passes with the mistake planted";
}

INSTANTIATE_TEST_SUITE_P(All, HarnessMutant, testing::ValuesIn(kMutants),
                         [](const auto& mutant) { return std::string(mutant.param.id); });

}  // namespace
}  // namespace attn::harness
