// Operations and bytes of a call, against numbers worked by hand.
#include "harness/bench/work.h"

#include <gtest/gtest.h>

#include "harness/generate/case_spec.h"

namespace attn::bench {
namespace {

Case attention(const char* mask, const char* rows) {
  const std::string spec =
      std::string(R"({"config":{"variant":"attention","entry_point":"attention",)"
                  R"("num_attention_heads":4,"num_key_value_heads":2,"head_dim":16,)"
                  R"("dtype":"bfloat16","kv_cache":{"page_size":4,"dtype":"bfloat16"},"mask":)")
          .append(mask)
          .append(R"(},"rows":)")
          .append(rows)
          .append("}");
  return harness::make_case(harness::parse_case_spec(spec), 1);
}

TEST(Work, CountsPairsOfACausalMask) {
  // Rows 7, 8, 9 of 10 keys see 8, 9 and 10 of them: 27 pairs, 4 heads, 2 (16 + 16) operations.
  const Work w = attention_work(attention(R"({"variant":"causal"})", "[[3,10]]"));
  EXPECT_EQ(w.operations, 27.0 * 4 * 64);
  // Ten keys and values of two heads of 16 bfloat16; three rows of q and output of four heads.
  EXPECT_EQ(w.bytes, 10.0 * 2 * 32 * 2 + 3.0 * 4 * 32 * 2);
}

TEST(Work, ReadsOnlyKeysThatAWindowShows) {
  // Windows of 4: rows 8 and 9 of 10 see keys 5 to 8 and 6 to 9.
  const Work w = attention_work(
      attention(R"({"variant":"sliding_window_causal","window_size":4})", "[[2,10]]"));
  EXPECT_EQ(w.operations, 8.0 * 4 * 64);
  EXPECT_EQ(w.bytes, 5.0 * 2 * 32 * 2 + 2.0 * 4 * 32 * 2);
}

TEST(Work, AddsSequences) {
  const Work a = attention_work(attention(R"({"variant":"causal"})", "[[3,10]]"));
  const Work b = attention_work(attention(R"({"variant":"causal"})", "[[1,6]]"));
  const Work both = attention_work(attention(R"({"variant":"causal"})", "[[3,10],[1,6]]"));
  EXPECT_EQ(both.operations, a.operations + b.operations);
  EXPECT_EQ(both.bytes, a.bytes + b.bytes);
}

TEST(Work, CountsALayersWeightsOnce) {
  const char* const spec =
      R"({"config":{"hidden_size":64,"num_attention_heads":4,"num_key_value_heads":2,)"
      R"("head_dim":16,"dtype":"bfloat16","kv_cache":{"page_size":4,"dtype":"bfloat16"},)"
      R"("mask":{"variant":"causal"}},"rows":[[5,2]]})";
  const Case c = harness::make_case(harness::parse_case_spec(spec), 1);
  // q and o are 64 x 64, k and v 32 x 64.
  const double products = 2.0 * 64 * 64 + 2.0 * 32 * 64;
  const Work w = projection_work(c);
  EXPECT_EQ(w.operations, 2.0 * 2 * products);
  // Weights, two rows in and out of 64, two rows of k and v of 32; all of two bytes.
  EXPECT_EQ(w.bytes, 2.0 * (products + 2.0 * 2 * 64 + 2.0 * 64));
  // The layer's attention reads seven keys and values of two heads; q and its output stay inside.
  EXPECT_EQ(work_of(c).bytes, w.bytes + 7.0 * 2 * 32 * 2);
  EXPECT_EQ(work_of(c).operations, w.operations + (6.0 + 7.0) * 4 * 64);
}

TEST(Work, TheSlowerOfTwoFloorsCounts) {
  EXPECT_EQ(floor_seconds({100.0, 10.0}, 50.0, 10.0), 2.0);
  EXPECT_EQ(floor_seconds({100.0, 10.0}, 200.0, 10.0), 1.0);
}

}  // namespace
}  // namespace attn::bench
