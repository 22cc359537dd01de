// Shapes of the goals and of public models: valid cases, each name once and true to its lengths.
#include "harness/bench/more_shapes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "harness/bench/shapes.h"
#include "harness/generate/case_spec.h"
#include "reference/core/error.h"

namespace attn::bench {
namespace {

std::vector<Shape> models() { return model_shapes(std::string(ATTN_SOURCE_DIR) + "/data/models"); }

TEST(MoreShapes, AreValidAndNamedOnce) {
  std::set<std::string> names;
  for (const auto& part : {shapes(), target_shapes(), models()}) {
    for (const Shape& shape : part) {
      EXPECT_TRUE(names.insert(shape.name).second) << shape.name;
      EXPECT_NO_THROW(validate(harness::parse_case_spec(shape.spec))) << shape.name;
    }
  }
  EXPECT_GT(names.size(), 80U);
}

TEST(MoreShapes, SayTheirLengths) {
  for (const Shape& shape : target_shapes()) {
    const harness::CaseSpec spec = harness::parse_case_spec(shape.spec);
    if (!spec.config.starts_at_attention()) continue;
    std::string name = shape.name;
    std::ranges::replace(name, ',', ' ');
    std::istringstream parts(name);
    std::set<std::string> words;
    for (std::string word; parts >> word;) words.insert(word);
    const auto says = [&](const char* letter, std::int64_t number) {
      return words.contains(std::string(letter).append(std::to_string(number)));
    };
    EXPECT_TRUE(says("B", std::ssize(spec.rows))) << shape.name;
    const std::int64_t keys = spec.rows.at(0).second;
    EXPECT_TRUE(says("S", keys) || says("ctx", keys)) << shape.name;
    std::ostringstream heads;
    heads << spec.config.num_attention_heads << "/" << spec.config.num_key_value_heads;
    EXPECT_TRUE(words.contains(heads.str())) << shape.name;
    if (spec.config.head_dim == 128) continue;
    EXPECT_TRUE(says("D", spec.config.head_dim)) << shape.name;
  }
}

TEST(MoreShapes, HaveEveryModelTwice) {
  EXPECT_EQ(std::ranges::count_if(models(),
                                  [](const Shape& shape) {
                                    return shape.name.find("llama-3.1-8b") != std::string::npos;
                                  }),
            2);
  EXPECT_THROW(model_shapes("/no/such/folder"), Error);
}

}  // namespace
}  // namespace attn::bench
