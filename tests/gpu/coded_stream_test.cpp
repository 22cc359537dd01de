// The streamed products of gguf's weights with int8 activations: the kernels' own source and the
// packing of the layer on an emulated block (emulator/), to the bit against the reference's reading
// of the stored blocks: its codes of x, sums of whole numbers, and float32 from there on in the
// order that the plan says. And that against float64.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tests/gpu/coded_stream_problem.h"
// After the emulator: kernel source.
#include "gpu/kernels/coded_stream.h"
#include "gpu/kernels/coded_stream_bytes.cuh"
#include "gpu/kernels/coded_stream_one_codes.cuh"
#include "reference/formats/gguf.h"

namespace attn::gpu {
namespace {

using namespace stream_test;
using reference::GgufFields;

template <CodeKind kKind, bool kSuper>
std::string run_kernel(const CodedGemmArguments& a, const StreamImage& image, const void* from,
                       const CodedStreamPlan& plan, std::uint64_t seed) {
  return emulator::run(plan.blocks, kStreamThreads, seed, {}, [&] {
    if (image.room == 1) {  // q4_k's is coded_stream_one_codes
      coded_stream<kKind, kSuper, 1>(a, image, from, plan.tiles);
    } else if (image.room == 8) {
      coded_stream<kKind, kSuper, 8>(a, image, from, plan.tiles);
    } else {
      coded_stream<kKind, kSuper, 16>(a, image, from, plan.tiles);
    }
  });
}

/// As coded_stream() launches.
std::string launch(const CodedGemmArguments& a, const CodedStreamPlan& plan, char* image_memory,
                   std::uint64_t seed) {
  if (plan.one_row) {
    return emulator::run(plan.blocks, kStreamThreads, seed, {},
                         [&] { coded_stream_one_codes(a, plan.tiles, plan.early); });
  }
  const StreamImage image = stream_image_of(a.w, a.m, a.k);
  const void* from = nullptr;
  if (!plan.fused) {
    const std::string wrong = emulator::run((image.rows * image.units + 3) / 4, 128, seed, {},
                                            [&] { stream_codes<4>(a, image, image_memory); });
    if (!wrong.empty()) return "codes: " + wrong;
    from = image_memory;
  }
  if (a.w.outer.bytes == 0) {
    return a.w.kind == CodeKind::kI8 ? run_kernel<CodeKind::kI8, false>(a, image, from, plan, seed)
                                     : run_kernel<CodeKind::kU4, false>(a, image, from, plan, seed);
  }
  if (a.w.kind == CodeKind::kU4) return run_kernel<CodeKind::kU4, true>(a, image, from, plan, seed);
  if (a.w.kind == CodeKind::kU5) return run_kernel<CodeKind::kU5, true>(a, image, from, plan, seed);
  return run_kernel<CodeKind::kU6, true>(a, image, from, plan, seed);
}

/// What a row of x and one of W make, of the reference's codes and blocks.
struct Expected {
  float y = 0.0f;          ///< as the kernel adds
  double exact = 0.0;      ///< the same terms in float64, products of whole numbers exact
  double magnitude = 0.0;  ///< sum of |terms| and of what mins take from them
};
Expected expected_at(const Problem& p, const Tensor& stored, const CodedStreamPlan& plan,
                     const std::vector<reference::QuantisedBlock>& x, int n) {
  const GgufBlock size = gguf_block(p.format.encoding);
  const std::int64_t blocks = p.width / size.elements;
  const std::int64_t of_stage = p.format.encoding == QuantEncoding::kQ8_0   ? 4
                                : p.format.encoding == QuantEncoding::kQ4_0 ? 8
                                                                            : 1;
  const std::int64_t stages = (blocks + of_stage - 1) / of_stage;
  const std::int64_t tile = n / kCodedTile % plan.tiles;
  const std::int64_t left =
      (p.out + kCodedTile - 1) / kCodedTile - n / kCodedTile / plan.tiles * plan.tiles;
  const std::int64_t tiles = std::min<std::int64_t>(left, plan.tiles);
  const auto jobs = static_cast<int>(tiles * stages);
  Expected e;
  for (int warp = 0; warp < kStreamWarps; ++warp) {
    float sum = 0.0f;
    for (int job = first_stream_job(jobs, warp); job < first_stream_job(jobs, warp + 1); ++job) {
      if (job % tiles != tile) continue;
      const std::int64_t first = job / tiles * of_stage;
      float of_job = 0.0f;
      for (std::int64_t b = first; b < std::min(first + of_stage, blocks); ++b) {
        const GgufFields block = reference::unpack_gguf(
            p.format.encoding,
            stored.bytes().subspan(at((n * blocks + b) * size.bytes), at(size.bytes)));
        const reference::QuantisedBlock& codes = x[at(b)];
        std::int64_t products = 0;
        std::int64_t minima = 0;
        for (std::int64_t i = 0; i < size.elements; ++i) {
          const auto code = static_cast<std::int64_t>(codes.code[i]);
          products += block.scale[at(i / block.group)] * block.code[at(i)] * code;
          minima += block.min[at(i / block.group)] * code;
        }
        const auto scale = static_cast<float>(codes.scale);
        if (size.elements == 32) {
          of_job = std::fma(static_cast<float>(products) * scale, block.d, of_job);
        } else {
          const float t =
              static_cast<float>(products) * block.d - static_cast<float>(minima) * block.dmin;
          of_job = of_job + t * scale;
        }
        const double with = static_cast<double>(products) * static_cast<double>(block.d);
        const double without = static_cast<double>(minima) * static_cast<double>(block.dmin);
        e.exact += (with - without) * codes.scale;
        e.magnitude += (std::abs(with) + std::abs(without)) * codes.scale;
      }
      sum += of_job;
    }
    e.y += sum;
  }
  return e;
}

/// "" or the first mistake of a product.
std::string mistake_in(const Problem& p, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const Tensor stored = random_blocks(p, random);
  const Weight weight(p, stored);
  const Input x(p, random);
  if (const std::string why = stream_refusal(weight.matrix); !why.empty()) return why;
  const CodedStreamPlan plan = plan_coded_stream(weight.matrix, p.rows, p.width, p.block(),
                                                 p.multiprocessors, kEmulatedShared);
  if (!plan.taken) return "not taken";
  emulator::copy_only_from(weight.places);
  std::vector<char> image(plan.image_bytes + 16, 0x55);
  std::vector<float> bias;
  std::normal_distribution<float> normal;
  for (int n = 0; n < p.out; ++n) bias.push_back(normal(random));
  const int stride = p.out + 3;
  std::vector<float> y(at(p.rows * stride), std::numeric_limits<float>::quiet_NaN());
  std::vector<std::uint16_t> y16(y.size(), 0x7fff);
  CodedGemmArguments a;
  a.w = weight.matrix;
  a.x = x.data(p);
  a.x_type = a.out_type = p.type;
  a.x_stride = p.width;
  a.bias = p.bias ? bias.data() : nullptr;
  a.clip = p.clip;
  a.y = p.type == Type::kFloat32 ? static_cast<void*>(y.data()) : static_cast<void*>(y16.data());
  a.y_stride = stride;
  a.m = p.rows;
  a.n = p.out;
  a.k = p.width;
  // Aligned as workspaces are.
  char* const image_at =
      image.data() + (16 - reinterpret_cast<std::uintptr_t>(image.data()) % 16) % 16;
  if (const std::string wrong = launch(a, plan, image_at, seed); !wrong.empty()) return wrong;
  if (emulator::wrote_behind(plan.shared_bytes)) return "more shared memory than planned";
  const std::int64_t blocks = p.width / p.block();
  for (int m = 0; m < p.rows; ++m) {
    std::vector<reference::QuantisedBlock> codes;
    for (std::int64_t b = 0; b < blocks; ++b) {
      Eigen::RowVectorXd values(p.block());
      for (std::int64_t i = 0; i < p.block(); ++i) {
        values[i] = static_cast<double>(x.values[at(m * p.width + b * p.block() + i)]);
      }
      codes.push_back(
          reference::quantise_int8(values, reference::Rounding(reference::Mode::kFaithful)));
    }
    for (int n = 0; n < stride; ++n) {
      std::ostringstream where;
      where << "row " << m << ", column " << n << ": ";
      const std::size_t i = at(m * stride + n);
      const float got = p.type == Type::kFloat32 ? y[i] : from_bits(y16[i], p.type);
      if (n >= p.out) {
        if (!std::isnan(got)) return where.str() + "written, and not of this product";
        continue;
      }
      const Expected e = expected_at(p, stored, plan, codes, n);
      // Each term is rounded up to four times, each warp's sum and the sums' sum once a term.
      const double allowed = 0x1p-24 * (6.0 + static_cast<double>(blocks) + kStreamWarps);
      if (std::abs(static_cast<double>(e.y) - e.exact) > allowed * e.magnitude) {
        return where.str() + "what is expected is itself wrong";
      }
      float want = e.y;
      if (p.bias) want += bias[at(n)];
      want = std::clamp(want, -p.clip, p.clip);
      if (p.type != Type::kFloat32) want = from_bits(to_bits(want, p.type), p.type);
      if (got != want) {
        where << got << ", wanted " << want;
        return where.str();
      }
    }
  }
  return "";
}

std::uint64_t mixes(std::uint64_t fewest) {
  const char* const more = std::getenv("ATTN_EMULATED_CALLS");
  return more != nullptr ? std::strtoull(more, nullptr, 10) : fewest;
}

TEST(CodedStream, EqualsTheReferenceToTheBit) {
  for (std::uint64_t seed = 0; seed < mixes(60); ++seed) {
    std::mt19937_64 random(seed ^ 0x5eed);
    const auto draw = [&](int from, int to) {
      return std::uniform_int_distribution<int>(from, to)(random);
    };
    Problem p;
    p.format = kFormats.at(seed % kFormats.size());
    // Rings that turn, and stages that no warp has.
    const bool deep = seed / 5 % 3 == 0;
    p.width = p.block() == kStreamUnit ? kStreamUnit * (deep ? draw(6, 16) : draw(1, 5))
                                       : 32 * (deep ? draw(60, 130) : draw(2, 40));
    p.out = 2 * (deep ? draw(56, 64) : draw(1, 60));
    p.rows = seed / 5 % 4 == 0 ? 1 : draw(1, deep ? 3 : kMostStreamRows);
    p.type = std::array{Type::kFloat32, Type::kBFloat16, Type::kFloat16}.at(random() % 3);
    p.bias = random() % 2 == 0;
    p.clip = random() % 3 != 0 ? kNoBound : seed % 4 == 0 ? 0.0f : 1.5f;
    p.multiprocessors = deep ? 1 : draw(1, 9);
    EXPECT_EQ(mistake_in(p, seed), "") << "seed " << seed << ": " << p.text();
  }
}

/// One row of x by the kernel of its own: few stages and many, blocks that ask for the others.
TEST(CodedStream, TakesOneRowByItself) {
  for (std::uint64_t seed = 0; seed < mixes(40); ++seed) {
    std::mt19937_64 random(seed ^ 0x0e4);
    Problem p;
    p.format = kFormats.at(2);
    p.width = kStreamUnit * std::uniform_int_distribution<int>(1, seed % 4 == 0 ? 40 : 9)(random);
    p.out = 2 * std::uniform_int_distribution<int>(1, 35)(random);
    p.type = std::array{Type::kFloat32, Type::kBFloat16, Type::kFloat16}.at(random() % 3);
    p.bias = random() % 2 == 0;
    p.clip = random() % 3 != 0 ? kNoBound : 1.5f;
    p.multiprocessors = std::uniform_int_distribution<int>(1, 4)(random);
    EXPECT_EQ(mistake_in(p, seed), "") << "seed " << seed << ": " << p.text();
  }
}

TEST(CodedStream, TakesEachNumberOfRows) {
  for (int rows = 1; rows <= kMostStreamRows; ++rows) {
    for (const Format& format : kFormats) {
      Problem p;
      p.format = format;
      p.rows = rows;
      p.width = 768;
      p.out = 48;
      EXPECT_EQ(mistake_in(p, static_cast<std::uint64_t>(rows)), "") << p.text();
    }
  }
}

/// The largest sums of whole numbers that the formats can make: codes of x all 127, of W the
/// largest, scales and mins too.
TEST(CodedStream, HoldsTheLargestSums) {
  for (const Format& format : kFormats) {
    for (const int fill : {0x00, 0x7f, 0x80, 0xff}) {
      for (const float value : {1.0f, -1.0f}) {
        Problem p;
        p.format = format;
        p.width = 512;
        p.out = 16;
        std::mt19937_64 random(1);
        Tensor stored = random_blocks(p, random);
        const GgufBlock size = gguf_block(format.encoding);
        const std::int64_t head = size.elements == 32                       ? 2
                                  : format.encoding == QuantEncoding::kQ6_K ? 0
                                                                            : 4;
        for (std::int64_t b = 0; b < p.out * p.width / size.elements; ++b) {
          const std::int64_t end = format.encoding == QuantEncoding::kQ6_K ? 208 : size.bytes;
          std::memset(stored.data() + b * size.bytes + head, fill, at(end - head));
        }
        const Weight weight(p, stored);
        const CodedStreamPlan plan =
            plan_coded_stream(weight.matrix, 1, p.width, p.block(), 1, kEmulatedShared);
        ASSERT_TRUE(plan.taken);
        std::vector<float> x(at(p.width), value);
        std::vector<float> y(at(p.out));
        CodedGemmArguments a;
        a.w = weight.matrix;
        a.x = x.data();
        a.x_type = a.out_type = Type::kFloat32;
        a.x_stride = a.k = p.width;
        a.y = y.data();
        a.y_stride = a.n = p.out;
        a.m = 1;
        emulator::copy_only_from(weight.places);
        ASSERT_EQ(launch(a, plan, nullptr, 3), "");
        Eigen::RowVectorXd values =
            Eigen::RowVectorXd::Constant(p.block(), static_cast<double>(value));
        const std::vector<reference::QuantisedBlock> codes(
            at(p.width / p.block()),
            reference::quantise_int8(values, reference::Rounding(reference::Mode::kFaithful)));
        for (int n = 0; n < p.out; ++n) {
          EXPECT_EQ(y[at(n)], expected_at(p, stored, plan, codes, n).y)
              << format.name << ", bytes " << fill << ", x " << value;
        }
      }
    }
  }
}

/// A block of x without numbers to go by.
TEST(CodedStream, TurnsValuesThatAreNoNumbersToWhatIsDeclared) {
  for (const Format& format : kFormats) {
    for (const int rows : {1, 3}) {
      Problem p;
      p.format = format;
      p.rows = rows;
      p.width = 512;
      p.out = 16;
      std::mt19937_64 random(2);
      const Tensor stored = random_blocks(p, random);
      const Weight weight(p, stored);
      const CodedStreamPlan plan =
          plan_coded_stream(weight.matrix, rows, p.width, p.block(), 1, kEmulatedShared);
      ASSERT_TRUE(plan.taken);
      for (const float odd :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
            -std::numeric_limits<float>::infinity(), 1e-38f, 0.0f}) {
        std::vector<float> x(at(rows * p.width), 0.0f);
        x[at((rows - 1) * p.width + 300)] = odd;
        std::vector<float> y(at(rows * p.out));
        std::vector<char> image(plan.image_bytes + 16);
        CodedGemmArguments a;
        a.w = weight.matrix;
        a.x = x.data();
        a.x_type = a.out_type = Type::kFloat32;
        a.x_stride = a.k = p.width;
        a.y = y.data();
        a.y_stride = a.n = p.out;
        a.m = rows;
        emulator::copy_only_from(weight.places);
        ASSERT_EQ(launch(a, plan, image.data(), 3), "");
        for (int m = 0; m < rows; ++m) {
          for (int n = 0; n < p.out; ++n) {
            const float got = y[at(m * p.out + n)];
            if (m == rows - 1 && !std::isfinite(odd)) {
              EXPECT_TRUE(std::isnan(got)) << format.name << " " << odd;
            } else {
              EXPECT_EQ(got, 0.0f) << format.name << " " << odd;
            }
          }
        }
      }
    }
  }
}

/// Stages that are shared out by whole units: nobody waits for another warp's x.
TEST(CodedStream, MultipliesWithoutMeeting) {
  for (const Format& format : kFormats) {
    for (const int rows : {1, 2, 9}) {
      Problem p;
      p.format = format;
      p.rows = rows;
      p.width = 4096;
      p.out = 48;
      EXPECT_EQ(mistake_in(p, static_cast<std::uint64_t>(rows)), "") << p.text();
    }
  }
}

/// Where nobody waits, no unit has jobs of two warps.
TEST(CodedStream, WarpsThatDoNotMeetShareNoUnit) {
  int alone = 0;
  for (int jobs = 1; jobs <= 200; ++jobs) {
    for (const int jobs_of_unit : {1, 2, 3, 4, 6, 8, 16}) {
      if (!shares_no_unit(jobs, jobs_of_unit)) continue;
      ++alone;
      for (int warp = 1; warp < kStreamWarps; ++warp) {
        EXPECT_EQ(first_stream_job(jobs, warp) % jobs_of_unit, 0) << jobs << " " << jobs_of_unit;
      }
    }
  }
  EXPECT_GT(alone, 20);
}

TEST(CodedStream, SaysWhatItTakes) {
  Problem p;
  p.format = kFormats[2];
  p.width = 4096;
  p.out = 6144;
  std::mt19937_64 random(1);
  const auto small = [&](Problem q) {
    q.width = 512;
    q.out = 32;
    return Weight(q, random_blocks(q, random)).matrix;
  };
  CodedMatrix w = small(p);
  w.rows = p.out;
  w.chunks = p.width / kCodedChunk;
  const auto plan_of = [&](std::int64_t m, std::size_t limit) {
    return plan_coded_stream(w, m, p.width, 256, 132, limit);
  };
  const CodedStreamPlan one = plan_of(1, 227 * 1024);
  EXPECT_TRUE(one.taken);
  EXPECT_TRUE(one.fused);
  EXPECT_EQ(one.tiles, 2);
  EXPECT_EQ(one.blocks, 192);
  EXPECT_TRUE(one.one_row);
  EXPECT_EQ(one.early, 72);
  EXPECT_EQ(one.image_bytes, 0U);
  EXPECT_LE(2 * (one.shared_bytes + 1024), 228U * 1024);  // two blocks, this call's and the next's
  const CodedStreamPlan most = plan_of(16, 227 * 1024);
  EXPECT_TRUE(most.taken);
  EXPECT_FALSE(most.fused);
  EXPECT_GT(most.image_bytes, 16U * 4096);
  EXPECT_FALSE(plan_of(17, 227 * 1024).taken);
  EXPECT_FALSE(plan_of(0, 227 * 1024).taken);
  EXPECT_EQ(most.tiles, 3);
  EXPECT_EQ(most.blocks, 128);
  EXPECT_EQ(plan_of(4, 227 * 1024).blocks, 192);
  EXPECT_EQ(plan_of(5, 227 * 1024).blocks, 128);
  // Room for fewer tiles, and for none.
  EXPECT_EQ(plan_of(16, most.shared_bytes - 1).tiles, 2);
  EXPECT_EQ(plan_of(16, most.shared_bytes - 1).blocks, 192);
  EXPECT_FALSE(plan_of(1, one.shared_bytes - 1).taken);
  EXPECT_FALSE(plan_coded_stream(w, 1, p.width, 128, 132, 227 * 1024).taken);
  EXPECT_EQ(stream_refusal(w), "");
  CodedMatrix other = w;
  other.inner_type = ScaleType::kFloat16;
  EXPECT_NE(stream_refusal(other), "");
  other = w;
  other.scaling = CodeScaling::kRow;
  EXPECT_NE(stream_refusal(other), "");
  other = w;
  other.chunks = 3;
  EXPECT_NE(stream_refusal(other), "");
  p.format = kFormats[1];
  other = small(p);
  EXPECT_EQ(stream_refusal(other), "");
  other.inner_type = ScaleType::kByte;
  EXPECT_NE(stream_refusal(other), "");
}

}  // namespace
}  // namespace attn::gpu
