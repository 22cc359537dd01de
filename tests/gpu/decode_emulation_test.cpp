// The decode kernels themselves on an emulated block (emulator/): everything but the PTX and the
// chip. Memory that nothing may read is NaN. Splits are one block, leave their parts in the
// workspace, are a cluster, or wait for each other's mail; the lean kernel and the general one
// agree to the bit in all of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/gpu/emulated_memory.h"
// After the emulator: kernel source.
#include "gpu/kernels/attention_decode.cuh"
#include "gpu/kernels/attention_decode_lean.cuh"
#include "gpu/kernels/attention_decode_lean_launch.h"

namespace attn::gpu {
namespace {

/// kMailAlone: blocks run one after the other, so that the last one adds up all shares.
enum class Meet { kWorkspace, kCluster, kMail, kMailAlone };

struct Decoded {
  std::string mistake = "not run";
  std::vector<std::uint16_t> out;
  std::vector<float> lse;
};

struct Way {
  bool lean = true;
  int slots = 4;
  int splits = 1;
  Meet meet = Meet::kWorkspace;
  int longer = 0;  ///< keys that the plan expects and that are not there
  bool old_keys_ready = false;
};

/// What the grid before has yet to write is NaN, and numbers that are none, until it is waited for.
void leave_to_previous_grid(const EmulatedCall& p, EmulatedMemory& m, bool old_keys_ready) {
  const auto later = [](auto& now) {
    return [&now, then = now] { std::copy(then.begin(), then.end(), now.begin()); };
  };
  emulator::previous_grid = [q = later(m.q), k = later(m.k.bytes()), v = later(m.v.bytes()),
                             table = later(m.table), lengths = later(m.lengths)] {
    q();
    k();
    v();
    table();
    lengths();
  };
  std::ranges::fill(m.q, kNan);
  if (!old_keys_ready) {
    std::ranges::fill(m.k.bytes(), 0xff);
    std::ranges::fill(m.v.bytes(), 0xff);
    std::ranges::fill(m.table, 0U);
    std::ranges::fill(m.lengths, 5U);
    return;
  }
  for (std::size_t b = 0; b < p.sequences.size(); ++b) {
    if (p.sequences[b][0] == 0) continue;
    const int key = p.sequences[b][1] - 1;
    const std::uint32_t page = m.table[b * static_cast<std::size_t>(m.columns) +
                                       static_cast<std::size_t>(key / p.page_size)];
    for (int head = 0; head < p.kv_heads; ++head) {
      const auto row =
          static_cast<std::ptrdiff_t>(EmulatedMemory::row_of(p, page, key % p.page_size, head));
      const std::ptrdiff_t bytes = p.head_dim * (p.coded ? 1 : 2);
      std::fill_n(m.k.bytes().begin() + row * bytes, bytes, 0xff);
      std::fill_n(m.v.bytes().begin() + row * bytes, bytes, 0xff);
    }
  }
}

template <int kSlots>
using LeanShape = DecodeShape<kLeanHeadDim, kLeanWarps, kSlots, 8, 1, true>;
template <int kSlots>
using GeneralShape = DecodeShape<kLeanHeadDim, kLeanWarps, kSlots, 8, 1>;

template <typename T, typename C, int kSlots>
std::string run_kernel(const Way& way, const LeanDecode& lean, const AttentionArguments& a,
                       const Partials& partials, std::uint64_t seed) {
  const int items = static_cast<int>(a.num_kv_heads);
  emulator::Grid grid{items, way.splits,
                      way.meet == Meet::kWorkspace || way.meet == Meet::kMailAlone ? 1 : way.splits,
                      static_cast<int>(a.batch.batch), 0};
  if (way.lean) {
    using Shape = LeanShape<kSlots>;
    static_assert(sizeof(DecodeShared<C, Shape>) <= kEmulatedShared);
    grid.shared = sizeof(DecodeShared<C, Shape>);
    return emulator::run(grid, Shape::kThreads, seed, {},
                         [&] { attention_decode_lean_kernel<T, C, Shape>(lean, a, partials); });
  }
  using Shape = GeneralShape<kSlots>;
  static_assert(sizeof(DecodeShared<C, Shape>) <= kEmulatedShared);
  grid.shared = sizeof(DecodeShared<C, Shape>);
  grid.x *= grid.y;
  grid.y = 1;
  return emulator::run(grid, Shape::kThreads, seed, {},
                       [&] { attention_decode_kernel<T, C, Shape>(a, partials); });
}

template <typename T, typename C>
std::string run_type(const Way& way, const LeanDecode& lean, const AttentionArguments& a,
                     const Partials& partials, std::uint64_t seed) {
  switch (way.slots) {
    case 2:
      // Two slots of codes are no room for a warp's part.
      return run_kernel < T, C, sizeof(C) == 1 ? 3 : 2 > (way, lean, a, partials, seed);
    case 3:
      return run_kernel<T, C, 3>(way, lean, a, partials, seed);
    default:
      return run_kernel<T, C, 4>(way, lean, a, partials, seed);
  }
}

Decoded decode(const EmulatedCall& p, const Way& way, std::uint64_t seed) {
  EmulatedMemory m(p, seed);
  AttentionArguments a = arguments_of(p, m);
  a.old_keys_ready = way.old_keys_ready;
  leave_to_previous_grid(p, m, way.old_keys_ready);
  AttentionPlan plan;
  plan.decode = true;
  plan.way.lean = true;
  plan.decode_rows = 8;
  plan.max_rows = 1;
  for (const auto& [rows, keys] : p.sequences) {
    plan.max_keys = std::max<std::int64_t>(plan.max_keys, keys);
  }
  plan.max_keys += way.longer;
  plan.splits = way.splits;
  plan.decode_items = a.batch.batch * a.num_kv_heads;
  Decoded result;
  LeanDecode lean = lean_decode(a, plan);
  if (lean.k == nullptr) {
    result.mistake = "not taken";
    return result;
  }
  Partials partials;
  partials.splits = way.splits;
  partials.cluster = way.splits > 1 && way.meet == Meet::kCluster;
  partials.group = p.heads / p.kv_heads;
  partials.planned_rows = 1;
  partials.planned_keys = plan.max_keys;
  const auto rows = static_cast<std::size_t>(way.splits * m.tokens * p.heads);
  std::vector<float> parts(rows * (kLeanHeadDim + 2), std::nanf(""));
  std::vector<std::uint64_t> counters(static_cast<std::size_t>(plan.decode_items), 0);
  partials.out = parts.data();
  partials.max = parts.data() + rows * kLeanHeadDim;
  partials.sum = partials.max + rows;
  partials.counters = reinterpret_cast<unsigned*>(counters.data());
  const bool mail = way.splits > 1 && (way.meet == Meet::kMail || way.meet == Meet::kMailAlone);
  if (mail) lean.words = counters.data();
  AttentionShape shape;
  shape.multiprocessors = static_cast<int>(plan.decode_items * way.splits + 1) / 2;
  shape.decode.mail = true;
  std::vector<float4> letters(static_cast<std::size_t>(mail_floats(shape) / 4 + 1), float4{});
  if (mail) place_mail(partials, plan, reinterpret_cast<float*>(letters.data()));
  if (p.coded) {
    result.mistake = p.type == Type::kFloat16 ? run_type<Half, E4m3>(way, lean, a, partials, seed)
                                              : run_type<Bf16, E4m3>(way, lean, a, partials, seed);
  } else {
    result.mistake = p.type == Type::kFloat16 ? run_type<Half, Half>(way, lean, a, partials, seed)
                                              : run_type<Bf16, Bf16>(way, lean, a, partials, seed);
  }
  if (result.mistake.empty()) result.mistake = judge(p, m, 1);
  for (const std::uint64_t counter : counters) {
    if (counter != 0) result.mistake = "a counter is left";
  }
  std::vector<unsigned char> bytes(letters.size() * sizeof(float4));
  std::memcpy(bytes.data(), letters.data(), bytes.size());
  if (std::ranges::any_of(bytes, [](unsigned char byte) { return byte != 0; })) {
    result.mistake += " mail is left";
  }
  result.out = m.out;
  result.lse = m.lse;
  return result;
}

EmulatedCall one_query(int heads, int kv_heads, std::vector<int> keys) {
  EmulatedCall p;
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.mask = MaskKind::kCausal;
  for (const int n : keys) p.sequences.push_back({n > 0 ? 1 : 0, n});
  return p;
}

void expect_same(const Decoded& x, const Decoded& y, const std::string& what) {
  EXPECT_EQ(x.mistake, "") << what;
  EXPECT_EQ(y.mistake, "") << what;
  EXPECT_EQ(x.out, y.out) << what;
  EXPECT_EQ(std::memcmp(x.lse.data(), y.lse.data(), x.lse.size() * sizeof(float)), 0) << what;
}

}  // namespace

TEST(DecodeEmulation, LeanIsTheGeneralKernelToTheBit) {
  for (const int keys : {1, 15, 16, 17, 128, 129, 300, 520}) {
    EmulatedCall p = one_query(4, 2, {keys});
    p.type = keys % 2 == 0 ? Type::kFloat16 : Type::kBFloat16;
    p.page_size = keys % 3 == 0 ? 16 : 64;
    p.heads_first = keys % 5 == 0;
    p.sinks = keys % 4 == 1;
    const auto seed = static_cast<std::uint64_t>(keys);
    const Decoded general = decode(p, {false, 4, 1, Meet::kWorkspace, 0, false}, seed);
    for (const int slots : {2, 3, 4}) {
      expect_same(general, decode(p, {true, slots, 1, Meet::kWorkspace, 0, false}, seed), p.text());
    }
  }
}

TEST(DecodeEmulation, LeanIsTheGeneralKernelFromCodesToo) {
  for (const int keys : {7, 16, 150, 300}) {
    for (const CacheScales scales :
         {CacheScales::kNone, CacheScales::kTensor, CacheScales::kHead}) {
      EmulatedCall p = one_query(8, 2, {keys});
      p.coded = true;
      p.scales = scales;
      p.type = keys % 2 == 0 ? Type::kFloat16 : Type::kBFloat16;
      p.heads_first = keys % 3 == 0;
      const auto seed = static_cast<std::uint64_t>(keys);
      const Decoded general = decode(p, {false, 4, 1, Meet::kWorkspace, 0, false}, seed);
      expect_same(general, decode(p, {true, 4, 1, Meet::kWorkspace, 0, false}, seed), p.text());
      expect_same(decode(p, {false, 4, 2, Meet::kWorkspace, 0, false}, seed),
                  decode(p, {true, 2, 2, Meet::kMail, 0, false}, seed), p.text());
    }
  }
}

TEST(DecodeEmulation, SplitsMeetInEveryWay) {
  for (const int splits : {2, 3, 6}) {
    EmulatedCall p = one_query(splits == 3 ? 7 : 8, 1, {splits * 128 + 40});
    const auto seed = static_cast<std::uint64_t>(splits);
    const Decoded general = decode(p, {false, 2, splits, Meet::kWorkspace, 0, false}, seed);
    for (const Meet meet : {Meet::kWorkspace, Meet::kCluster, Meet::kMail, Meet::kMailAlone}) {
      expect_same(
          general, decode(p, {true, 2, splits, meet, 0, false}, seed),
          std::to_string(splits) + " splits, way " + std::to_string(static_cast<int>(meet)));
    }
  }
}

/// The kernel before may still be making q and the last keys when old ones are asked for.
TEST(DecodeEmulation, OldKeysComeBeforeTheGridBeforeHasEnded) {
  for (const int keys : {1, 16, 17, 129, 400}) {
    const EmulatedCall p = one_query(4, 2, {keys, 0, 40});
    for (const int splits : {1, 3}) {
      Way way{false, 3, splits, Meet::kWorkspace, 0, true};
      const Decoded general = decode(p, way, 3);
      way.lean = true;
      expect_same(general, decode(p, way, 3), std::to_string(keys));
    }
  }
}

/// A captured call is planned for the longest lengths to come.
TEST(DecodeEmulation, LengthsAreShorterThanPlanned) {
  for (const int longer : {1, 100, 1000}) {
    const EmulatedCall p = one_query(4, 1, {0, 333, 20, 260});
    const Decoded general = decode(p, {false, 3, 3, Meet::kWorkspace, longer, false}, 9);
    for (const Meet meet : {Meet::kWorkspace, Meet::kMail, Meet::kMailAlone}) {
      expect_same(general, decode(p, {true, 3, 3, meet, longer, false}, 9), std::to_string(longer));
    }
  }
}

TEST(DecodeEmulation, RandomCalls) {
  for (std::uint64_t seed = 0; seed < emulated_calls() / 4; ++seed) {
    std::mt19937_64 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    const int kv_heads = draw(1, 2);
    std::vector<int> keys;
    for (int b = draw(1, 3); b > 0; --b) keys.push_back(draw(0, 4) == 0 ? 0 : draw(1, 420));
    EmulatedCall p = one_query(kv_heads * draw(1, 8), kv_heads, keys);
    p.type = draw(0, 1) == 0 ? Type::kFloat16 : Type::kBFloat16;
    p.page_size = 16 << draw(0, 4);
    p.heads_first = draw(0, 1) == 0;
    p.sinks = draw(0, 2) == 0;
    if (draw(0, 1) == 0) p.mask = MaskKind::kNone;
    p.coded = draw(0, 3) == 0;
    if (p.coded) p.scales = static_cast<CacheScales>(draw(0, 2));
    Way way{false,          draw(2, 4), draw(1, 4), Meet::kWorkspace, draw(0, 1) * draw(0, 300),
            draw(0, 1) == 0};
    const Decoded general = decode(p, way, seed);
    way.lean = true;
    way.slots = draw(2, 4);
    way.meet = static_cast<Meet>(draw(0, 3));
    expect_same(general, decode(p, way, seed), std::to_string(seed) + ": " + p.text());
  }
}

}  // namespace attn::gpu
