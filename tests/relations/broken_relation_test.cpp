// Every relation is seen to fail: for each a backend with a mistake that it is there to find.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "harness/generate/case_spec.h"
#include "harness/relations/relations.h"
#include "tests/relations/tampered.h"

namespace attn::harness {
namespace {

/// The cpu backend with a mistake.
class Mistaken : public Tampered {
 public:
  Mistaken(OfCase of_case, OfAnswer of_answer)
      : Tampered("cpu", std::move(of_case), std::move(of_answer)) {}
};

/// A stage of the answer, element by element.
Mistaken::OfAnswer each(Stage stage, const std::function<double(const Case&, double)>& formula) {
  return [stage, formula](const Case& c, Trace& trace) {
    if (!trace.has(stage)) return;
    Tensor& t = trace[stage];
    for (std::int64_t i = 0; i < t.size(); ++i) t.set_value(i, formula(c, t.value(i)));
  };
}

struct Mistake {
  std::string relation;
  std::shared_ptr<Backend> backend;
};

std::shared_ptr<Backend> in_case(Mistaken::OfCase tamper) {
  return std::make_shared<Mistaken>(std::move(tamper), nullptr);
}
std::shared_ptr<Backend> in_answer(Mistaken::OfAnswer tamper) {
  return std::make_shared<Mistaken>(nullptr, std::move(tamper));
}

/// The first output has another last bit in every second call.
void be_restless(const Case& /*c*/, Trace& trace) {
  static std::atomic<int> calls{0};
  if (!trace.has(Stage::kAttnOut) || trace[Stage::kAttnOut].size() == 0) return;
  float& first = *trace[Stage::kAttnOut].as<float>();
  if (++calls % 2 == 0) first = std::nextafter(first, 9e9F);
}

void ignore_page_table(Case& c) {
  auto* const table = c.cache.page_table.as<std::uint32_t>();
  for (std::int64_t i = 0; i < c.cache.page_table.size(); ++i) {
    table[i] = static_cast<std::uint32_t>(i % c.cache.num_pages());
  }
}

void narrow_window(Case& c) {
  if (c.config.mask.window_size.value_or(0) > 1) --*c.config.mask.window_size;
}

void narrow_chunk(Case& c) {
  if (c.config.mask.chunk_size.value_or(0) > 1) --*c.config.mask.chunk_size;
}

/// Query heads that share the first key head get the last one's values as well.
void copy_head(const Case& c, Trace& trace) {
  if (!trace.has(Stage::kAttnOut) || c.config.num_attention_heads < 2) return;
  Tensor& t = trace[Stage::kAttnOut];
  const std::int64_t width = c.config.head_dim_v, row = t.dim(1);
  for (std::int64_t i = 0; i < t.dim(0); ++i) {
    for (std::int64_t j = 0; j < width; ++j)
      t.set_value(i * row + j, t.value(i * row + row - width + j));
  }
}

void drop_tail_channel(Case& c) {
  if (c.q.empty()) return;
  const std::int64_t width = c.config.head_dim;
  for (std::int64_t i = width - 1; i < c.q.size(); i += width) c.q.set_value(i, 0.0);
}

void top_left(Case& c) { c.config.mask.align = MaskAlign::kTopLeft; }

/// Logits that a type with a small range would clamp.
void clamp_keys(Case& c) {
  for (std::int64_t i = 0; i < c.cache.k.size(); ++i) {
    if (c.cache.k.value(i) > 2.0) c.cache.k.set_value(i, 2.0);
  }
}

void double_stacked(Case& c) {
  const auto stacked = c.weights.find("qkv_proj.weight");
  if (stacked == c.weights.end()) return;
  for (std::int64_t i = 0; i < stacked->second.size(); ++i) {
    stacked->second.set_value(i, 2.0 * stacked->second.value(i));
  }
}

std::vector<Mistake> mistakes() {
  const auto damaged = [](const std::string& how) {
    return std::shared_ptr<Backend>(make_backend("damaged:cpu,stage=attn_out," + how));
  };
  const auto out = [](const auto& formula) { return in_answer(each(Stage::kAttnOut, formula)); };
  return {
      {"repeat", in_answer(be_restless)},
      {"page_permutation", in_case(ignore_page_table)},
      {"row_alone", damaged("row_shift")},
      {"sequence_order", damaged("row_shift=0")},
      {"wide_window", in_case(narrow_window)},
      {"wide_chunk", in_case(narrow_chunk)},
      {"head_permutation", damaged("swap_heads=0")},
      {"repeated_kv", in_answer([](const Case& c, Trace& t) {
         if (c.config.group_size() > 1) copy_head(c, t);
       })},
      {"rope_shift", in_case(drop_tail_channel)},
      {"chunked_prefill", in_case(top_left)},
      {"prefill_is_decode", in_case(top_left)},
      {"tensor_parallel",
       in_answer(each(Stage::kOut,
                      [](const Case& c, double v) {
                        return v * (1.0 + 1e-3 * static_cast<double>(c.config.num_devices));
                      }))},
      {"data_parallel", damaged("row_shift")},
      {"split_and_merge",
       in_answer(each(Stage::kLse, [](const Case&, double v) { return v / std::log(2.0); }))},
      {"key_shift", in_case(clamp_keys)},
      {"linear_in_v", out([](const Case&, double v) { return v + 1e-3 * std::abs(v); })},
      {"given_table",
       in_answer(each(Stage::kFreqsCis, [](const Case&, double v) { return 1.001 * v; }))},
      {"clip_beforehand", in_case([](Case& c) { c.config.clip_qkv.reset(); })},
      {"clip_afterwards", in_case([](Case& c) { c.config.clip_activations.reset(); })},
      {"norm_scale", in_case([](Case& c) {
         if (const auto gain = c.weights.find("k_norm.weight"); gain != c.weights.end()) {
           for (std::int64_t i = 0; i < gain->second.size(); ++i) gain->second.set_value(i, 1.0);
         }
       })},
      {"unstacked_qkv", in_case(double_stacked)},
      {"cache_scale", in_case([](Case& c) {
         for (std::int64_t i = 0; i < c.cache.k_scale.size(); ++i)
           c.cache.k_scale.set_value(i, 1.0);
       })},
      {"capped_logit", in_case([](Case& c) { c.config.logit_softcap.reset(); })},
      {"equal_values", out([](const Case&, double v) { return 1.001 * v; })},
      {"single_keys", in_case(narrow_window)},
      {"zero_hidden",
       in_answer(each(Stage::kQProj, [](const Case&, double v) { return v + 0.01; }))},
      {"still_channels", in_answer(each(Stage::kQRope, [](const Case&, double v) { return -v; }))},
      {"scaled_projection", in_case([](Case& c) { c.config.rms_norm_eps = 1e-2; })},
      {"dense_weights",
       in_answer(each(Stage::kKProj,
                      [](const Case& c, double v) { return c.config.quant ? 1.01 * v : v; }))},
  };
}

constexpr const char* kAttention =
    R"({"config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "head_dim_v": 16, "dtype": "float32",
        "mask": {"variant": "causal"}, "kv_cache": {"page_size": 4}}, "rows": [[4, 9], [4, 7]]})";
constexpr int kMostCases = 200;

TEST(BrokenRelation, EveryRelationFindsItsMistake) {
  std::set<std::string> tried;
  for (const Mistake& mistake : mistakes()) {
    const Relation& relation = find_relation(mistake.relation);
    tried.insert(mistake.relation);
    int found = 0;
    for (int i = 1; i <= kMostCases && found == 0; ++i) {
      const auto seed = static_cast<std::uint64_t>(i);
      const Case c = make_case(random_small_spec(seed), seed);
      if (!relation.applies(c)) continue;
      try {
        const RelationResult result = relation.check(Subject(c, *mistake.backend));
        if (!result.broken) continue;
        found = i;
        EXPECT_EQ(result.broken->relation, mistake.relation);
        EXPECT_GT(result.worst_ratio, 1.0);
        EXPECT_FALSE(result.broken->where.empty());
      } catch (const std::exception&) {
        continue;  // e.g. a damaged row where there is only one
      }
    }
    EXPECT_GT(found, 0) << mistake.relation << " did not find its mistake";
  }
  for (const Relation& relation : relations()) {
    EXPECT_EQ(tried.count(std::string(relation.name)), 1U) << relation.name << " has no mistake";
  }
}

/// A claim of equal bits is held against the backend, not within a bound.
TEST(BrokenRelation, ClaimOfBatchInvarianceIsHeldToTheLastBit) {
  const Case c = make_case(parse_case_spec(kAttention), 1);
  const auto last_bit = in_answer(each(Stage::kAttnOut, [](const Case& asked, double v) {
    return asked.batch() > 1 ? std::nextafter(static_cast<float>(v), 9.0F) : v;
  }));
  const auto result = find_relation("row_alone").check(Subject(c, *last_bit));
  ASSERT_TRUE(result.broken);
  EXPECT_EQ(result.broken->allowed, 0.0);

  class NoClaim : public Mistaken {
   public:
    using Mistaken::Mistaken;
    Arithmetic arithmetic(const AttentionConfig& config) const override {
      Arithmetic a = Mistaken::arithmetic(config);
      a.batch_invariant = false;
      return a;
    }
  };
  const NoClaim modest(nullptr, each(Stage::kAttnOut, [](const Case& asked, double v) {
                         return asked.batch() > 1 ? std::nextafter(static_cast<float>(v), 9.0F) : v;
                       }));
  EXPECT_FALSE(find_relation("row_alone").check(Subject(c, modest)).broken);
}

/// --bitwise asks more of a repeat than the bound does.
TEST(BrokenRelation, BitwiseRepeatFindsTheLastBit) {
  const Case c = make_case(parse_case_spec(kAttention), 3);
  class NoClaim : public Mistaken {
   public:
    using Mistaken::Mistaken;
    Arithmetic arithmetic(const AttentionConfig& config) const override {
      Arithmetic a = Mistaken::arithmetic(config);
      a.deterministic = false;
      return a;
    }
  };
  const NoClaim restless_call(nullptr, be_restless);
  EXPECT_FALSE(find_relation("repeat").check(Subject(c, restless_call)).broken);
  RelationOptions bitwise;
  bitwise.bitwise = true;
  EXPECT_TRUE(find_relation("repeat").check(Subject(c, restless_call, bitwise)).broken);
}

}  // namespace
}  // namespace attn::harness
