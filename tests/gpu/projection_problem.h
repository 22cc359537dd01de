#pragma once

// Calls that project x to q, k and v, and what they must leave. x and w are small whole numbers, so
// that sums and sums of squares are exact in any order: what a kernel stores equals, to the bit,
// what the roundings of head_pass.h make of them, written here channel by channel, and those are
// held against float64. For tests that run kernels' source on the emulated block.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "gpu/kernels/gemm.h"
#include "gpu/kernels/head_pass.h"
#include "tests/gpu/emulator/bits.h"

namespace attn::gpu {

inline constexpr std::uint16_t kUnwritten = 0x7fff;  // NaN
inline constexpr int kBehind = 3;                    // rows that no sequence owns

struct Problem {
  Type type = Type::kBFloat16;
  int heads = 1, kv_heads = 1, head_dim = 128, hidden = 64, page_size = 16;
  bool heads_first = false;  ///< in a page
  bool interleaved = true, rotate_last = false, norm = false, bias = false, taps = false;
  int rotary = 128;
  float clip = kNoBound;
  std::vector<std::array<int, 2>> sequences;  ///< rows, tokens before them
  int multiprocessors = 2;

  int all_heads() const { return heads + 2 * kv_heads; }
  std::string text() const {
    std::ostringstream s;
    s << "heads " << heads << "/" << kv_heads << " d " << head_dim << " hidden " << hidden
      << " page " << page_size << " hnd " << heads_first << " interleaved " << interleaved
      << " last " << rotate_last << " rotary " << rotary << " norm " << norm << " bias " << bias
      << " taps " << taps << " clip " << clip << " half " << (type == Type::kFloat16)
      << " sequences";
    for (const auto& [rows, cached] : sequences) s << ' ' << rows << '+' << cached;
    return s.str();
  }
};

inline std::size_t at(int i) { return static_cast<std::size_t>(i); }

using Bits = std::vector<std::uint16_t>;

/// What a call writes.
struct Outputs {
  Bits qkv, q_norm, k_norm, q_rope, k_rope, zeros, k, v;

  Outputs(const Problem& p, int tokens, int pages) {
    const auto make = [](int count) { return Bits(at(count), kUnwritten); };
    qkv = make(tokens * p.all_heads() * p.head_dim);
    q_norm = q_rope = zeros = make(tokens * p.heads * p.head_dim);
    k_norm = k_rope = make(tokens * p.kv_heads * p.head_dim);
    k = v = make(pages * p.page_size * p.kv_heads * p.head_dim);
  }
};

struct Memory {
  explicit Memory(const Problem& p, std::uint64_t seed) : random(seed) {
    const auto whole = [&](int most) {
      return static_cast<float>(std::uniform_int_distribution<int>(-most, most)(random));
    };
    int most_position = 1;
    offsets.push_back(0);
    for (const auto& [rows, cached] : p.sequences) {
      offsets.push_back(offsets.back() + static_cast<std::uint32_t>(rows));
      lengths.push_back(static_cast<std::uint32_t>(cached));
      most_position = std::max(most_position, rows + cached);
      columns = std::max(columns, (rows + cached + p.page_size - 1) / p.page_size);
    }
    tokens = static_cast<int>(offsets.back()) + kBehind;
    pages = columns * static_cast<int>(p.sequences.size()) + 2;
    for (int i = 0; i < pages; ++i) table.push_back(static_cast<std::uint32_t>(i));
    std::shuffle(table.begin(), table.end(), random);
    const int width = p.all_heads() * p.head_dim;
    for (int i = 0; i < tokens * p.hidden; ++i) {
      // Rows behind the last sequence may hold anything.
      const bool owned = i < static_cast<int>(offsets.back()) * p.hidden;
      x.push_back(owned ? to_bits(whole(3), p.type) : kUnwritten);
    }
    for (int i = 0; i < width * p.hidden; ++i) w.push_back(to_bits(whole(3), p.type));
    for (int i = 0; i < width; ++i) bias.push_back(whole(40) / 2);
    std::uniform_real_distribution<float> angle(-3.0f, 3.0f);
    for (int i = 0; i < most_position * p.rotary / 2; ++i) {
      const float a = angle(random);
      angles.push_back(std::cos(a));
      angles.push_back(std::sin(a));
    }
    for (auto* gamma : {&q_gamma, &k_gamma}) {
      for (int i = 0; i < p.head_dim; ++i) gamma->push_back(1.0f + angle(random) / 4);
    }
  }
  std::mt19937_64 random;
  int tokens = 0, columns = 1, pages = 0;
  std::vector<std::uint32_t> offsets, lengths, table;
  Bits x, w;
  std::vector<float> bias, angles, q_gamma, k_gamma;
};

struct CacheStrides {
  int page, token, head;
};
inline CacheStrides strides_of(const Problem& p) {
  return {p.page_size * p.kv_heads * p.head_dim,
          p.heads_first ? p.head_dim : p.kv_heads * p.head_dim,
          p.heads_first ? p.page_size * p.head_dim : p.head_dim};
}

/// The channels of a head after each step, rounded where head_pass.h says, or nowhere.
template <typename Float>
struct Head {
  std::vector<Float> projected, normed, roped;
};
template <typename Float>
Head<Float> make_head(const Problem& p, const Memory& m, int row, int head, int position) {
  const auto round = [&](Float x) {
    if constexpr (std::is_same_v<Float, float>) return from_bits(to_bits(x, p.type), p.type);
    return x;
  };
  Head<Float> result;
  for (int d = 0; d < p.head_dim; ++d) {
    const int column = head * p.head_dim + d;
    Float sum = 0;
    for (int k = 0; k < p.hidden; ++k) {
      sum += static_cast<Float>(from_bits(m.x[at(row * p.hidden + k)], p.type)) *
             static_cast<Float>(from_bits(m.w[at(column * p.hidden + k)], p.type));
    }
    if (p.bias) sum += static_cast<Float>(m.bias[at(column)]);
    if (p.clip < kNoBound) {
      sum = std::clamp(sum, -static_cast<Float>(p.clip), static_cast<Float>(p.clip));
    }
    result.projected.push_back(round(sum));
  }
  result.normed = result.projected;
  const bool is_v = head >= p.heads + p.kv_heads;
  if (p.norm && !is_v) {
    Float squares = 0;
    for (const Float x : result.projected) squares += x * x;
    const Float mean = squares / static_cast<Float>(p.head_dim);
    const Float inverse = Float(1) / std::sqrt(mean + static_cast<Float>(1e-5f));
    const auto& gamma = head < p.heads ? m.q_gamma : m.k_gamma;
    for (int d = 0; d < p.head_dim; ++d) {
      const Float scaled = result.projected[at(d)] * inverse;
      result.normed[at(d)] = round(scaled * static_cast<Float>(gamma[at(d)]));
    }
  }
  result.roped = result.normed;
  const int first = p.rotate_last ? p.head_dim - p.rotary : 0;
  for (int pair = 0; !is_v && pair < p.rotary / 2; ++pair) {
    const int a = first + (p.interleaved ? 2 * pair : pair);
    const int b = a + (p.interleaved ? 1 : p.rotary / 2);
    const auto c = static_cast<Float>(m.angles[at(position * p.rotary + 2 * pair)]);
    const auto s = static_cast<Float>(m.angles[at(position * p.rotary + 2 * pair + 1)]);
    const Float x = result.normed[at(a)];
    const Float y = result.normed[at(b)];
    const Float ys = y * s;
    const Float yc = y * c;
    result.roped[at(a)] = round(std::fma(x, c, -ys));
    result.roped[at(b)] = round(std::fma(x, s, yc));
  }
  return result;
}

/// Largest distance of a rounded head from the float64 one, in units of its largest value.
inline double distance(const std::vector<float>& a, const std::vector<double>& b) {
  double most = 1e-3;
  double error = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(b[i]));
    error = std::max(error, std::abs(double{a[i]} - b[i]));
  }
  return error / most;
}

/// Everything that a call must leave; "" or where the roundings stray from float64.
inline std::string expect(const Problem& p, const Memory& m, Outputs& out) {
  const CacheStrides strides = strides_of(p);
  const auto put = [&](Bits& to, int where, const std::vector<float>& values) {
    for (int d = 0; d < p.head_dim; ++d) to[at(where + d)] = to_bits(values[at(d)], p.type);
  };
  // Three roundings, each half a unit in the last place of the largest value.
  const double tolerance = 3.0 * (p.type == Type::kFloat16 ? 0x1p-11 : 0x1p-8);
  for (int b = 0; b < static_cast<int>(p.sequences.size()); ++b) {
    for (int i = 0; i < p.sequences[at(b)][0]; ++i) {
      const int row = static_cast<int>(m.offsets[at(b)]) + i;
      const int position = p.sequences[at(b)][1] + i;
      for (int head = 0; head < p.all_heads(); ++head) {
        const Head<float> h = make_head<float>(p, m, row, head, position);
        const Head<double> exact = make_head<double>(p, m, row, head, position);
        if (distance(h.roped, exact.roped) > tolerance) return "the expectation is off float64";
        const bool is_q = head < p.heads;
        const bool is_v = head >= p.heads + p.kv_heads;
        const int kv = head - p.heads - (is_v ? p.kv_heads : 0);
        const int q_at = (row * p.heads + head) * p.head_dim;
        const int k_at = (row * p.kv_heads + kv) * p.head_dim;
        if (p.taps) {
          put(out.qkv, (row * p.all_heads() + head) * p.head_dim, h.projected);
          if (p.norm && is_q) put(out.q_norm, q_at, h.normed);
          if (p.norm && !is_q && !is_v) put(out.k_norm, k_at, h.normed);
          if (!is_q && !is_v) put(out.k_rope, k_at, h.roped);
        }
        if (is_q) {
          put(out.q_rope, q_at, h.roped);
          continue;
        }
        const int page = static_cast<int>(m.table[at(b * m.columns + position / p.page_size)]);
        put(is_v ? out.v : out.k,
            page * strides.page + position % p.page_size * strides.token + kv * strides.head,
            h.roped);
      }
    }
  }
  const int owned = static_cast<int>(m.offsets.back()) * p.heads * p.head_dim;
  std::fill(out.zeros.begin() + owned, out.zeros.end(), std::uint16_t{0});
  return "";
}

inline HeadPassArguments arguments_of(const Problem& p, const Memory& m, Outputs& out) {
  HeadPassArguments a;
  a.type = p.type;
  a.num_heads = p.heads;
  a.num_kv_heads = p.kv_heads;
  a.head_dim = p.head_dim;
  a.norm = p.norm;
  a.q_gamma = m.q_gamma.data();
  a.k_gamma = m.k_gamma.data();
  a.eps = 1e-5f;
  a.rope = a.store = true;
  a.freqs_cis = m.angles.data();
  a.rotary_dim = p.rotary;
  a.interleaved = p.interleaved;
  a.rotate_last = p.rotate_last;
  a.q_roped = p.heads > 0 ? out.q_rope.data() : nullptr;
  a.padding_zeros = p.heads > 0 ? out.zeros.data() : nullptr;
  if (p.taps) {
    a.q_normed = out.q_norm.data();
    a.k_normed = out.k_norm.data();
    a.k_roped = out.k_rope.data();
  }
  a.batch = {m.offsets.data(), m.lengths.data(), std::ssize(p.sequences), m.tokens, true};
  const CacheStrides s = strides_of(p);
  CacheView& c = a.cache;
  c.k = out.k.data();
  c.v = out.v.data();
  c.type = p.type;
  c.k_page_stride = c.v_page_stride = s.page;
  c.k_token_stride = c.v_token_stride = s.token;
  c.k_head_stride = c.v_head_stride = s.head;
  c.page_table = m.table.data();
  c.table_stride = m.columns;
  c.page_size = p.page_size;
  return a;
}

inline std::string compare(const char* name, const Bits& got, const Bits& wanted, Type type) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    // 0 and -0 are one value: which of them a sum of zeros is depends on nothing that is declared.
    if (got[i] == wanted[i] || ((got[i] | wanted[i]) & 0x7fffU) == 0) continue;
    return std::string(name) + "[" + std::to_string(i) +
           "]: " + std::to_string(from_bits(got[i], type)) + " not " +
           std::to_string(from_bits(wanted[i], type));
  }
  return "";
}

/// The product of a call; `got` for the sums.
inline GemmArguments product_of(const Problem& p, const Memory& m, Outputs& got) {
  GemmArguments product;
  product.x = m.x.data();
  product.w = m.w.data();
  product.bias = p.bias ? m.bias.data() : nullptr;
  product.y = p.taps ? got.qkv.data() : nullptr;
  product.m = m.tokens;
  product.n = p.all_heads() * p.head_dim;
  product.k = p.hidden;
  product.clip = p.clip;
  product.type = product.out_type = p.type;
  return product;
}

/// "" or the first value that is another one.
inline std::string compare(const Outputs& got, const Outputs& wanted, Type type) {
  struct Part {
    const char* name;
    const Bits& got;
    const Bits& wanted;
  };
  for (const Part& part : {Part{"qkv", got.qkv, wanted.qkv},
                           {"q_norm", got.q_norm, wanted.q_norm},
                           {"k_norm", got.k_norm, wanted.k_norm},
                           {"q_rope", got.q_rope, wanted.q_rope},
                           {"k_rope", got.k_rope, wanted.k_rope},
                           {"zeros", got.zeros, wanted.zeros},
                           {"k", got.k, wanted.k},
                           {"v", got.v, wanted.v}}) {
    if (std::string wrong = compare(part.name, part.got, part.wanted, type); !wrong.empty()) {
      return wrong;
    }
  }
  return "";
}

/// Everything but the sequences, from `random`: at most `most_group` heads of q a kv head, and rows
/// of at most 8 `most_depth` columns.
inline Problem draw_layer(std::mt19937_64& random, std::uint64_t seed, int most_group,
                          int most_depth) {
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Problem p;
  p.type = draw(0, 2) == 0 ? Type::kFloat16 : Type::kBFloat16;
  p.head_dim = seed % 2 == 0 ? 128 : 64;
  p.kv_heads = draw(1, 2);
  p.heads = draw(0, 4) == 0 ? 0 : p.kv_heads * draw(1, most_group);
  p.hidden = 8 * draw(1, most_depth);
  p.page_size = std::array{1, 3, 16, 64}[at(draw(0, 3))];
  p.heads_first = draw(0, 1) == 0;
  p.interleaved = draw(0, 1) == 0;
  p.rotary = p.interleaved && draw(0, 1) == 0 ? 2 * draw(1, p.head_dim / 2) : p.head_dim;
  p.rotate_last = draw(0, 1) == 0;
  p.norm = draw(0, 1) == 0;
  p.bias = draw(0, 1) == 0;
  p.taps = draw(0, 1) == 0;
  if (draw(0, 2) == 0) p.clip = static_cast<float>(draw(1, 100));
  return p;
}

}  // namespace attn::gpu
