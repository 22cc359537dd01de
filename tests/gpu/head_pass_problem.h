#pragma once

// Passes over the heads drawn at random, with all that they read and write in one stretch of
// memory: what two kernels leave of a copy each must be the same, to the bit, everywhere. Held by
// the kernels' sources on emulated blocks and by the kernels on a device.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "gpu/kernels/head_pass.h"

namespace attn::gpu {

struct HeadPassCase {
  Type type = Type::kBFloat16;
  Type cache_type = Type::kBFloat16;
  CacheScales scales = CacheScales::kNone;
  int heads = 4, kv_heads = 2, head_dim = 128;
  int rotary = 128;
  bool interleaved = true, rotate_last = false, norm = false, taps = false, zeros = true;
  bool heads_first = false;  ///< in a page
  bool any_bits = false;     ///< q, k and v hold NaN, infinities and numbers below the normal ones
  int page_size = 16;
  int gap = 0;                                        ///< elements behind the heads of a row
  int behind = 0;                                     ///< rows that no sequence owns
  std::vector<std::array<int, 2>> sequences{{4, 0}};  ///< rows, tokens before them

  std::string text() const {
    std::ostringstream s;
    s << "heads " << heads << "/" << kv_heads << " d " << head_dim << " half "
      << (type == Type::kFloat16) << " codes " << (cache_type == Type::kFloat8E4M3) << " scales "
      << static_cast<int>(scales) << " rotary " << rotary << " interleaved " << interleaved
      << " last " << rotate_last << " norm " << norm << " taps " << taps << " zeros " << zeros
      << " hnd " << heads_first << " any bits " << any_bits << " page " << page_size << " gap "
      << gap << " behind " << behind << " sequences";
    for (const auto& [rows, cached] : sequences) s << ' ' << rows << '+' << cached;
    return s.str();
  }
};

/// One that head_pass_rows takes, of at most `most_rows` rows.
inline HeadPassCase draw_head_pass(std::uint64_t seed, int most_rows) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  HeadPassCase c;
  c.type = draw(0, 2) == 0 ? Type::kFloat16 : Type::kBFloat16;
  c.cache_type = draw(0, 1) == 0 ? c.type : Type::kFloat8E4M3;
  if (c.cache_type == Type::kFloat8E4M3) c.scales = static_cast<CacheScales>(draw(0, 3));
  c.head_dim = 64 << draw(0, 2);
  c.kv_heads = draw(1, 4);
  c.heads = c.kv_heads * draw(0, 4);
  c.interleaved = draw(0, 1) == 0;
  c.rotary = c.interleaved ? 8 * draw(1, c.head_dim / 8) : c.head_dim;
  if (draw(0, 2) == 0) c.rotary = c.head_dim;
  c.rotate_last = draw(0, 1) == 0;
  c.norm = draw(0, 1) == 0;
  c.taps = draw(0, 1) == 0;
  c.zeros = draw(0, 3) != 0;
  c.heads_first = draw(0, 1) == 0;
  c.any_bits = draw(0, 5) == 0;
  c.page_size = std::array{1, 3, 7, 16, 64}.at(static_cast<std::size_t>(draw(0, 4)));
  c.gap = 8 * draw(0, 2);
  c.behind = draw(0, 2);
  c.sequences.clear();
  int rows = most_rows;
  for (int left = draw(1, 4); left > 0; --left) {
    const int mine = draw(0, rows);
    rows -= mine;
    c.sequences.push_back({mine, draw(0, 1) == 0 ? 0 : draw(1, 70)});
  }
  return c;
}

/// The memory of a case and where in it what lies: arguments() of any copy of it.
class HeadPassMemory {
 public:
  HeadPassMemory(const HeadPassCase& c, std::uint64_t seed) : c_(c), random_(seed) {
    add_batch();
    add_cache();
    add_floats(gammas_, 2 * c.head_dim, 0.5f, 1.5f);
    const int q = tokens_ * c.heads * c.head_dim;
    const int k = tokens_ * c.kv_heads * c.head_dim;
    for (Place* const place : {&q_normed_, &q_roped_, &zeros_}) add_unwritten(*place, 2 * q);
    for (Place* const place : {&k_normed_, &k_roped_}) add_unwritten(*place, 2 * k);
    add_rows();  // last: nothing to read lies behind them
  }

  const std::vector<std::byte>& bytes() const { return bytes_; }

  HeadPassArguments arguments(std::byte* base) const {
    const auto at = [&](Place place) { return base + place; };
    const auto floats = [&](Place place) { return reinterpret_cast<float*>(at(place)); };
    const auto numbers = [&](Place place) {
      return reinterpret_cast<const std::uint32_t*>(at(place));
    };
    HeadPassArguments a;
    a.type = c_.type;
    a.num_heads = c_.heads;
    a.num_kv_heads = c_.kv_heads;
    a.head_dim = c_.head_dim;
    const std::size_t width = static_cast<std::size_t>(2 * c_.head_dim);
    if (c_.heads > 0) a.q = at(rows_);
    a.k = at(rows_) + static_cast<std::size_t>(c_.heads) * width;
    a.v = at(rows_) + static_cast<std::size_t>(c_.heads + c_.kv_heads) * width;
    a.q_row_stride = a.k_row_stride = a.v_row_stride = row_stride();
    a.norm = c_.norm;
    a.q_gamma = floats(gammas_);
    a.k_gamma = floats(gammas_) + c_.head_dim;
    a.eps = 1e-5f;
    a.rope = a.store = true;
    a.freqs_cis = floats(angles_);
    a.rotary_dim = c_.rotary;
    a.interleaved = c_.interleaved;
    a.rotate_last = c_.rotate_last;
    if (c_.heads > 0) a.q_roped = at(q_roped_);
    if (c_.zeros && c_.heads > 0) a.padding_zeros = at(zeros_);
    if (c_.taps) {
      a.q_normed = at(q_normed_);
      a.k_normed = at(k_normed_);
      a.k_roped = at(k_roped_);
    }
    a.batch = {numbers(offsets_), numbers(lengths_), std::ssize(c_.sequences), tokens_, true};
    a.cache = cache(a.cache, at(k_), at(v_));
    a.cache.k_scale = floats(k_scales_);
    a.cache.v_scale = floats(v_scales_);
    a.cache.page_table = numbers(table_);
    return a;
  }

 private:
  using Place = std::size_t;

  std::int64_t row_stride() const {
    return std::int64_t{c_.heads + 2 * c_.kv_heads} * c_.head_dim + c_.gap;
  }

  CacheView cache(CacheView v, std::byte* keys, std::byte* values) const {
    v.k = keys;
    v.v = values;
    v.type = c_.cache_type;
    v.scales = c_.scales;
    const std::int64_t heads = c_.kv_heads;
    v.scale_page_stride = c_.page_size * heads;
    v.scale_token_stride = c_.heads_first ? 1 : heads;
    v.scale_head_stride = c_.heads_first ? c_.page_size : 1;
    v.k_page_stride = v.scale_page_stride * c_.head_dim;
    v.k_token_stride = v.scale_token_stride * c_.head_dim;
    v.k_head_stride = v.scale_head_stride * c_.head_dim;
    v.v_page_stride = v.k_page_stride + 8;  // values lie otherwise than keys
    v.v_token_stride = v.k_token_stride;
    v.v_head_stride = v.k_head_stride;
    v.table_stride = columns_;
    v.page_size = c_.page_size;
    return v;
  }

  /// At a multiple of 256 bytes, with some behind it that nobody may touch. The last array ends at
  /// one instead.
  template <typename T>
  void add(Place& place, const std::vector<T>& values, bool last = false) {
    const std::size_t size = values.size() * sizeof(T);
    const auto up = [](std::size_t n) { return (n + 255) / 256 * 256; };
    place = up(bytes_.size()) + (last ? up(size) - size : 0);
    bytes_.resize(place + size + (last ? 0 : 64));
    if (size > 0) std::memcpy(bytes_.data() + place, values.data(), size);
  }
  void add_unwritten(Place& place, int size) {
    add(place, std::vector<std::uint8_t>(static_cast<std::size_t>(size), 0x5a));
  }
  void add_floats(Place& place, int count, float low, float high) {
    std::uniform_real_distribution<float> draw(low, high);
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& x : values) x = draw(random_);
    add(place, values);
  }

  void add_batch() {
    std::vector<std::uint32_t> offsets{0};
    std::vector<std::uint32_t> lengths;
    int positions = 1;
    for (const auto& [rows, cached] : c_.sequences) {
      offsets.push_back(offsets.back() + static_cast<std::uint32_t>(rows));
      lengths.push_back(static_cast<std::uint32_t>(cached));
      positions = std::max(positions, rows + cached);
    }
    tokens_ = static_cast<int>(offsets.back()) + c_.behind;
    columns_ = (positions + c_.page_size - 1) / c_.page_size;
    add(offsets_, offsets);
    add(lengths_, lengths);
    std::uniform_real_distribution<float> draw(-3.0f, 3.0f);
    std::vector<float> angles;
    for (int i = 0; i < positions * c_.rotary / 2; ++i) {
      const float angle = draw(random_);
      angles.push_back(std::cos(angle));
      angles.push_back(std::sin(angle));
    }
    add(angles_, angles);
  }

  void add_cache() {
    std::vector<std::uint32_t> table;
    const int pages = columns_ * static_cast<int>(c_.sequences.size()) + 2;
    for (int i = 0; i < pages; ++i) table.push_back(static_cast<std::uint32_t>(i));
    std::shuffle(table.begin(), table.end(), random_);
    add(table_, table);
    const int slots = pages * c_.page_size * c_.kv_heads;
    const int size = c_.cache_type == Type::kFloat8E4M3 ? 1 : 2;
    add_unwritten(k_, size * slots * c_.head_dim);
    add_unwritten(v_, size * (slots * c_.head_dim + 8 * pages));
    add_floats(k_scales_, slots, 0.01f, 2.0f);
    add_floats(v_scales_, slots, 0.01f, 2.0f);
  }

  /// Numbers of about 2^size with zeros between them, or any bits.
  std::uint16_t draw_channel(int size) {
    const bool half = c_.type == Type::kFloat16;
    if (c_.any_bits && random_() % 4 == 0) {
      // NaN only as devices make it, quiet: a host's fmaxf() of another one is not the other
      // number.
      const auto bits = static_cast<std::uint16_t>(random_());
      const std::uint16_t infinity = half ? 0x7c00 : 0x7f80;
      const std::uint16_t quiet = half ? 0x200 : 0x40;
      return (bits & 0x7fff) > infinity ? bits | quiet : bits;
    }
    if (random_() % 16 == 0) return 0;
    const int exponent = (half ? 15 : 127) + size + static_cast<int>(random_() % 4);
    const auto mantissa = static_cast<std::uint32_t>(random_() % (half ? 1024 : 128));
    return static_cast<std::uint16_t>(
        random_() % 2 << 15 | static_cast<std::uint32_t>(exponent) << (half ? 10 : 7) | mantissa);
  }

  void add_rows() {
    std::vector<std::uint16_t> rows;
    for (int row = 0; row < tokens_; ++row) {
      const int size = static_cast<int>(random_() % 20) - 12;
      const bool is_zero = random_() % 8 == 0;
      for (std::int64_t i = 0; i < row_stride(); ++i) {
        rows.push_back(is_zero ? std::uint16_t{0} : draw_channel(size));
      }
    }
    if (tokens_ > 0) rows.resize(rows.size() - static_cast<std::size_t>(c_.gap));
    add(rows_, rows, true);
  }

  HeadPassCase c_;
  std::mt19937_64 random_;
  std::vector<std::byte> bytes_;
  int tokens_ = 0, columns_ = 1;
  Place offsets_ = 0, lengths_ = 0, angles_ = 0, table_ = 0, k_ = 0, v_ = 0, k_scales_ = 0,
        v_scales_ = 0, gammas_ = 0, q_normed_ = 0, k_normed_ = 0, q_roped_ = 0, k_roped_ = 0,
        zeros_ = 0, rows_ = 0;
};

/// "" or the first byte that is another one.
inline std::string first_difference(const std::vector<std::byte>& a,
                                    const std::vector<std::byte>& b) {
  const auto [x, y] = std::ranges::mismatch(a, b);
  if (x == a.end()) return "";
  return "byte " + std::to_string(x - a.begin()) + " of " + std::to_string(a.size());
}

}  // namespace attn::gpu
