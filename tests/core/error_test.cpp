#include "reference/core/error.h"

#include <gtest/gtest.h>

namespace attn {
namespace {

TEST(EditDistance, CountsEdits) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("rope", "rope"), 0);
  EXPECT_EQ(edit_distance("", "rope"), 4);
  EXPECT_EQ(edit_distance("rope", "ropes"), 1);
  EXPECT_EQ(edit_distance("rope", "rop"), 1);
  EXPECT_EQ(edit_distance("rope", "rape"), 1);
  EXPECT_EQ(edit_distance("rope", "rpoe"), 1);  // neighbours swapped
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(NearestMatch, FindsOnlyWhatIsNear) {
  const std::vector<std::string> words{"causal", "chunked_causal", "null", "tensor"};
  EXPECT_EQ(nearest_match("casual", words), "causal");
  EXPECT_EQ(nearest_match("chunked_casual", words), "chunked_causal");
  EXPECT_EQ(nearest_match("nul", words), "null");
  EXPECT_EQ(nearest_match("banana", words), "");
  EXPECT_EQ(nearest_match("", words), "");
  EXPECT_EQ(nearest_match("causal", {}), "");
}

TEST(NearestMatch, PrefersTheNearest) {
  EXPECT_EQ(nearest_match("exat", {"exists", "exact"}), "exact");
}

TEST(Hint, NamesTheNearestOrAll) {
  EXPECT_EQ(hint("casual", {"causal", "null"}), "; did you mean \"causal\"?");
  EXPECT_EQ(hint("banana", {"causal", "null"}), "; known: causal, null");
  EXPECT_EQ(hint("banana", {}), "");
}

}  // namespace
}  // namespace attn
