#include "reference/core/tensor.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <string>

#include "reference/core/error.h"

namespace attn {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();

TEST(Shape, CountsElements) {
  EXPECT_EQ(num_elements({}), 1);
  EXPECT_EQ(num_elements({3, 4, 5}), 60);
  EXPECT_EQ(num_elements({3, 0, 5}), 0);
  EXPECT_EQ(num_elements({kLargest}), kLargest);
  EXPECT_EQ(num_elements({kLargest, kLargest, 0}), 0);
}

TEST(Shape, RefusesOverflowAndNegativeAxes) {
  for (const Shape& shape : {Shape{kLargest, 2}, Shape{1LL << 32, 1LL << 31}, Shape{3, -1}}) {
    try {
      num_elements(shape);
      ADD_FAILURE() << to_string(shape);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInput);
      EXPECT_NE(std::string(error.what()).find(to_string(shape)), std::string::npos);
    }
  }
}

TEST(Shape, Prints) {
  EXPECT_EQ(to_string(Shape{}), "[]");
  EXPECT_EQ(to_string(Shape{4, 16, 128}), "[4, 16, 128]");
}

TEST(Tensor, AbsentScalarAndEmptyDiffer) {
  EXPECT_TRUE(Tensor().empty());
  EXPECT_FALSE(Tensor(ElementType::kFloat32, {}).empty());
  EXPECT_FALSE(Tensor(ElementType::kFloat32, {0, 4}).empty());
  EXPECT_EQ(Tensor(ElementType::kFloat32, {}).size(), 1);
  EXPECT_EQ(Tensor(ElementType::kFloat32, {0, 4}).size(), 0);
  EXPECT_EQ(Tensor(), Tensor());
  EXPECT_NE(Tensor(), Tensor(ElementType::kFloat32, {}));
  EXPECT_EQ(Tensor::scalar(ElementType::kBFloat16, 1.5).value(0), 1.5);
}

TEST(Tensor, HoldsValuesRowMajor) {
  const std::vector<double> values{0, 1, 2, 3, 4, 5};
  const Tensor tensor = Tensor::from_values(ElementType::kBFloat16, {2, 3}, values);
  EXPECT_EQ(tensor.bytes().size(), 12U);
  EXPECT_EQ(tensor.values(), values);
  std::array<double, 2> part{};
  tensor.values(3, part);
  EXPECT_EQ(part, (std::array<double, 2>{3, 4}));
  const TensorView view = tensor.view();
  EXPECT_EQ(view.strides, (Shape{3, 1}));
  EXPECT_EQ(view.value(std::array<std::int64_t, 2>{1, 2}), 5.0);
}

TEST(Tensor, WritesOneElement) {
  Tensor tensor(ElementType::kFloat16, {3});
  tensor.set_value(1, 0.1);
  EXPECT_EQ(tensor.values(), (std::vector<double>{0, round_to(ElementType::kFloat16, 0.1), 0}));
  tensor.set_code(2, 0xfc00);
  EXPECT_EQ(tensor.code(2), 0xfc00U);
  EXPECT_EQ(tensor.value(2), -std::numeric_limits<double>::infinity());
}

TEST(Tensor, ViewsMayBroadcastAndSkip) {
  const Tensor tensor =
      Tensor::from_values(ElementType::kFloat32, {4}, std::vector<double>{0, 1, 2, 3});
  const TensorView view{tensor.data(), ElementType::kFloat32, {2, 2}, {0, 2}};
  EXPECT_EQ(view.value(std::array<std::int64_t, 2>{0, 1}), 2.0);
  EXPECT_EQ(view.value(std::array<std::int64_t, 2>{1, 1}), 2.0);
  EXPECT_THROW(view.value(std::array<std::int64_t, 1>{0}), Error);
}

TEST(Tensor, RefusesWhatDoesNotFit) {
  EXPECT_THROW(Tensor::from_values(ElementType::kFloat32, {2}, std::vector<double>{1}), Error);
  EXPECT_THROW(Tensor(ElementType::kFloat64, {1LL << 61}), Error);
  const Tensor tensor(ElementType::kFloat32, {2});
  std::array<double, 2> out{};
  EXPECT_THROW(tensor.values(1, out), Error);
  EXPECT_THROW(tensor.values(-1, out), Error);
  EXPECT_THROW(tensor.values(kLargest, out), Error);
}

}  // namespace
}  // namespace attn
