// The Hopper prefill kernel itself, its source and its host code, on an emulated block (emulator/):
// everything but the PTX and the chip. Memory that nothing may read is NaN.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tests/gpu/emulator/bits.h"
#include "tests/gpu/emulator/device.h"
// After the emulator: kernel source.
#include "gpu/kernels/attention_hopper.cuh"
#include "gpu/kernels/attention_hopper.h"

namespace attn::gpu {

std::uint64_t emulated_seed = 0;
std::string emulated_mistake;
emulator::Starved emulated_starved;

template <int kSlabs>
void launch_hopper(const HopperMaps& maps, const HopperCall& call, int blocks, cudaStream_t) {
  static_assert(kHopperSharedBytes<Bf16, kSlabs> <= kEmulatedShared);
  emulated_mistake = emulator::run(blocks, kHopperThreads, emulated_seed, emulated_starved, [&] {
    if (call.a.type == Type::kBFloat16) {
      attention_hopper_kernel<Bf16, kSlabs>(maps.q, maps.k, maps.v, call);
    } else {
      attention_hopper_kernel<Half, kSlabs>(maps.q, maps.k, maps.v, call);
    }
  });
}
template void launch_hopper<1>(const HopperMaps&, const HopperCall&, int, cudaStream_t);
template void launch_hopper<2>(const HopperMaps&, const HopperCall&, int, cudaStream_t);
template void launch_hopper<3>(const HopperMaps&, const HopperCall&, int, cudaStream_t);
template void launch_hopper<4>(const HopperMaps&, const HopperCall&, int, cudaStream_t);

namespace {

/// A call with its memory.
struct Problem {
  Type type = Type::kBFloat16;
  int heads = 1, kv_heads = 1, head_dim = 128, head_dim_v = 128, page_size = 64;
  bool heads_first = false;  ///< in a page
  MaskKind mask = MaskKind::kNone;
  int span = 0;
  bool top_left = false, sinks = false;
  float softcap = 0.0f, scale = 0.1f;
  std::vector<std::array<int, 2>> sequences;  ///< queries, keys
  int multiprocessors = 3;
  int level_rows = -1;  ///< 0 or 1: rows i with i / 8 % 2 like that are 0, and so are their scores

  std::string text() const {
    std::ostringstream s;
    s << "heads " << heads << "/" << kv_heads << " d " << head_dim << "/" << head_dim_v << " page "
      << page_size << " hnd " << heads_first << " mask " << static_cast<int>(mask) << " span "
      << span << " top_left " << top_left << " cap " << softcap << " scale " << scale
      << " sequences";
    for (const auto& [rows, keys] : sequences) s << ' ' << rows << ':' << keys;
    return s.str();
  }
  bool sees(int rows, int keys, int query, int key) const {
    const int p = top_left ? query : keys - rows + query;
    switch (mask) {
      case MaskKind::kNone:
        return true;
      case MaskKind::kCausal:
        return key <= p;
      case MaskKind::kChunked:
        return key <= p && key / span == p / span;
      case MaskKind::kWindow:
        return key <= p && p - key < span;
      case MaskKind::kLookback:
        return p - key < span;
    }
    return false;
  }
};

constexpr std::uint16_t kNan = 0xffff;
constexpr int kPaddingRows = 3;

struct Memory {
  explicit Memory(const Problem& p, std::uint64_t seed) : random(seed) {
    std::normal_distribution<float> normal;
    const auto draw = [&] { return to_bits(normal(random), p.type); };
    int pages = 0;
    offsets.push_back(0);
    for (const auto& [rows, keys] : p.sequences) {
      offsets.push_back(offsets.back() + static_cast<std::uint32_t>(rows));
      lengths.push_back(static_cast<std::uint32_t>(keys));
      columns = std::max(columns, (keys + p.page_size - 1) / p.page_size);
      pages += (keys + p.page_size - 1) / p.page_size;
    }
    columns += 1;
    tokens = static_cast<int>(offsets.back()) + kPaddingRows;
    pool_pages = pages + 2;
    std::vector<std::uint32_t> free;
    for (int i = 0; i < pool_pages; ++i) free.push_back(static_cast<std::uint32_t>(i));
    std::shuffle(free.begin(), free.end(), random);
    // Behind a sequence's pages: one that is no page at all.
    table.assign(p.sequences.size() * static_cast<std::size_t>(columns), 0x7fffff00U);
    q.assign(static_cast<std::size_t>(tokens * p.heads * p.head_dim), kNan);
    for (std::uint32_t i = 0; i < offsets.back() * static_cast<std::uint32_t>(p.heads * p.head_dim);
         ++i) {
      q[i] = draw();
      const auto row = static_cast<int>(i) / (p.heads * p.head_dim);
      if (row / 8 % 2 == p.level_rows) q[i] = 0;
    }
    const std::size_t slots =
        static_cast<std::size_t>(pool_pages) * static_cast<std::size_t>(p.page_size * p.kv_heads);
    k.assign(slots * static_cast<std::size_t>(p.head_dim), kNan);
    v.assign(slots * static_cast<std::size_t>(p.head_dim_v), kNan);
    for (std::size_t b = 0; b < p.sequences.size(); ++b) {
      for (int key = 0; key < p.sequences[b][1]; ++key) {
        std::uint32_t& page = table[b * static_cast<std::size_t>(columns) +
                                    static_cast<std::size_t>(key / p.page_size)];
        if (key % p.page_size == 0) {
          page = free.back();
          free.pop_back();
        }
        for (int h = 0; h < p.kv_heads; ++h) {
          const std::size_t row = row_of(p, page, key % p.page_size, h);
          for (int d = 0; d < p.head_dim; ++d) {
            k[row * static_cast<std::size_t>(p.head_dim) + static_cast<std::size_t>(d)] = draw();
          }
          for (int d = 0; d < p.head_dim_v; ++d) {
            v[row * static_cast<std::size_t>(p.head_dim_v) + static_cast<std::size_t>(d)] = draw();
          }
        }
      }
    }
    out.assign(static_cast<std::size_t>(tokens * p.heads * p.head_dim_v), kNan);
    lse.assign(static_cast<std::size_t>(tokens * p.heads), std::numeric_limits<float>::quiet_NaN());
    for (int h = 0; h < p.heads; ++h) sinks.push_back(normal(random));
  }
  static std::size_t row_of(const Problem& p, std::uint32_t page, int slot, int head) {
    const std::size_t within = p.heads_first ? static_cast<std::size_t>(head * p.page_size + slot)
                                             : static_cast<std::size_t>(slot * p.kv_heads + head);
    return page * static_cast<std::size_t>(p.page_size * p.kv_heads) + within;
  }

  std::mt19937_64 random;
  int tokens = 0, columns = 0, pool_pages = 0;
  std::vector<std::uint32_t> offsets, lengths, table;
  std::vector<std::uint16_t> q, k, v, out;
  std::vector<float> lse, sinks;
};

AttentionArguments arguments_of(const Problem& p, Memory& m) {
  AttentionArguments a;
  a.type = p.type;
  a.q = m.q.data();
  a.out = m.out.data();
  a.lse = m.lse.data();
  a.num_heads = p.heads;
  a.num_kv_heads = p.kv_heads;
  a.head_dim = p.head_dim;
  a.head_dim_v = p.head_dim_v;
  a.scale = p.scale;
  a.softcap = p.softcap;
  a.mask = p.mask;
  a.span = p.span;
  a.top_left = p.top_left;
  a.sinks = p.sinks ? m.sinks.data() : nullptr;
  a.batch = {m.offsets.data(), m.lengths.data(), static_cast<std::int64_t>(p.sequences.size()),
             m.tokens, false};
  CacheView& c = a.cache;
  c.k = m.k.data();
  c.v = m.v.data();
  c.type = p.type;
  const auto strides = [&](int dim, std::int64_t& page, std::int64_t& token, std::int64_t& head) {
    page = static_cast<std::int64_t>(p.page_size) * p.kv_heads * dim;
    token = p.heads_first ? dim : p.kv_heads * dim;
    head = p.heads_first ? p.page_size * dim : dim;
  };
  strides(p.head_dim, c.k_page_stride, c.k_token_stride, c.k_head_stride);
  strides(p.head_dim_v, c.v_page_stride, c.v_token_stride, c.v_head_stride);
  c.page_table = m.table.data();
  c.table_stride = m.columns;
  c.page_size = p.page_size;
  return a;
}

struct Row {
  std::vector<double> out;
  double lse = -std::numeric_limits<double>::infinity();
};
Row expected_row(const Problem& p, const Memory& m, std::size_t b, int query, int head) {
  const auto [rows, keys] = p.sequences[b];
  const int kv_head = head / (p.heads / p.kv_heads);
  const std::size_t q_row =
      (m.offsets[b] + static_cast<std::size_t>(query)) * static_cast<std::size_t>(p.heads) +
      static_cast<std::size_t>(head);
  Row row;
  row.out.assign(static_cast<std::size_t>(p.head_dim_v), 0.0);
  std::vector<double> score(static_cast<std::size_t>(keys),
                            -std::numeric_limits<double>::infinity());
  double most = p.sinks ? double{m.sinks[static_cast<std::size_t>(head)]}
                        : -std::numeric_limits<double>::infinity();
  const auto at = [&](int key) {
    return Memory::row_of(p,
                          m.table[b * static_cast<std::size_t>(m.columns) +
                                  static_cast<std::size_t>(key / p.page_size)],
                          key % p.page_size, kv_head);
  };
  for (int key = 0; key < keys; ++key) {
    if (!p.sees(rows, keys, query, key)) continue;
    double s = 0.0;
    for (std::size_t d = 0; d < static_cast<std::size_t>(p.head_dim); ++d) {
      s += double{from_bits(m.q[q_row * static_cast<std::size_t>(p.head_dim) + d], p.type)} *
           double{from_bits(m.k[at(key) * static_cast<std::size_t>(p.head_dim) + d], p.type)};
    }
    s *= double{p.scale};
    if (p.softcap > 0.0f) s = double{p.softcap} * std::tanh(s / double{p.softcap});
    score[static_cast<std::size_t>(key)] = s;
    most = std::max(most, s);
  }
  if (most == -std::numeric_limits<double>::infinity()) return row;
  double sum = p.sinks ? std::exp(double{m.sinks[static_cast<std::size_t>(head)]} - most) : 0.0;
  for (int key = 0; key < keys; ++key) {
    const double weight = std::exp(score[static_cast<std::size_t>(key)] - most);
    if (weight == 0.0) continue;
    sum += weight;
    for (std::size_t d = 0; d < static_cast<std::size_t>(p.head_dim_v); ++d) {
      row.out[d] +=
          weight *
          double{from_bits(m.v[at(key) * static_cast<std::size_t>(p.head_dim_v) + d], p.type)};
    }
  }
  for (double& x : row.out) x /= sum;
  row.lse = most + std::log(sum);
  return row;
}

/// "" when every row is right and nothing else was written.
std::string run(const Problem& p, std::uint64_t seed, int every = 1) {
  Memory m(p, seed);
  HopperShape shape{p.type,       p.type,      p.heads, p.kv_heads, p.head_dim,
                    p.head_dim_v, p.page_size, false,   0};
  if (const std::string why = hopper_refusal(shape); !why.empty()) return "refused: " + why;
  int max_rows = 0;
  int max_keys = 0;
  for (const auto& [rows, keys] : p.sequences) {
    max_rows = std::max(max_rows, rows);
    max_keys = std::max(max_keys, keys);
  }
  const HopperPlan plan =
      plan_hopper(shape, p.multiprocessors, std::ssize(p.sequences), max_rows, max_keys);
  if (!plan.taken) return "not taken";
  unsigned counter = 0;
  emulated_seed = seed;
  attention_hopper(arguments_of(p, m), plan, &counter, nullptr);
  if (!emulated_mistake.empty()) return emulated_mistake;
  if (counter != 0) return "the counter is left at " + std::to_string(counter);
  // Outputs in the type: half a unit of the largest value, 2^-8 of 4; probabilities rounded to it.
  const double tolerance = p.type == Type::kFloat16 ? 0.004 : 0.03;
  int judged = 0;
  for (std::size_t b = 0; b < p.sequences.size(); ++b) {
    for (int query = 0; query < p.sequences[b][0]; ++query) {
      for (int head = 0; head < p.heads; ++head, ++judged) {
        const std::size_t vector =
            (m.offsets[b] + static_cast<std::size_t>(query)) * static_cast<std::size_t>(p.heads) +
            static_cast<std::size_t>(head);
        const std::string where = " of sequence " + std::to_string(b) + " query " +
                                  std::to_string(query) + " head " + std::to_string(head);
        if (std::isnan(m.lse[vector])) return "no lse" + where;
        if (judged % every != 0) continue;
        const Row row = expected_row(p, m, b, query, head);
        for (std::size_t d = 0; d < row.out.size(); ++d) {
          const double got = double{from_bits(m.out[vector * row.out.size() + d], p.type)};
          if (!(std::abs(got - row.out[d]) <= tolerance)) {
            return "channel " + std::to_string(d) + where + ": " + std::to_string(got) + " not " +
                   std::to_string(row.out[d]);
          }
        }
        const double lse = double{m.lse[vector]};
        if (!(lse == row.lse || std::abs(lse - row.lse) <= 1e-3)) {
          return "lse" + where + ": " + std::to_string(lse) + " not " + std::to_string(row.lse);
        }
      }
    }
  }
  for (std::size_t i = m.offsets.back() * static_cast<std::size_t>(p.heads * p.head_dim_v);
       i < m.out.size(); ++i) {
    if (m.out[i] != kNan) return "a padding row was written";
  }
  return "";
}

TEST(HopperEmulation, OneTileAndOneStep) {
  Problem p;
  p.sequences = {{128, 128}};
  EXPECT_EQ(run(p, 1), "");
}

TEST(HopperEmulation, StepsTailsAndTiles) {
  for (const int keys : {1, 64, 127, 129, 300, 384}) {
    Problem p;
    p.mask = MaskKind::kCausal;
    p.sequences = {{150, keys}};
    EXPECT_EQ(run(p, static_cast<std::uint64_t>(keys)), "") << p.text();
  }
}

/// A thread has two rows, 8 apart. Where one's maximum never rises, outputs are rescaled for the
/// other's.
TEST(HopperEmulation, EitherRowOfAThreadRescales) {
  for (const int level : {0, 1}) {
    Problem p;
    p.sequences = {{128, 500}};
    p.level_rows = level;
    EXPECT_EQ(run(p, 1), "") << level;
  }
}

Problem random_problem(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Problem p;
  p.type = draw(0, 2) == 0 ? Type::kFloat16 : Type::kBFloat16;
  p.kv_heads = draw(1, 2);
  p.heads = p.kv_heads * std::array{1, 2, 3, 4, 8}[static_cast<std::size_t>(draw(0, 4))];
  p.head_dim = std::array{128, 64, 192, 256, 72, 40, 136, 200}[seed % 8];
  p.head_dim_v = p.head_dim > 64 && draw(0, 3) == 0 ? p.head_dim - 8 : p.head_dim;
  if ((p.head_dim_v + 63) / 64 != (p.head_dim + 63) / 64) p.head_dim_v = p.head_dim;
  p.page_size = std::array{8, 16, 24, 48, 64, 128, 256}[static_cast<std::size_t>(draw(0, 6))];
  p.heads_first = draw(0, 1) == 0;
  p.mask = static_cast<MaskKind>(draw(0, 4));
  p.span = draw(0, 1) == 0 ? draw(1, 30) : draw(31, 300);
  p.top_left = draw(0, 3) == 0;
  p.sinks = draw(0, 2) == 0;
  if (draw(0, 3) == 0) p.softcap = 2.0f;
  if (draw(0, 7) == 0) p.scale = -0.1f;
  const int sequences = draw(1, 4);
  for (int b = 0; b < sequences; ++b) {
    const int rows = b == 0 ? draw(17, 90) : draw(0, 2) == 0 ? 0 : draw(1, 60);
    p.sequences.push_back({rows, draw(0, 2) == 0 ? rows : draw(0, 500)});
  }
  return p;
}

/// More sequences than a warp has lanes, some without rows or keys.
TEST(HopperEmulation, ManySequences) {
  Problem p;
  p.heads = 2;
  p.head_dim = p.head_dim_v = 64;
  p.mask = MaskKind::kCausal;
  p.multiprocessors = 5;
  for (int b = 0; b < 70; ++b) {
    p.sequences.push_back({b % 9 == 4 ? 0
                           : b == 0   ? 30
                                      : 1 + b % 5,
                           b % 11 == 3 ? 0 : b * 37 % 150});
  }
  EXPECT_EQ(run(p, 1), "");
}

/// Several tiles, steps and tails, with each warp and some single lanes behind all others.
TEST(HopperEmulation, AnyWarpOrLaneMayComeLast) {
  Problem p;
  p.heads = 4;
  p.head_dim = p.head_dim_v = 64;
  p.page_size = 32;
  p.mask = MaskKind::kCausal;
  p.multiprocessors = 1;
  p.sequences = {{70, 300}, {10, 0}, {20, 140}};
  for (int warp = 0; warp < kHopperThreads / 32; ++warp) {
    for (const emulator::Starved starved :
         {emulator::Starved{32 * warp, 32}, emulator::Starved{32 * warp, 1},
          emulator::Starved{32 * warp + 13, 1}, emulator::Starved{32 * warp + 31, 1}}) {
      emulated_starved = starved;
      EXPECT_EQ(run(p, 1, 11), "") << starved.first << " " << starved.count;
    }
  }
  emulated_starved = {};
}

/// ATTN_EMULATED_CALLS raises their number.
TEST(HopperEmulation, RandomCalls) {
  const char* const wanted = std::getenv("ATTN_EMULATED_CALLS");
  const std::uint64_t calls = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 32;
  for (std::uint64_t seed = 0; seed < calls; ++seed) {
    const Problem p = random_problem(seed);
    EXPECT_EQ(run(p, seed, 7), "") << seed << ": " << p.text();
  }
}

}  // namespace
}  // namespace attn::gpu
