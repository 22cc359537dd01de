// Compares the codecs with the conversions of the CUDA headers, which compile as plain C++.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <gtest/gtest.h>
#if __has_include(<cuda_fp4.h>)
#include <cuda_fp4.h>
#define ATTN_HAS_CUDA_FP4 1
#endif

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "reference/core/element.h"
#include "reference/core/philox.h"

namespace attn {
namespace {

/// One type of the CUDA headers as functions on codes.
struct CudaType {
  ElementType type;
  std::uint64_t num_codes;
  std::function<std::uint64_t(double)> encode;
  std::function<double(std::uint64_t)> decode;
};

template <typename Raw>
double half_value(Raw raw) {
  return static_cast<double>(__half2float(__half(raw)));
}

std::vector<CudaType> cuda_types() {
  std::vector<CudaType> types{
      {ElementType::kFloat8E4M3FN, 256,
       [](double v) { return __nv_cvt_double_to_fp8(v, __NV_SATFINITE, __NV_E4M3); },
       [](std::uint64_t c) {
         return half_value(__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(c), __NV_E4M3));
       }},
      {ElementType::kFloat8E5M2, 256,
       [](double v) { return __nv_cvt_double_to_fp8(v, __NV_SATFINITE, __NV_E5M2); },
       [](std::uint64_t c) {
         return half_value(__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(c), __NV_E5M2));
       }},
      {ElementType::kFloat16, 65536,
       [](double v) { return static_cast<__half_raw>(__double2half(v)).x; },
       [](std::uint64_t c) {
         __half_raw raw;
         raw.x = static_cast<unsigned short>(c);
         return half_value(raw);
       }},
      {ElementType::kBFloat16, 65536,
       [](double v) { return static_cast<__nv_bfloat16_raw>(__double2bfloat16(v)).x; },
       [](std::uint64_t c) {
         __nv_bfloat16_raw raw;
         raw.x = static_cast<unsigned short>(c);
         return static_cast<double>(__bfloat162float(__nv_bfloat16(raw)));
       }},
  };
#ifdef ATTN_HAS_CUDA_FP4
  types.push_back(
      {ElementType::kFloat4E2M1FN, 16,
       [](double v) { return __nv_cvt_double_to_fp4(v, __NV_E2M1, cudaRoundNearest) & 0xf; },
       [](std::uint64_t c) {
         return half_value(__nv_cvt_fp4_to_halfraw(static_cast<__nv_fp4_storage_t>(c), __NV_E2M1));
       }});
#endif
  return types;
}

class CudaCodec : public testing::TestWithParam<CudaType> {
 protected:
  /// NaN has many codes, and the headers choose another one than ml_dtypes does.
  static void expect_same_code(double value) {
    const CudaType& cuda = GetParam();
    const std::uint64_t ours = encode(cuda.type, value);
    const std::uint64_t theirs = cuda.encode(value);
    if (std::isnan(value) && std::isnan(decode(cuda.type, ours))) {
      EXPECT_TRUE(std::isnan(cuda.decode(theirs)));
    } else {
      ASSERT_EQ(ours, theirs) << std::hexfloat << value;
    }
  }
};

TEST_P(CudaCodec, DecodesEveryCodeAlike) {
  const CudaType& cuda = GetParam();
  for (std::uint64_t code = 0; code < cuda.num_codes; ++code) {
    const double ours = decode(cuda.type, code);
    const double theirs = cuda.decode(code);
    if (std::isnan(ours)) {
      EXPECT_TRUE(std::isnan(theirs)) << code;
    } else {
      EXPECT_EQ(ours, theirs) << code;
      EXPECT_EQ(std::signbit(ours), std::signbit(theirs)) << code;
    }
  }
}

TEST_P(CudaCodec, EncodesValuesTiesAndTheirNeighboursAlike) {
  const CudaType& cuda = GetParam();
  const double infinity = std::numeric_limits<double>::infinity();
  for (std::uint64_t code = 0; code + 1 < cuda.num_codes; ++code) {
    const double value = decode(cuda.type, code);
    const double tie = (value + decode(cuda.type, code + 1)) / 2;
    if (!std::isfinite(tie)) continue;
    for (const double v :
         {value, tie, std::nextafter(tie, -infinity), std::nextafter(tie, infinity)}) {
      expect_same_code(v);
    }
  }
  for (const double v : {0.0, -0.0, infinity, -infinity, std::nan(""), 1e300, -1e300, 5e-324}) {
    expect_same_code(v);
  }
}

TEST_P(CudaCodec, EncodesRandomValuesAlike) {
  const CudaType& cuda = GetParam();
  const RandomStream random(3, element_name(cuda.type));
  const int lowest = std::ilogb(min_subnormal(cuda.type)) - 2;
  const int highest = std::ilogb(max_finite(cuda.type)) + 2;
  for (std::uint64_t i = 0; i < 600000; ++i) {
    const auto range = static_cast<std::uint64_t>(highest - lowest);
    const int exponent = lowest + static_cast<int>(random.below(i, range));
    expect_same_code(std::ldexp(random.normal(i), exponent));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, CudaCodec, testing::ValuesIn(cuda_types()), [](const auto& test) {
  return std::string(element_name(test.param.type));
});

#ifdef ATTN_HAS_CUDA_FP4
// The header rounds e8m0 up or towards zero only; powers of two need no rounding.
TEST(CudaE8M0, AgreesOnPowersOfTwo) {
  for (int exponent = -127; exponent <= 127; ++exponent) {
    const double value = std::ldexp(1.0, exponent);
    EXPECT_EQ(encode(ElementType::kFloat8E8M0FNU, value),
              __nv_cvt_double_to_e8m0(value, __NV_SATFINITE, cudaRoundPosInf));
  }
  for (std::uint64_t code = 0; code < 255; ++code) {
    const __nv_bfloat16_raw raw = __nv_cvt_e8m0_to_bf16raw(static_cast<__nv_fp8_storage_t>(code));
    EXPECT_EQ(decode(ElementType::kFloat8E8M0FNU, code),
              static_cast<double>(__bfloat162float(__nv_bfloat16(raw))));
  }
}
#endif

}  // namespace
}  // namespace attn
