// The cases that attn-bench and the peers share.
#include "harness/bench/shapes.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "harness/generate/case_spec.h"

namespace attn::bench {
namespace {

TEST(Shapes, AreCasesWithNamesOfTheirOwn) {
  std::set<std::string> names;
  for (const Shape& shape : shapes()) {
    EXPECT_TRUE(names.insert(shape.name).second) << shape.name;
    EXPECT_NO_THROW(harness::parse_case_spec(shape.spec)) << shape.name;
  }
}

TEST(Shapes, AreListedAsJson) {
  const nlohmann::json list = nlohmann::json::parse(shapes_json(shapes()));
  ASSERT_EQ(list.size(), shapes().size());
  std::size_t large = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    EXPECT_EQ(list[i]["name"], shapes()[i].name);
    EXPECT_EQ(list[i]["group"], shapes()[i].group);
    EXPECT_EQ(list[i]["case"], nlohmann::json::parse(shapes()[i].spec));
    large += list[i]["large"] == true ? 1 : 0;
  }
  EXPECT_GT(large, 10U);
  EXPECT_LT(large, list.size());
}

}  // namespace
}  // namespace attn::bench
