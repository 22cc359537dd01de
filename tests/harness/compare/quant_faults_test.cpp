#include <gmock/gmock.h>

#include <functional>
#include <numeric>

#include "harness/backends/backend.h"
#include "harness/compare/codes.h"
#include "harness/compare/compare.h"
#include "harness/compare/layer_stages.h"
#include "harness/generate/case_spec.h"

// Mistakes that are made with quantised numbers, planted. A backend that makes one computes what a
// right one computes of another case, of other scales or codes; its output is judged as that of the
// case that it was given. Both the float32 and the bfloat16 arithmetic must show each mistake, at
// the stage where it is made.

namespace attn::harness {
namespace {

using Fault = std::function<void(Case&)>;

std::string spec_of(const std::string& quant, const std::string& cache = "null",
                    const std::string& dtype = "bfloat16") {
  const std::string type = cache == "none" ? "" : R"(, "dtype": "float8_e4m3fn")";
  const std::string granularity =
      cache == "none" || cache == "null" ? "" : R"(, "scale_granularity": ")" + cache + "\"";
  const std::string variant = quant.find("gptq") != std::string::npos  ? "gptq"
                              : quant.find("\"q") != std::string::npos ? "gguf"
                                                                       : "attention_with_rope";
  return R"({"config": {"variant": ")" + variant +
         R"(", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
             "hidden_size": 256, "dtype": ")" +
         dtype + R"(", "kv_cache": {"page_size": 4)" + type + granularity + R"(}, "quant": )" +
         quant + R"(}, "rows": [[5, 6], [0, 3]]})";
}

Case make(const std::string& quant, const std::string& cache = "none",
          const std::string& dtype = "bfloat16") {
  return make_case(parse_case_spec(spec_of(quant, cache, dtype)), 3);
}

/// A right run passes; one of the case with the fault is called wrong, first at `stage`.
void expect_caught(const Case& c, const Fault& fault, Stage stage,
                   const std::vector<std::string>& backends = {"cpu", "faithful"}) {
  Case wrong = c;
  fault(wrong);
  for (const std::string& name : backends) {
    const auto backend = make_backend(name);
    const Arithmetic declared = backend->arithmetic(c.config);
    const Verdict right = compare(c, backend->run(c, all_stages()), declared);
    EXPECT_EQ(right.status, Status::kPassed) << name << ": " << right.detail;
    Trace trace = backend->run(wrong, all_stages());
    trace.cache.reset();  // the guard is tested on its own
    const Verdict verdict = compare(c, trace, declared);
    EXPECT_EQ(verdict.status, Status::kFailed) << name;
    EXPECT_EQ(verdict.first_bad.value_or(Stage::kFreqsCis), stage)
        << name << ": " << verdict.detail;
  }
}

void swap_scalars(Case& c, const std::string& a, const std::string& b) {
  std::swap(c.weights.at(a), c.weights.at(b));
}

const std::vector<std::string> kInputs = {"q_proj", "k_proj", "v_proj"};

/// The projections whose scale `suffix` is not the largest are decoded with the largest.
void merge_by_maximum(Case& c, const std::string& suffix) {
  double largest = 0.0;
  for (const std::string& p : kInputs) {
    largest = std::max(largest, c.weights.at(p + suffix).value(0));
  }
  for (const std::string& p : kInputs) c.weights.at(p + suffix).set_value(0, largest);
}

/// The first input projection whose scale is not the largest: where such a merge shows.
Stage first_smaller(const Case& c, const std::string& suffix) {
  Case merged = c;
  merge_by_maximum(merged, suffix);
  const std::vector<Stage> stages{Stage::kQProj, Stage::kKProj, Stage::kVProj};
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (!(c.weights.at(kInputs[i] + suffix) == merged.weights.at(kInputs[i] + suffix))) {
      return stages[i];
    }
  }
  return Stage::kOut;
}

TEST(QuantFaults, Nvfp4MergedByTheLargestGlobalScale) {
  const Case c = make(R"({"encoding": "nvfp4"})");
  expect_caught(
      c, [](Case& wrong) { merge_by_maximum(wrong, ".weight_scale_2"); },
      first_smaller(c, ".weight_scale_2"));
}

TEST(QuantFaults, Fp8ScaleOfTheWrongProjection) {
  const Case c = make(
      R"({"encoding": "float8_e4m3fn", "weight_granularity": "tensor", "activation": "token"})");
  expect_caught(
      c, [](Case& wrong) { swap_scalars(wrong, "k_proj.weight_scale", "v_proj.weight_scale"); },
      Stage::kKProj);
}

TEST(QuantFaults, Fp8MergedWithoutRequantising) {
  const Case c = make(
      R"({"encoding": "float8_e4m3fn", "weight_granularity": "tensor", "activation": "static"})");
  expect_caught(
      c, [](Case& wrong) { merge_by_maximum(wrong, ".weight_scale"); },
      first_smaller(c, ".weight_scale"));
}

TEST(QuantFaults, Fp8RowScalesOneRowOff) {
  const Case c = make(
      R"({"encoding": "float8_e4m3fn", "weight_granularity": "rowwise", "activation": "token"})");
  expect_caught(
      c,
      [](Case& wrong) {
        Tensor& scale = wrong.weights.at("v_proj.weight_scale");
        for (std::int64_t i = scale.size() - 1; i > 0; --i) scale.set_code(i, scale.code(i - 1));
      },
      Stage::kVProj);
}

TEST(QuantFaults, StaticInputScaleIsQsOwn) {
  // q, k and v share the largest; a backend that gives all three that of q.
  Case c = make(
      R"({"encoding": "float8_e4m3fn", "weight_granularity": "tensor", "activation": "static"})");
  const double largest = reference::shared_scalar(c, reference::Projection::kQ, "input_scale");
  c.weights.at("k_proj.input_scale").set_value(0, largest);
  c.weights.at("q_proj.input_scale").set_value(0, 0.9 * largest);
  expect_caught(
      c,
      [](Case& wrong) {
        for (const char* p : {"k_proj", "v_proj"}) {
          wrong.weights.at(std::string(p) + ".input_scale") =
              wrong.weights.at("q_proj.input_scale");
        }
      },
      Stage::kQProj);
}

TEST(QuantFaults, GptqZeroPointOneOff) {
  // A zero of 7 decodes as codes one higher; 15 stays, so that no word overflows.
  const Case c = make(R"({"encoding": "gptq", "bits": 4, "group_size": 64, "desc_act": true})");
  expect_caught(
      c,
      [](Case& wrong) {
        Tensor& words = wrong.weights.at("q_proj.qweight");
        for (std::int64_t i = 0; i < words.size(); ++i) {
          std::uint64_t word = words.code(i);
          for (int shift = 0; shift < 32; shift += 4) {
            if ((word >> shift & 15) < 15) word += std::uint64_t{1} << shift;
          }
          words.set_code(i, word);
        }
      },
      Stage::kQProj);
}

TEST(QuantFaults, GptqGroupsInOrderThoughActivationsAreNot) {
  const Case c = make(R"({"encoding": "gptq", "bits": 4, "group_size": 64, "desc_act": true})");
  expect_caught(
      c,
      [](Case& wrong) {
        for (const std::string& p : kInputs) {
          Tensor& groups = wrong.weights.at(p + ".g_idx");
          for (std::int64_t i = 0; i < groups.size(); ++i) {
            groups.set_code(i, static_cast<std::uint64_t>(i / 64));
          }
        }
      },
      Stage::kQProj);
}

TEST(QuantFaults, KQuantMinimumIgnored) {
  for (const auto& [encoding, bytes] : {std::pair{"q4_k", 144}, {"q5_k", 176}}) {
    for (const char* activation : {"none", "int8"}) {
      const Case c = make(std::string(R"({"encoding": ")") + encoding + R"(", "activation": ")" +
                              activation + "\"}",
                          "none", "float32");
      expect_caught(
          c,
          [size = bytes](Case& wrong) {
            Tensor& blocks = wrong.weights.at("k_proj.weight");
            for (std::int64_t at = 2; at < blocks.size(); at += size) {  // dmin, after d
              blocks.set_code(at, 0);
              blocks.set_code(at + 1, 0);
            }
          },
          Stage::kKProj);
    }
  }
}

TEST(QuantFaults, OneScaleInPlaceOfOnePerBlockAndBack) {
  const auto spec = [](const char* activation) {
    return std::string(
               R"({"encoding": "float8_e4m3fn", "weight_granularity": "block", "activation": ")") +
           activation + "\"}";
  };
  const auto use = [](ActivationQuant activation) {
    return [activation](Case& wrong) { wrong.config.quant->activation = activation; };
  };
  expect_caught(make(spec("block")), use(ActivationQuant::kToken), Stage::kQProj);
  expect_caught(make(spec("token")), use(ActivationQuant::kBlock), Stage::kQProj);
}

TEST(QuantFaults, ActivationsLeftAsTheyAre) {
  const auto none = [](Case& wrong) { wrong.config.quant->activation = ActivationQuant::kNone; };
  for (const char* encoding : {"nvfp4", "mxfp4", "mxfp8"}) {
    const std::string quant =
        std::string(R"({"encoding": ")") + encoding + R"(", "activation": "block"})";
    expect_caught(make(quant), none, Stage::kQProj);
  }
  for (const char* encoding : {"q4_0", "q8_0", "q6_k"}) {
    const std::string quant =
        std::string(R"({"encoding": ")") + encoding + R"(", "activation": "int8"})";
    expect_caught(make(quant, "none", "float32"), none, Stage::kQProj);
  }
}

/// y = x' W^T into the stage, x' what `scale_of` and e4m3 make of x.
Trace quantised_by(const Case& c, const std::function<double(double amax)>& scale_of) {
  const RowMatrix x = reference::decode_matrix(c.x, c.tokens(), c.config.hidden_size);
  RowMatrix quantised = x;
  for (Eigen::Index r = 0; r < x.rows(); ++r) {
    const double scale = scale_of(x.row(r).cwiseAbs().maxCoeff());
    quantised.row(r) = x.row(r).unaryExpr(
        [scale](double v) { return round_to(ElementType::kFloat8E4M3FN, v / scale) * scale; });
  }
  const RowMatrix y =
      quantised * reference::projection_weight(c, reference::Projection::kQ,
                                               reference::Rounding(reference::Mode::kExact))
                      .transpose();
  Trace trace;
  trace[Stage::kQProj] = reference::to_tensor(y, stage_shape(c, Stage::kQProj));
  return trace;
}

TEST(QuantFaults, TheCapOf1200Forgotten) {
  Case c = make(
      R"({"encoding": "float8_e4m3fn", "weight_granularity": "rowwise", "activation": "token"})");
  for (std::int64_t i = 0; i < c.x.size(); ++i) c.x.set_value(i, c.x.value(i) * 2000.0);
  const auto capped = [](double amax) {
    return round_to(ElementType::kFloat32, std::min(amax, 1200.0) / 448.0);
  };
  const auto uncapped = [](double amax) { return round_to(ElementType::kFloat32, amax / 448.0); };
  const auto capped_scale = [](double amax) {  // the cap on amax / 448
    return round_to(ElementType::kFloat32, std::min(amax / 448.0, 1200.0));
  };
  for (const char* declared : {"cpu", "faithful"}) {
    const Arithmetic arithmetic = make_backend(declared)->arithmetic(c.config);
    EXPECT_EQ(compare(c, quantised_by(c, capped), arithmetic).status, Status::kPassed);
    EXPECT_EQ(compare(c, quantised_by(c, uncapped), arithmetic).status, Status::kFailed);
    EXPECT_EQ(compare(c, quantised_by(c, capped_scale), arithmetic).status, Status::kFailed);
  }
}

/// Changes each code of the new rows of a cache stage.
void change_new_codes(const Case& c, Trace& trace, Stage stage,
                      const std::function<double(double value, double scale)>& change) {
  const bool keys = stage == Stage::kCacheK;
  Tensor& cache = trace[stage];
  const std::int64_t heads = c.config.num_key_value_heads, width = c.config.head_dim;
  std::int64_t key = 0;
  for (std::int64_t b = 0; b < c.batch(); key += c.key_count(b), ++b) {
    for (std::int64_t p = c.cached(b); p < c.key_count(b); ++p) {
      for (std::int64_t i = 0; i < heads * width; ++i) {
        const KvCache& after = *trace.cache;
        const Tensor& scales = keys ? after.k_scale : after.v_scale;
        const double scale =
            scales.empty() ? 1.0
                           : scales.value(after.scale_index(scales, after.slot(b, p), i / width));
        const std::int64_t at = (key + p) * heads * width + i;
        cache.set_value(at, change(cache.value(at), scale));
      }
    }
  }
}

TEST(QuantFaults, CachedCodesOneOffEverywhere) {
  const CodeGrid grid(ElementType::kFloat8E4M3FN);
  for (const char* granularity : {"null", "tensor", "head", "token_head"}) {
    const Case c = make("null", granularity);
    for (const char* name : {"cpu", "faithful"}) {
      const auto backend = make_backend(name);
      Trace trace = backend->run(c, all_stages());
      change_new_codes(c, trace, Stage::kCacheV, [&](double value, double scale) {
        return grid.neighbour(grid.nearest(value / scale), -1) * scale;
      });
      trace.cache.reset();
      for (const bool taps : {true, false}) {
        CompareOptions options;
        options.taps = taps;
        const Verdict verdict = compare(c, trace, backend->arithmetic(c.config), options);
        EXPECT_EQ(verdict.first_bad.value_or(Stage::kFreqsCis), Stage::kCacheV)
            << granularity << ", " << name << (taps ? ", taps" : ", no taps");
      }
    }
  }
}

TEST(QuantFaults, TiesRoundedAwayFromZero) {
  // A bfloat16 value in 16 lies at a tie of e4m3. Unscaled, with taps, the code is known.
  const Case c = make("null", "null");
  const auto backend = make_backend("faithful");
  Trace trace = backend->run(c, all_stages());
  const CodeGrid grid(ElementType::kFloat8E4M3FN);
  const Tensor v = trace[Stage::kVProj];
  const std::int64_t width = c.config.v_width();
  std::int64_t key = 0, changed = 0;
  for (std::int64_t b = 0; b < c.batch(); key += c.key_count(b), ++b) {
    for (std::int64_t r = 0; r < c.row_count(b); ++r) {
      for (std::int64_t i = 0; i < width; ++i) {
        const double value = v.value((c.row_begin(b) + r) * width + i);
        const double code = grid.nearest(value);
        const double other = grid.neighbour(code, value > 0 ? 1 : -1);
        if (std::abs(value - code) != std::abs(other - value)) continue;
        trace[Stage::kCacheV].set_value((key + c.cached(b) + r) * width + i, other);
        ++changed;
      }
    }
  }
  EXPECT_GT(changed, 10);
  trace.cache.reset();
  EXPECT_EQ(compare(c, trace, backend->arithmetic(c.config)).first_bad, Stage::kCacheV);
}

TEST(QuantFaults, TowardsZeroWhereEitherCodeMayBeRight) {
  // Without taps bfloat16 leaves many codes in doubt, and each of these alone may be right. A cast
  // that always takes the one nearer to zero gets half of them wrong: their number tells.
  const Case c = make("null", "null");
  const Arithmetic arithmetic = make_backend("faithful")->arithmetic(c.config);
  const BoundOptions options{arithmetic, false, true};
  const Projection projection = make_projection(c, reference::Projection::kV, arithmetic);
  std::vector<std::int64_t> rows(static_cast<std::size_t>(c.tokens()));
  std::iota(rows.begin(), rows.end(), 0);
  const Bounded v =
      project_rows(c, reference::Projection::kV, projection, input_rows(c, rows), options);
  const RowMatrix right = cache_rows(c, Stage::kCacheV, v, options).x.y;
  const RowMatrix reach = cache_rows(c, Stage::kCacheV, v, options).x.d;
  const CodeGrid grid(ElementType::kFloat8E4M3FN);
  const auto judged = [&](const std::function<double(double code, double d)>& stored) {
    Trace trace;
    trace[Stage::kCacheV] = logical_values(c, c.cache);
    std::int64_t key = 0;
    for (std::int64_t b = 0; b < c.batch(); key += c.key_count(b), ++b) {
      for (std::int64_t row = c.row_begin(b), p = c.cached(b); p < c.key_count(b); ++row, ++p) {
        for (std::int64_t i = 0; i < right.cols(); ++i) {
          trace[Stage::kCacheV].set_value((key + p) * right.cols() + i,
                                          stored(right(row, i), reach(row, i)));
        }
      }
    }
    CompareOptions no_taps;
    no_taps.taps = false;
    no_taps.check_trust = false;
    return compare(c, trace, arithmetic, no_taps);
  };
  EXPECT_EQ(judged([](double code, double) { return code; }).status, Status::kPassed);
  const Verdict verdict = judged([&](double code, double d) {
    const double towards_zero = grid.neighbour(code, code > 0.0 ? -1 : 1);
    return code != 0.0 && std::abs(towards_zero - code) <= d ? towards_zero : code;
  });
  ASSERT_EQ(verdict.status, Status::kFailed);
  EXPECT_THAT(verdict.stages[0].note, testing::HasSubstr("declared arithmetic makes likely"));
}

TEST(QuantFaults, TheScaleOfKForV) {
  const Case c = make("null", "head");
  const auto backend = make_backend("cpu");
  Case wrong = c;
  std::swap(wrong.cache.k_scale, wrong.cache.v_scale);
  Trace trace = backend->run(wrong, all_stages());
  trace.cache.reset();
  EXPECT_EQ(compare(c, trace, backend->arithmetic(c.config)).first_bad, Stage::kCacheK);
  // Attention alone: prior values read under the wrong scale.
  Trace attended;
  attended[Stage::kAttnOut] = trace[Stage::kAttnOut];
  EXPECT_EQ(compare(c, attended, backend->arithmetic(c.config)).first_bad, Stage::kAttnOut);
}

TEST(QuantBounds, MinimaThatCancel) {
  // Channels from 2^-6 to 2^10: the sum of int8 codes and that of the minima are large, what
  // remains is not. faithful sums them apart, in float32.
  const auto backend = make_backend("faithful");
  for (const char* encoding : {"q4_k", "q5_k"}) {
    CaseSpec spec = parse_case_spec(
        spec_of(std::string(R"({"encoding": ")") + encoding + R"(", "activation": "int8"})", "none",
                "float32"));
    spec.profile = "fp8_range";
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
      const Case c = make_case(spec, seed);
      const Verdict verdict =
          compare(c, backend->run(c, all_stages()), backend->arithmetic(c.config));
      EXPECT_LE(verdict.worst_ratio(), 1.0)
          << encoding << ", seed " << seed << ": " << verdict.detail;
    }
  }
}

struct Guarded {
  Case c;
  Arithmetic arithmetic;
  Trace trace;
};

Guarded guarded(const std::string& granularity) {
  const auto backend = make_backend("cpu");
  Guarded r{make("null", granularity), {}, {}};
  r.arithmetic = backend->arithmetic(r.c.config);
  r.trace = backend->run(r.c, all_stages());
  EXPECT_EQ(compare(r.c, r.trace, r.arithmetic).status, Status::kPassed);
  return r;
}

TEST(ScaleGuard, PriorScalesStay) {
  Guarded r = guarded("token_head");
  Tensor& scale = r.trace.cache->k_scale;
  const std::int64_t at = r.trace.cache->scale_index(scale, r.trace.cache->slot(0, 2), 1);
  scale.set_code(at, scale.code(at) ^ 1u);
  const Verdict verdict = compare(r.c, r.trace, r.arithmetic);
  EXPECT_EQ(verdict.first_bad, Stage::kCacheK);
  EXPECT_THAT(verdict.detail, testing::HasSubstr(": the scale changed"));
}

TEST(ScaleGuard, GivenScalesStay) {
  Guarded r = guarded("head");
  r.trace.cache->v_scale.set_value(1, 2.0);
  EXPECT_THAT(compare(r.c, r.trace, r.arithmetic).detail,
              testing::HasSubstr("the scale of the paged cache changed"));
}

TEST(ScaleGuard, ANewTokensScaleBelongsToItsCodes) {
  Guarded r = guarded("token_head");
  Tensor& scale = r.trace.cache->v_scale;
  const std::int64_t at = r.trace.cache->scale_index(scale, r.trace.cache->slot(0, 6), 0);
  scale.set_value(at, 1.01 * scale.value(at));
  EXPECT_THAT(compare(r.c, r.trace, r.arithmetic).detail,
              testing::HasSubstr("does not hold the row of cache_v"));
}

TEST(ScaleGuard, PriorValuesAreCodesTimesScale) {
  Guarded r = guarded("head");
  r.trace.cache.reset();
  const std::int64_t at = 2 * r.c.config.k_width() + 3;
  r.trace[Stage::kCacheK].set_value(at, r.trace[Stage::kCacheK].value(at) * (1 + 0x1p-20));
  EXPECT_EQ(compare(r.c, r.trace, r.arithmetic).first_bad, Stage::kCacheK);
}

}  // namespace
}  // namespace attn::harness
