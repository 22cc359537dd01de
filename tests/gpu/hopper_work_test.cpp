// The arithmetic of the Hopper prefill kernel, run on the host by the functions that the kernel
// calls: order of tiles, steps and masks against the rule, boxes of pages, places of elements. The
// kernel itself needs a device: layer_test.cpp.
#include "gpu/kernels/hopper_work.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gpu/kernels/attention_hopper.h"
// The kernels' own rule of visible keys: plain arithmetic behind CUDA's words.
#define __device__
#define __forceinline__ inline
#include "gpu/kernels/visibility.cuh"
#undef __device__
#undef __forceinline__

namespace attn::gpu {
namespace {

using Random = std::mt19937;
int draw(Random& random, int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(random);
}

/// One sequence under one mask.
struct Problem {
  AttentionArguments a;
  Sequence sequence;
  int pack = 1;
  int keys_per_step = 128;

  int packed_rows() const { return static_cast<int>(sequence.rows) * pack; }
  /// The rule, one key at a time.
  bool sees(int packed_row, int key) const {
    const std::int64_t query = packed_row / pack;
    const std::int64_t p = a.top_left ? query : sequence.keys - sequence.rows + query;
    switch (a.mask) {
      case MaskKind::kNone:
        return true;
      case MaskKind::kCausal:
        return key <= p;
      case MaskKind::kChunked:
        return key <= p && key / a.span == p / a.span;
      case MaskKind::kWindow:
        return key <= p && p - key < a.span;
      case MaskKind::kLookback:
        return p - key < a.span;
    }
    return false;
  }
  KeyRange range(int packed_row) const {
    return visible_keys(a, sequence.keys, position_of(a, sequence, packed_row / pack));
  }
  std::string text() const {
    return "mask " + std::to_string(static_cast<int>(a.mask)) + " span " + std::to_string(a.span) +
           " top_left " + std::to_string(a.top_left) + " rows " + std::to_string(sequence.rows) +
           " keys " + std::to_string(sequence.keys) + " pack " + std::to_string(pack) + " step " +
           std::to_string(keys_per_step);
  }
};

Problem random_problem(Random& random) {
  Problem p;
  p.a.mask = static_cast<MaskKind>(draw(random, 0, 4));
  p.a.span = draw(random, 0, 3) == 0 ? draw(random, 1, 8) : draw(random, 1, 700);
  p.a.top_left = draw(random, 0, 3) == 0;
  p.pack = std::array{1, 2, 4, 8, 16, 64}[static_cast<std::size_t>(draw(random, 0, 5))];
  p.keys_per_step = draw(random, 0, 1) == 0 ? 64 : 128;
  p.sequence.rows = draw(random, 1, 300);
  const int around = draw(random, 0, 3);
  p.sequence.keys = around == 0   ? p.sequence.rows
                    : around == 1 ? draw(random, 0, 200)
                                  : p.sequence.rows + draw(random, 0, 600);
  return p;
}

/// The steps of a tile, as the kernel finds them.
HopperSteps steps_of(const Problem& p, int first_row) {
  const int last_row = std::min(first_row + kHopperRows, p.packed_rows()) - 1;
  return hopper_steps(p.range(first_row).begin, p.range(last_row).end, p.keys_per_step);
}
HopperWalk walk_of(const Problem& p, const HopperSteps& steps, int first_row) {
  const int last_row = std::min(first_row + kHopperGroupRows, p.packed_rows()) - 1;
  return hopper_walk(steps.last, steps.last - steps.first, p.range(last_row).begin,
                     p.range(first_row).end, p.keys_per_step);
}

TEST(HopperOrder, EveryTileOnceLongestFirst) {
  Random random(1);
  for (int repeat = 0; repeat < 300; ++repeat) {
    const int sequences = draw(random, 1, repeat % 10 == 0 ? kHopperMostSequences : 12);
    const int units = draw(random, 1, 9);
    const int section = draw(random, 1, units);
    std::vector<int> keys, row_tiles;
    for (int s = 0; s < sequences; ++s) {
      keys.push_back(draw(random, 0, 5));  // many equal ones
      row_tiles.push_back(hopper_row_tiles(draw(random, 0, 4) == 0 ? 0 : draw(random, 1, 900)));
    }
    std::vector<int> order(static_cast<std::size_t>(sequences), -1);
    for (int s = 0; s < sequences; ++s) {
      order.at(static_cast<std::size_t>(hopper_rank(keys.data(), sequences, s))) = s;
    }
    std::vector<int> first_tile{0};
    for (const int s : order) {
      ASSERT_GE(s, 0);
      first_tile.push_back(first_tile.back() + units * row_tiles.at(static_cast<std::size_t>(s)));
    }
    std::set<std::array<int, 3>> seen;
    int last_rank = 0;
    std::array<int, 2> last_place{-1, 0};  // section, row tile
    for (int index = 0; index < first_tile.back(); ++index) {
      const HopperPlace place = hopper_place(first_tile.data(), sequences, units, section, index);
      const int s = order.at(static_cast<std::size_t>(place.rank));
      EXPECT_TRUE(place.unit >= 0 && place.unit < units);
      EXPECT_TRUE(place.row_tile >= 0 &&
                  place.row_tile < row_tiles.at(static_cast<std::size_t>(s)));
      EXPECT_TRUE(seen.insert({s, place.unit, place.row_tile}).second);
      EXPECT_GE(place.rank, last_rank);
      if (place.rank == last_rank && place.unit / section == last_place[0]) {
        EXPECT_LE(place.row_tile, last_place[1]);
      }
      last_rank = place.rank;
      last_place = {place.unit / section, place.row_tile};
    }
    for (std::size_t r = 1; r < order.size(); ++r) {
      EXPECT_GE(keys.at(static_cast<std::size_t>(order[r - 1])),
                keys.at(static_cast<std::size_t>(order[r])));
    }
  }
}

TEST(HopperSteps, AreThoseInWhichARowSeesAKey) {
  Random random(2);
  int skipped = 0;
  int plain = 0;
  for (int repeat = 0; repeat < 400; ++repeat) {
    const Problem p = random_problem(random);
    SCOPED_TRACE(p.text());
    for (int first = 0; first < p.packed_rows(); first += kHopperRows) {
      const int end = std::min(first + kHopperRows, p.packed_rows());
      const HopperSteps steps = steps_of(p, first);
      const auto all = static_cast<int>((p.sequence.keys + p.keys_per_step - 1) / p.keys_per_step);
      ASSERT_TRUE(steps.first >= 0 && steps.first <= steps.last && steps.last <= all);
      skipped += all - (steps.last - steps.first);
      for (int row = first; row < end; row += p.pack) {
        for (int key = 0; key < p.sequence.keys; ++key) {
          const int step = key / p.keys_per_step;
          const bool walked = step >= steps.first && step < steps.last;
          ASSERT_TRUE(walked || !p.sees(row, key)) << row << " sees " << key;
        }
      }
      for (int group = first; group < end; group += kHopperGroupRows) {
        const HopperWalk walk = walk_of(p, steps, group);
        ASSERT_EQ(walk.steps, steps.last - steps.first);
        ASSERT_TRUE(0 <= walk.first_plain && walk.first_plain <= walk.last_plain &&
                    walk.last_plain <= walk.steps);
        for (int i = 0; i < walk.steps; ++i) {
          bool whole = true;
          const int begin = (steps.last - 1 - i) * p.keys_per_step;
          const int rows = std::min(group + kHopperGroupRows, p.packed_rows());
          for (int row = group; row < rows; ++row) {
            for (int key = begin; whole && key < begin + p.keys_per_step; ++key) {
              whole = key < p.sequence.keys && p.sees(row, key);
            }
          }
          ASSERT_EQ(i >= walk.first_plain && i < walk.last_plain, whole) << group << " step " << i;
          plain += whole ? 1 : 0;
        }
      }
    }
  }
  EXPECT_GT(skipped, 1000);
  EXPECT_GT(plain, 1000);
}

/// Each row of every tile as its thread goes through it, on scores that are NaN wherever the kernel
/// has nothing to show: slots behind the sequence's end.
TEST(HopperSoftmax, WalkedFromTheLastStepGivesTheRow) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Random random(3);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  int unseen = 0;
  for (int repeat = 0; repeat < 150; ++repeat) {
    const Problem p = random_problem(random);
    SCOPED_TRACE(p.text());
    const auto keys = static_cast<int>(p.sequence.keys);
    std::vector<float> score(static_cast<std::size_t>(keys) + 256,
                             std::numeric_limits<float>::quiet_NaN());
    std::vector<float> value(score.size(), 0.0f);  // cleared behind the end
    for (int k = 0; k < keys; ++k) {
      score[static_cast<std::size_t>(k)] = normal(random);
      value[static_cast<std::size_t>(k)] = normal(random);
    }
    const float scale_log2 = 0.3f;
    for (int row = 0; row < p.packed_rows(); row += std::max(1, p.packed_rows() / 40)) {
      const HopperSteps steps = steps_of(p, row / kHopperRows * kHopperRows);
      const HopperWalk walk = walk_of(p, steps, row / kHopperGroupRows * kHopperGroupRows);
      const KeyRange range = p.range(row);
      const int width = range.end > range.begin ? static_cast<int>(range.end - range.begin) : 0;
      float max = -kInfinity;
      float sum = 0.0f;
      float out = 0.0f;
      for (int i = 0; i < walk.steps; ++i) {
        const int step_key = (steps.last - 1 - i) * p.keys_per_step;
        std::vector<float> s(score.begin() + step_key, score.begin() + step_key + p.keys_per_step);
        if (i == 0 || i < walk.first_plain || i >= walk.last_plain) {
          const int from = step_key - static_cast<int>(range.begin);
          for (int c = 0; c < p.keys_per_step; ++c) {
            if (hopper_hidden(from, c, width)) s[static_cast<std::size_t>(c)] = -kInfinity;
          }
        }
        float m = max;
        for (const float x : s) m = std::fmax(m, x);
        const float shift = softmax_shift(m * scale_log2, kInfinity);
        const float correction = std::exp2(max * scale_log2 - shift);
        max = m;
        sum *= correction;
        out *= correction;
        for (int c = 0; c < p.keys_per_step; ++c) {
          const float x = std::exp2(s[static_cast<std::size_t>(c)] * scale_log2 - shift);
          sum += x;
          out += x * value[static_cast<std::size_t>(step_key + c)];
        }
      }
      double expected_sum = 0.0;
      double expected = 0.0;
      for (int k = 0; k < keys; ++k) {
        if (!p.sees(row, k)) continue;
        const double x = std::exp2(double{score[static_cast<std::size_t>(k)]} * double{scale_log2});
        expected_sum += x;
        expected += x * double{value[static_cast<std::size_t>(k)]};
      }
      if (expected_sum == 0.0) {
        ++unseen;
        ASSERT_EQ(sum, 0.0f);
        ASSERT_EQ(out, 0.0f);
        continue;
      }
      ASSERT_NEAR(double{out / sum}, expected / expected_sum, 1e-4) << row;
      ASSERT_NEAR(double{max * scale_log2} + std::log2(double{sum}), std::log2(expected_sum), 1e-4);
    }
  }
  EXPECT_GT(unseen, 20);
}

TEST(HopperBoxes, BringEveryKeyOfAStepAndNoOtherPages) {
  Random random(4);
  for (int repeat = 0; repeat < 2000; ++repeat) {
    const int page_size = 8 * draw(random, 1, repeat % 2 == 0 ? 8 : 40);
    const int keys_per_step = draw(random, 0, 1) == 0 ? 64 : 128;
    const int keys = draw(random, 1, 1000);
    const int piece = hopper_piece(page_size, keys_per_step);
    ASSERT_GT(piece, 0);
    ASSERT_EQ(piece % 8, 0);
    ASSERT_EQ(page_size % piece, 0);
    ASSERT_EQ(keys_per_step % piece, 0);
    const int live_columns = (keys + page_size - 1) / page_size;
    const int step = draw(random, 0, (keys - 1) / keys_per_step);
    const int step_key = step * keys_per_step;
    const int pieces = hopper_pieces(keys, step_key, keys_per_step, piece);
    ASSERT_LE(pieces * piece, keys_per_step);
    std::vector<int> landed(static_cast<std::size_t>(keys_per_step), -1);  // key of a row
    for (int j = 0; j < pieces; ++j) {
      const PagePlace at = page_place(step_key + j * piece, page_size);
      ASSERT_LT(at.column, live_columns) << "a page of no key";
      ASSERT_TRUE(at.slot >= 0 && at.slot + piece <= page_size) << "a box beyond its page";
      for (int r = 0; r < piece; ++r) {
        int& row = landed.at(static_cast<std::size_t>(j * piece + r));
        ASSERT_EQ(row, -1);
        row = at.column * page_size + at.slot + r;
      }
    }
    for (int r = 0; r < keys_per_step; ++r) {
      const int key = landed[static_cast<std::size_t>(r)];
      if (step_key + r < keys) {
        ASSERT_EQ(key, step_key + r);
      } else if (key >= 0) {  // dead slots of a live piece: cleared, or hidden by the mask
        ASSERT_EQ(key, step_key + r);
      }
    }
  }
  for (const int page_size : {0, 1, 4, 7, 12, 100}) EXPECT_EQ(hopper_piece(page_size, 128), 0);
  EXPECT_EQ(hopper_piece(256, 128), 128);
  EXPECT_EQ(hopper_piece(48, 128), 16);
  EXPECT_EQ(hopper_piece(16, 64), 16);
}

TEST(HopperPlaces, SwizzleIsTheCopyEnginesAndKeepsRowsApart) {
  std::set<std::uint32_t> bytes;
  for (std::uint32_t row = 0; row < 128; ++row) {
    std::set<std::uint32_t> banks;  // of the 16-byte chunks that one ldmatrix takes
    for (std::uint32_t byte = 0; byte < 128; ++byte) {
      const std::uint32_t at = swizzle_128(row, byte);
      EXPECT_EQ(at, row * 128 + ((byte / 16) ^ (row % 8)) * 16 + byte % 16);
      EXPECT_EQ(at / 128, row);
      EXPECT_TRUE(bytes.insert(at).second);
    }
    for (std::uint32_t r = row / 8 * 8; r < row / 8 * 8 + 8; ++r) {
      banks.insert(swizzle_128(r, row % 8 * 16) % 128 / 16);
    }
    EXPECT_EQ(banks.size(), 8U);
  }
  EXPECT_EQ(bytes.size(), 128U * 128U);
}

TEST(HopperPlaces, AccumulatorsLieAsDocumentedAndAreTheNextProductsFragments) {
  constexpr int kColumns = 128;
  std::set<std::array<int, 2>> places;
  for (int t = 0; t < 128; ++t) {
    for (int i = 0; i < kColumns / 2; ++i) {
      const int j = i / 4, h = i / 2 % 2, c = i % 2;
      EXPECT_EQ(accumulator_row(t, i), 16 * (t / 32 % 4) + t % 32 / 4 + 8 * h);
      EXPECT_EQ(accumulator_column(t, i), 8 * j + 2 * (t % 4) + c);
      EXPECT_EQ(accumulator_row(t + 128, i), accumulator_row(t, i));
      EXPECT_EQ(accumulator_column(t + 256, i), accumulator_column(t, i));
      EXPECT_TRUE(places.insert({accumulator_row(t, i), accumulator_column(t, i)}).second);
    }
    // A 16x16 of mma.cuh: a0 (g, 2t), a1 (g + 8, 2t), a2 (g, 2t + 8), a3 (g + 8, 2t + 8).
    for (int step = 0; step < kColumns / 16; ++step) {
      for (int r = 0; r < 4; ++r) {
        const int i = 8 * step + 2 * r;  // packed in order
        EXPECT_EQ(accumulator_row(t, i) % 16, t % 32 / 4 + 8 * (r % 2));
        EXPECT_EQ(accumulator_column(t, i), 16 * step + 2 * (t % 4) + 8 * (r / 2));
      }
    }
  }
  EXPECT_EQ(places.size(), 64U * kColumns);
}

/// Codes: each 16 of a step come once, a warp's load from few whole rows of one page, and what
/// eight lanes after each other store lies in eight different groups of banks.
TEST(HopperPlaces, CodesComeOnceAndAreStoredWithoutConflicts) {
  for (const int slabs : {1, 2, 4}) {
    const int loads = hopper_code_loads(slabs);
    std::set<std::array<int, 3>> places;
    for (int load = 0; load < loads; ++load) {
      for (int warp = 0; warp < 4; ++warp) {
        std::set<int> rows, lines;
        for (int lane = 0; lane < 32; ++lane) {
          const HopperCodePlace at = hopper_code_place(slabs, 32 * warp + lane, load);
          EXPECT_TRUE(places.insert({at.slab, at.row, at.chunk}).second);
          EXPECT_TRUE(at.slab >= 0 && at.slab < slabs && at.row >= 0 &&
                      at.row < hopper_keys(slabs) && at.chunk >= 0 && at.chunk < 4);
          rows.insert(at.row);
          lines.insert(at.row * 4 + at.slab / hopper_code_span(slabs));
          // What the kernel adds up for load i: rows after rows, then slabs.
          const HopperCodePlace first = hopper_code_place(slabs, 32 * warp + lane, 0);
          const int passes = hopper_code_passes(slabs);
          EXPECT_EQ(at.row - first.row, load % passes * 4 * hopper_code_rows(slabs));
          EXPECT_EQ(at.slab - first.slab, load / passes * hopper_code_span(slabs));
          EXPECT_EQ(at.chunk, first.chunk);
          EXPECT_EQ(at.row % 8, first.row % 8) << "another swizzle";
        }
        EXPECT_EQ(std::ssize(rows), hopper_code_rows(slabs));
        EXPECT_EQ(std::ssize(lines), hopper_code_rows(slabs));
        EXPECT_EQ(*rows.begin() / 8, *rows.rbegin() / 8) << "rows of two pages";
        EXPECT_EQ(*rows.begin() % hopper_code_rows(slabs), 0);
        for (int first = 0; first < 32; first += 8) {
          for (int half = 0; half < 2; ++half) {
            std::set<std::uint32_t> banks;
            for (int lane = first; lane < first + 8; ++lane) {
              const HopperCodePlace at = hopper_code_place(slabs, 32 * warp + lane, load);
              banks.insert(swizzle_128(static_cast<std::uint32_t>(at.row),
                                       static_cast<std::uint32_t>(at.chunk * 32 + half * 16)) %
                           128);
            }
            EXPECT_EQ(banks.size(), 8U);
          }
        }
      }
    }
    EXPECT_EQ(std::ssize(places), slabs * hopper_keys(slabs) * 4);
  }
  EXPECT_EQ(hopper_code_slabs(1), 1);
  EXPECT_EQ(hopper_code_slabs(2), 2);
  EXPECT_EQ(hopper_code_slabs(3), 4);
  EXPECT_EQ(hopper_code_slabs(4), 4);
}

/// Outputs go through shared memory: four 8x8 matrices a time (PTX, stmatrix), then rows of chunks.
/// Of products of codes: what a thread has of 32 columns of scores is its fragment of a product 32
/// deep whose depths are keys in the order of fp8_key(), and eight threads store into all banks.
TEST(HopperPlaces, SumsOfScoresAreTheNextProductsCodes) {
  for (int thread = 0; thread < 128; ++thread) {
    for (int word = 0; word < 4; ++word) {
      for (int byte = 0; byte < 4; ++byte) {
        // PTX, m64n8k32 of 8-bit types: rows lane / 4 and 8 further, four depths from 4 (lane % 4).
        const int row = 16 * (thread / 32) + thread % 32 / 4 + 8 * (word % 2);
        const int depth = 16 * (word / 2) + 4 * (thread % 4) + byte;
        const int i = 8 * (word / 2) + 2 * (word % 2) + byte / 2 * 4 + byte % 2;
        EXPECT_EQ(accumulator_row(thread, i), row);
        EXPECT_EQ(accumulator_column(thread, i), depth / 16 * 16 + fp8_key(depth % 16));
      }
    }
  }
  for (int turn = 0; turn < 4; ++turn) {
    for (int first = 0; first < 128; first += 8) {
      std::set<std::uint32_t> banks;
      for (int thread = first; thread < first + 8; ++thread) {
        const int row = 4 * (thread % 32) + fp8_channel(thread, turn);
        banks.insert(swizzle_128(static_cast<std::uint32_t>(row), 48) % 128);
      }
      EXPECT_EQ(banks.size(), 8U);
    }
  }
}

TEST(HopperPlaces, QueriesAreScaledByPowersOfTwo) {
  for (const float amax : {0.0f, 1e-45f, 1e-38f, 1e-30f, 0.3f, 1.0f, 1.99f, 2.0f, 448.0f, 3e38f}) {
    const Fp8RowScale scale = fp8_row_scale(std::bit_cast<std::uint32_t>(amax));
    const float times = std::bit_cast<float>(scale.times);
    EXPECT_EQ(times * std::bit_cast<float>(scale.back), 1.0f) << amax;
    EXPECT_LT(amax * times, 256.0f) << amax;
    if (amax > 1e-35f) {
      EXPECT_GE(amax * times, 128.0f) << amax;
    }
  }
  for (const float amax : {INFINITY, NAN}) {
    const Fp8RowScale scale = fp8_row_scale(std::bit_cast<std::uint32_t>(amax));
    EXPECT_TRUE(std::isnan(std::bit_cast<float>(scale.back)));
  }
}

TEST(HopperPlaces, OutputsLeaveSharedMemoryInTheirRows) {
  constexpr int kSlabs = 4;
  // Of each warp its slabs of 16 rows; row * 1000 + column of each element.
  std::vector<int> memory(4 * kSlabs * 16 * 64, -1);
  const auto place = [&](int warp, int slab, std::uint32_t byte) {
    EXPECT_LT(byte, 2048U);
    return static_cast<std::size_t>(warp * kSlabs + slab) * 1024 + byte / 2;
  };
  for (int warp = 0; warp < 4; ++warp) {
    for (int i = 0; i < kSlabs * 4; ++i) {
      for (int lane = 0; lane < 32; ++lane) {
        for (int m = 0; m < 4; ++m) {
          for (int c = 0; c < 2; ++c) {
            // Register m of this lane: row lane / 4 of matrix m, whose address lane 8 m + row
            // gives.
            const int thread = 32 * warp + lane;
            const int giver = 32 * warp + 8 * m + lane / 4;
            const std::uint32_t byte = output_store_byte(giver, i) + 4U * (lane % 4) + 2U * c;
            const int element = 8 * i + 2 * m + c;
            memory.at(place(warp, i / 4, byte)) =
                1000 * accumulator_row(thread, element) + accumulator_column(thread, element);
          }
        }
      }
    }
  }
  std::set<std::array<int, 2>> copied;
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < kSlabs * 4; ++i) {
      const int row = output_row(thread, i);
      const int column = i / 4 * 64 + output_chunk(thread) * 8;
      EXPECT_TRUE(copied.insert({16 * (thread / 32) + row, column}).second);
      for (int e = 0; e < 8; ++e) {
        const std::uint32_t byte =
            swizzle_128(static_cast<std::uint32_t>(row),
                        static_cast<std::uint32_t>(output_chunk(thread) * 16)) +
            2U * static_cast<std::uint32_t>(e);
        ASSERT_EQ(memory.at(place(thread / 32, i / 4, byte)),
                  1000 * (16 * (thread / 32) + row) + column + e);
      }
    }
  }
  EXPECT_EQ(copied.size(), 64U * kSlabs * 8);
}

}  // namespace
}  // namespace attn::gpu
