// Relations between whole evaluations that hold whatever the numbers are.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "reference/core/error.h"
#include "reference/reference.h"
#include "tests/reference/make_case.h"

namespace attn::reference {
namespace {

using test::all_finite;
using test::indices;
using test::kReordered;
using test::largest_difference;
using test::largest_magnitude;
using test::make_case;
using test::make_mask;
using test::Sequence;
using test::slice_rows;
using test::small_config;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

const std::vector<Mode> kModes{Mode::kExact, Mode::kFaithful};

/// Everything on at once.
AttentionConfig rich_config(ElementType type) {
  AttentionConfig config = small_config();
  config.dtype = type;
  config.kv_cache.dtype = type;
  config.has_bias = true;
  config.use_qk_norm = true;
  config.clip_qkv = 0.4;
  config.clip_activations = 2.5;
  config.rope.rotary_dim = 8;
  return config;
}

/// Equal to the bit, NaN payloads included.
void expect_same_bits(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.type(), b.type());
  ASSERT_EQ(a.shape(), b.shape());
  EXPECT_TRUE(a == b);
}

void expect_same_pool(const KvCache& a, const KvCache& b) {
  expect_same_bits(a.k, b.k);
  expect_same_bits(a.v, b.v);
}

/// Rows of `got` [.., width] from `first` on equal all rows of `want`, up to the order of sums.
void expect_rows(const Tensor& got, std::int64_t first, const Tensor& want, double tolerance) {
  const Tensor part = slice_rows(got, first, want.dim(0));
  EXPECT_LE(largest_difference(part, want), tolerance * largest_magnitude(want));
}

TEST(Property, ForwardAndMaterializeLeaveTheSameBitsInTheCache) {
  for (const ElementType type :
       {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
    const Case forward_case = make_case(rich_config(type), {{1, 5, 3}, {2, 0, 6}, {3, 2, 0}});
    Case materialize_case = forward_case;
    materialize_case.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
    for (const Mode mode : kModes) {
      const Trace a = forward(forward_case, mode);
      const Trace b = materialize_kv_from_hidden(materialize_case, mode);
      expect_same_pool(*a.cache, *b.cache);
      for (const Stage stage : stages_of(materialize_case.config)) {
        expect_same_bits(a[stage], b[stage]);
      }
    }
  }
}

TEST(Property, MaterializeDoesNotReadTheQueriesWeights) {
  Case c = make_case(rich_config(ElementType::kBFloat16), {{1, 5, 3}});
  c.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
  const Trace with = materialize_kv_from_hidden(c, Mode::kFaithful);
  for (const char* name : {"q_proj.weight", "q_proj.bias", "q_norm.weight", "o_proj.weight"}) {
    c.weights.erase(name);
  }
  const Trace without = materialize_kv_from_hidden(c, Mode::kFaithful);
  expect_same_pool(*with.cache, *without.cache);
}

TEST(Property, OnlyTheNewSlotsOfTheCasesLayerChange) {
  PagingOptions paging;
  paging.num_layers = 3;
  paging.layer = 1;
  const Case c =
      make_case(rich_config(ElementType::kBFloat16), {{1, 5, 4}, {2, 0, 3}, {3, 7, 0}}, paging);
  const KvCache after = *forward(c, Mode::kFaithful).cache;
  std::set<std::int64_t> written;  // flat indices in k; v has the same width here
  for (std::int64_t b = 0; b < c.batch(); ++b) {
    for (std::int64_t p = c.cached(b); p < c.key_count(b); ++p) {
      for (std::int64_t i = 0; i < c.config.k_width(); ++i) {
        written.insert(c.cache.k_index(b, p) + i);
      }
    }
  }
  ASSERT_EQ(written.size(), 7U * 32U);
  for (std::int64_t i = 0; i < after.k.size(); ++i) {
    if (written.count(i) == 0) {
      ASSERT_EQ(after.k.code(i), c.cache.k.code(i)) << i;
      ASSERT_EQ(after.v.code(i), c.cache.v.code(i)) << i;
    } else {
      ASSERT_TRUE(std::isfinite(after.k.value(i))) << i;
      ASSERT_TRUE(std::isfinite(after.v.value(i))) << i;
    }
  }
  expect_same_bits(after.page_table, c.cache.page_table);
}

TEST(Property, ThePoolsLayoutDoesNotMatter) {
  const std::vector<Sequence> sequences{{1, 5, 4}, {2, 0, 3}};
  PagingOptions plain;
  plain.shuffled = false;
  PagingOptions other;
  other.seed = 99;
  other.num_layers = 2;
  other.layer = 1;
  other.spare_pages = 7;
  for (const Mode mode : kModes) {
    AttentionConfig config = rich_config(ElementType::kBFloat16);
    const Trace a = forward(make_case(config, sequences, plain), mode);
    config.kv_cache.page_size = 3;
    const Trace b = forward(make_case(config, sequences, other), mode);
    for (const Stage stage : stages_of(config)) {
      expect_same_bits(a[stage], b[stage]);
    }
  }
}

/// `c`, of one sequence, cut after its first n rows: the first part, and the rest on the first's
/// cache.
Case first_rows(const Case& c, std::int64_t n) {
  Case part = c;
  part.x = slice_rows(c.x, 0, n);
  part.input_row_offsets = indices({0, n});
  return part;
}

Case later_rows(const Case& c, std::int64_t n, const KvCache& cache) {
  Case part = c;
  part.x = slice_rows(c.x, n, c.tokens() - n);
  part.input_row_offsets = indices({0, c.tokens() - n});
  part.cache_lengths = indices({c.cached(0) + n});
  part.cache = cache;
  return part;
}

TEST(Property, ChunksOfAPrefillAreOnePrefill) {
  for (const ElementType type :
       {ElementType::kFloat32, ElementType::kBFloat16, ElementType::kFloat16}) {
    const Case whole = make_case(rich_config(type), {{1, 3, 10}});
    const Trace want = forward(whole, Mode::kFaithful);
    for (const std::int64_t n : {1, 4, 9}) {
      const Trace first = forward(first_rows(whole, n), Mode::kFaithful);
      const Trace second = forward(later_rows(whole, n, *first.cache), Mode::kFaithful);
      expect_same_pool(*second.cache, *want.cache);
      // Both read the same cache. A sum in another order may land on the other side of a rounding:
      // one step of the type, 2 u relative, in attn_out, and out sums 64 such.
      const double step = 2.0 * unit_roundoff(type);
      const Tensor attended = slice_rows(want[Stage::kAttnOut], n, 10 - n);
      EXPECT_LE(largest_difference(second[Stage::kAttnOut], attended),
                step * largest_magnitude(attended));
      const Tensor lse = slice_rows(want[Stage::kLse], n, 10 - n);
      EXPECT_LE(largest_difference(second[Stage::kLse], lse), 0x1p-23 * largest_magnitude(lse));
    }
  }
}

TEST(Property, DecodeIsTheLastRowOfThePrefill) {
  const Case whole = make_case(rich_config(ElementType::kBFloat16), {{1, 0, 12}});
  const Trace prefill = forward(whole, Mode::kFaithful);
  KvCache cache = whole.cache;
  for (std::int64_t p = 0; p < 12; ++p) {
    Case step = later_rows(whole, p, cache);
    step.x = slice_rows(whole.x, p, 1);
    step.input_row_offsets = indices({0, 1});
    const Trace decoded = forward(step, Mode::kFaithful);
    cache = *decoded.cache;
    const Tensor want = slice_rows(prefill[Stage::kAttnOut], p, 1);
    EXPECT_LE(largest_difference(decoded[Stage::kAttnOut], want), 0x1p-7 * largest_magnitude(want));
  }
  expect_same_pool(cache, *prefill.cache);
}

TEST(Property, MaterializeThenForwardIsOneForward) {
  const Case whole = make_case(rich_config(ElementType::kBFloat16), {{1, 3, 10}});
  Case first = first_rows(whole, 6);
  first.config.entry_point = EntryPoint::kMaterializeKvFromHidden;
  const Trace filled = materialize_kv_from_hidden(first, Mode::kFaithful);
  const Trace second = forward(later_rows(whole, 6, *filled.cache), Mode::kFaithful);
  expect_same_pool(*second.cache, *forward(whole, Mode::kFaithful).cache);
}

TEST(Property, SequencesDoNotMeet) {
  const std::vector<Sequence> sequences{{1, 5, 3}, {2, 0, 6}, {3, 9, 1}, {4, 2, 0}};
  const AttentionConfig config = rich_config(ElementType::kFloat32);
  const Trace together = forward(make_case(config, sequences), Mode::kExact);
  const std::vector<Sequence> shuffled{sequences[3], sequences[1], sequences[2], sequences[0]};
  const Trace permuted = forward(make_case(config, shuffled), Mode::kExact);
  // Rows of sequences 1, 2, 3: 0-2, 3-8, 9 of the one and 7-9, 0-5, 6 of the other.
  for (const Stage stage :
       {Stage::kQRope, Stage::kKRope, Stage::kVProj, Stage::kLse, Stage::kAttnOut, Stage::kOut}) {
    expect_rows(permuted[stage], 7, slice_rows(together[stage], 0, 3), kReordered);
    expect_rows(permuted[stage], 0, slice_rows(together[stage], 3, 6), kReordered);
    expect_rows(permuted[stage], 6, slice_rows(together[stage], 9, 1), kReordered);
    const Trace alone = forward(make_case(config, {sequences[1]}), Mode::kExact);
    expect_rows(together[stage], 3, alone[stage], kReordered);
  }
}

TEST(Property, AnEmptySequenceIsNotThere) {
  const AttentionConfig config = rich_config(ElementType::kBFloat16);
  const Trace want = forward(make_case(config, {{1, 5, 3}, {2, 1, 2}}), Mode::kExact);
  Case c = make_case(config, {{7, 0, 0}, {1, 5, 3}, {8, 6, 0}, {2, 1, 2}, {9, 0, 0}});
  for (const std::int64_t b : {0, 4}) {  // rows of the page table that must not be looked at
    for (std::int64_t j = 0; j < c.cache.page_table.dim(1); ++j) {
      c.cache.page_table.set_code(b * c.cache.page_table.dim(1) + j, 0xffffffffU);
    }
  }
  const Trace got = forward(c, Mode::kExact);
  for (const Stage stage : {Stage::kKRope, Stage::kLse, Stage::kAttnOut, Stage::kOut}) {
    expect_same_bits(got[stage], want[stage]);
  }
}

TEST(Property, AnEmptyBatchHasEmptyResults) {
  for (const std::vector<Sequence>& sequences :
       {std::vector<Sequence>{}, std::vector<Sequence>{{1, 0, 0}, {2, 3, 0}}}) {
    const Case c = make_case(rich_config(ElementType::kFloat32), sequences);
    for (const Mode mode : kModes) {
      const Trace got = forward(c, mode);
      EXPECT_EQ(got[Stage::kOut].shape(), (Shape{0, 32}));
      expect_same_pool(*got.cache, c.cache);
    }
  }
}

TEST(Property, AWindowAsLongAsTheSequenceIsCausal) {
  const std::vector<Sequence> sequences{{1, 5, 4}, {2, 0, 6}};
  AttentionConfig config = small_config();
  const Trace causal = forward(make_case(config, sequences), Mode::kExact);
  for (const std::int64_t width : {9, 10, 1000}) {
    config.mask = make_mask(MaskVariant::kSlidingWindowCausal, width);
    expect_same_bits(forward(make_case(config, sequences), Mode::kExact)[Stage::kOut],
                     causal[Stage::kOut]);
    config.mask = make_mask(MaskVariant::kChunkedCausal, width);
    expect_same_bits(forward(make_case(config, sequences), Mode::kExact)[Stage::kOut],
                     causal[Stage::kOut]);
  }
}

/// attn_out of each row is its own value row, head by head.
void expect_own_values(const Trace& got, const Case& c) {
  for (std::int64_t row = 0; row < c.tokens(); ++row) {
    for (std::int64_t head = 0; head < 4; ++head) {
      for (std::int64_t i = 0; i < 16; ++i) {
        ASSERT_EQ(got[Stage::kAttnOut].value(row * 64 + head * 16 + i),
                  got[Stage::kVProj].value(row * 32 + head / 2 * 16 + i));
      }
    }
  }
}

TEST(Property, AWindowOrChunkOfOneGivesTheOwnValue) {
  AttentionConfig config = rich_config(ElementType::kBFloat16);
  for (const MaskConfig& mask : {make_mask(MaskVariant::kSlidingWindowCausal, 1),
                                 make_mask(MaskVariant::kChunkedCausal, 1)}) {
    config.mask = mask;
    const Case c = make_case(config, {{1, 5, 4}, {2, 0, 6}});
    for (const Mode mode : kModes) {
      expect_own_values(forward(c, mode), c);
    }
  }
}

TEST(Property, ASingleTokenGivesItsValue) {
  const Case c = make_case(rich_config(ElementType::kFloat16), {{1, 0, 1}, {2, 0, 1}});
  for (const Mode mode : kModes) {
    expect_own_values(forward(c, mode), c);
  }
}

TEST(Property, NaNInARowReachesTheLaterRowsOfItsSequenceAndNoOthers) {
  AttentionConfig config = small_config();
  config.clip_activations = 1.5;  // which must not swallow it
  Case c = make_case(config, {{1, 2, 4}, {2, 5, 5}, {3, 0, 2}});
  const Trace clean = forward(c, Mode::kExact);
  c.x.set_value(6 * 32 + 3, kNaN);  // row 6: the third of the second sequence
  const Trace got = forward(c, Mode::kExact);
  const auto nan_in_row = [&](Stage stage, std::int64_t row, std::int64_t width) {
    for (std::int64_t i = 0; i < width; ++i) {
      if (std::isnan(got[stage].value(row * width + i))) {
        return true;
      }
    }
    return false;
  };
  for (std::int64_t row = 0; row < c.tokens(); ++row) {
    EXPECT_EQ(nan_in_row(Stage::kQProj, row, 64), row == 6) << row;
    EXPECT_EQ(nan_in_row(Stage::kVProj, row, 32), row == 6) << row;
    const bool later = row >= 6 && row < 9;
    EXPECT_EQ(nan_in_row(Stage::kAttnOut, row, 64), later) << row;
    EXPECT_EQ(nan_in_row(Stage::kOut, row, 32), later) << row;
    if (!later) {
      expect_rows(got[Stage::kOut], row, slice_rows(clean[Stage::kOut], row, 1), kReordered);
    }
  }
}

TEST(Property, UnusedSlotsAreNotRead) {
  // make_case fills them with NaN; the pages of nobody and the tails of the last pages stay so.
  const Case c = make_case(rich_config(ElementType::kFloat32), {{1, 5, 1}, {2, 0, 3}});
  ASSERT_FALSE(all_finite(c.cache.k));
  for (const Mode mode : kModes) {
    const Trace got = forward(c, mode);
    for (const Stage stage : stages_of(c.config)) {
      EXPECT_TRUE(all_finite(got[stage])) << name_of(stage);
    }
  }
}

TEST(Property, StackedWeightsAreTheSeparateOnesOneAfterTheOther) {
  const AttentionConfig config = small_config();
  const Case separate = make_case(config, {{1, 5, 3}});
  Case stacked = separate;
  stacked.config.stacked_qkv = true;
  std::vector<double> rows;
  for (const char* name : {"q_proj.weight", "k_proj.weight", "v_proj.weight"}) {
    const std::vector<double> part = separate.weights.at(name).values();
    rows.insert(rows.end(), part.begin(), part.end());
    stacked.weights.erase(name);
  }
  stacked.weights["qkv_proj.weight"] = Tensor::from_values(ElementType::kFloat32, {128, 32}, rows);
  const Trace a = forward(separate, Mode::kExact);
  const Trace b = forward(stacked, Mode::kExact);
  for (const Stage stage : stages_of(config)) {
    expect_same_bits(a[stage], b[stage]);
  }
}

TEST(Property, RopeStylesDifferByAPermutationOfTheChannels) {
  // Half-split pairs (j, j + 8), interleaved pairs (2j, 2j + 1): the weights' rows permuted alike
  // give the same scores, hence the same attention.
  AttentionConfig config = small_config();
  const Case half = make_case(config, {{1, 0, 6}});
  Case interleaved = half;
  interleaved.config.rope.interleaved = true;
  for (const char* name : {"q_proj.weight", "k_proj.weight"}) {
    const Tensor& from = half.weights.at(name);
    Tensor& to = interleaved.weights.at(name);
    for (std::int64_t row = 0; row < from.dim(0); ++row) {
      const std::int64_t channel = row % 16;
      const std::int64_t target =
          row - channel + (channel < 8 ? 2 * channel : 2 * (channel - 8) + 1);
      for (std::int64_t i = 0; i < 32; ++i) {
        to.set_value(target * 32 + i, from.value(row * 32 + i));
      }
    }
  }
  const Trace a = forward(half, Mode::kExact);
  const Trace b = forward(interleaved, Mode::kExact);
  EXPECT_LE(largest_difference(a[Stage::kAttnOut], b[Stage::kAttnOut]),
            kReordered * largest_magnitude(a[Stage::kAttnOut]));
  EXPECT_GT(largest_difference(a[Stage::kQRope], b[Stage::kQRope]), 0.1);
}

TEST(Property, EvaluationLeavesTheCaseAlone) {
  const Case c = make_case(rich_config(ElementType::kBFloat16), {{1, 5, 3}});
  const Case before = c;
  static_cast<void>(forward(c, Mode::kExact));
  static_cast<void>(forward(c, Mode::kFaithful));
  expect_same_pool(c.cache, before.cache);
  expect_same_bits(c.x, before.x);
  EXPECT_EQ(c.weights, before.weights);
}

TEST(Property, VariantsOfOneDeviceAgree) {
  AttentionConfig config = small_config();
  config.stacked_qkv = true;
  config.rope.interleaved = true;
  const std::vector<Sequence> sequences{{1, 5, 3}, {2, 0, 2}};
  const Trace want = forward(make_case(config, sequences), Mode::kExact);
  for (const Variant variant :
       {Variant::kNoOpaque, Variant::kTensorParallel, Variant::kDataParallel}) {
    config.variant = variant;
    config.num_devices = variant == Variant::kNoOpaque ? 1 : 2;
    const Trace got = forward(make_case(config, sequences), Mode::kExact);
    if (variant == Variant::kTensorParallel) {  // adds the devices' sums last
      expect_rows(got[Stage::kOut], 0, want[Stage::kOut], kReordered);
    } else {
      expect_same_bits(got[Stage::kOut], want[Stage::kOut]);
    }
  }
}

TEST(EntryPoints, RefuseACaseThatStartsElsewhere) {
  const Case c = make_case(small_config(), {{1, 2, 1}});
  EXPECT_THROW(static_cast<void>(attention(c, Mode::kExact)), Error);
  EXPECT_THROW(static_cast<void>(materialize_kv_from_hidden(c, Mode::kExact)), Error);
  EXPECT_THROW(
      static_cast<void>(forward(make_case(test::small_core_config(), {{1, 2, 1}}), Mode::kExact)),
      Error);
}

}  // namespace
}  // namespace attn::reference
