#pragma once

// Memory of an emulated attention call: drawn queries, keys, values, pages and lengths, all that
// nothing may read NaN, and the judge of what a kernel made of it.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <cstring>
#include <random>

#include "tests/gpu/emulated_attention.h"
#include "tests/gpu/emulator/bits.h"

namespace attn::gpu {

inline constexpr std::uint16_t kNan = 0xffff;
inline constexpr int kPaddingRows = 3;

inline std::uint8_t to_code(float x) {
  return static_cast<std::uint8_t>(__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3));
}
inline double from_code(std::uint8_t code) {
  return double{__half2float(
      static_cast<__half>(static_cast<__half_raw>(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3))))};
}

/// Keys or values of a pool, each byte of it part of a NaN at first.
class EmulatedPool {
 public:
  void reserve(Type type, std::size_t elements) {
    type_ = type;
    bytes_.assign(elements * static_cast<std::size_t>(size_of(type)), 0xff);
  }
  void put(std::size_t i, float x) {
    if (type_ == Type::kFloat8E4M3) return put_code(i, to_code(x));
    const std::uint16_t bits = to_bits(x, type_);
    std::memcpy(bytes_.data() + 2 * i, &bits, 2);
  }
  void put_code(std::size_t i, std::uint8_t code) { bytes_[i] = code; }
  double at(std::size_t i) const {
    if (type_ == Type::kFloat8E4M3) return from_code(bytes_[i]);
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes_.data() + 2 * i, 2);
    return double{from_bits(bits, type_)};
  }
  void* data() { return bytes_.data(); }
  std::vector<std::uint8_t>& bytes() { return bytes_; }

 private:
  Type type_ = Type::kBFloat16;
  std::vector<std::uint8_t> bytes_;
};

struct EmulatedMemory {
  EmulatedMemory(const EmulatedCall& p, std::uint64_t seed);
  static double scale_of(const EmulatedCall& p, const std::vector<float>& scales, int head) {
    if (!p.coded || p.scales == CacheScales::kNone) return 1.0;
    return double{scales[p.scales == CacheScales::kHead ? static_cast<std::size_t>(head) : 0]};
  }
  static std::size_t row_of(const EmulatedCall& p, std::uint32_t page, int slot, int head) {
    const std::size_t within = p.heads_first ? static_cast<std::size_t>(head * p.page_size + slot)
                                             : static_cast<std::size_t>(slot * p.kv_heads + head);
    return page * static_cast<std::size_t>(p.page_size * p.kv_heads) + within;
  }

  std::mt19937_64 random;
  int tokens = 0, columns = 0, pool_pages = 0;
  std::vector<std::uint32_t> offsets, lengths, table;
  std::vector<std::uint16_t> q, out;
  EmulatedPool k, v;
  std::vector<float> lse, sinks, k_scales, v_scales;
};

AttentionArguments arguments_of(const EmulatedCall& p, EmulatedMemory& m);

/// "" when every row is right by float64 and nothing else was written. `every`: of so many rows one
/// is judged.
std::string judge(const EmulatedCall& p, const EmulatedMemory& m, int every);

}  // namespace attn::gpu
