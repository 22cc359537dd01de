#include "tests/gpu/emulated_attention.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/gpu/emulated_memory.h"
// After the emulator: kernel source.
#include "gpu/kernels/attention_hopper.cuh"
#include "gpu/kernels/attention_hopper.h"
#include "gpu/kernels/attention_hopper_codes.cuh"
#include "gpu/kernels/attention_hopper_fp8.cuh"
#include "gpu/kernels/attention_hopper_images.cuh"

namespace attn::gpu {

namespace {
std::uint64_t emulated_seed = 0;
std::string emulated_mistake;
}  // namespace
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

template <int kSlabs>
void launch_hopper_codes(const CUtensorMap& map_q, const HopperCall& call, int blocks,
                         cudaStream_t) {
  static_assert(kHopperCodedSharedBytes<Bf16, kSlabs> <= kEmulatedShared);
  emulated_mistake = emulator::run(blocks, kHopperThreads, emulated_seed, emulated_starved, [&] {
    if (call.a.type == Type::kBFloat16) {
      attention_hopper_codes_kernel<Bf16, kSlabs>(map_q, call);
    } else {
      attention_hopper_codes_kernel<Half, kSlabs>(map_q, call);
    }
  });
}
template void launch_hopper_codes<1>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);
template void launch_hopper_codes<2>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);
template void launch_hopper_codes<4>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);

namespace {
/// A pass that makes images. False: it went wrong.
bool make_images(const HopperCall& call, int threads, const std::function<void()>& kernel) {
  const emulator::Grid grid{.x = call.image_steps,
                            .z = static_cast<int>(call.a.batch.batch),
                            .y = static_cast<int>(call.a.num_kv_heads)};
  emulated_mistake = emulator::run(grid, threads, emulated_seed, {}, kernel);
  return emulated_mistake.empty();
}
}  // namespace

template <int kSlabs>
void launch_hopper_images(const CUtensorMap& map_q, const HopperCall& call, int blocks,
                          cudaStream_t) {
  static_assert(kHopperImagesBytes<Bf16, kSlabs> <= kEmulatedShared);
  const bool bf16 = call.a.type == Type::kBFloat16;
  if (!make_images(call, kWidenThreads, [&] {
        if (bf16) {
          widen_images_kernel<Bf16, kSlabs>(call);
        } else {
          widen_images_kernel<Half, kSlabs>(call);
        }
      })) {
    return;
  }
  emulated_mistake = emulator::run(blocks, kHopperThreads, emulated_seed, emulated_starved, [&] {
    if (bf16) {
      attention_hopper_images_kernel<Bf16, kSlabs>(map_q, call);
    } else {
      attention_hopper_images_kernel<Half, kSlabs>(map_q, call);
    }
  });
}
template void launch_hopper_images<1>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);
template void launch_hopper_images<2>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);
template void launch_hopper_images<4>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);

template <int kSlabs>
void launch_hopper_fp8(const CUtensorMap& map_k, const HopperCall& call, int blocks, cudaStream_t) {
  static_assert(kHopperFp8SharedBytes<kSlabs> <= kEmulatedShared);
  if (!make_images(call, kTurnThreads, [&] { turn_images_kernel<kSlabs>(call); })) return;
  emulated_mistake = emulator::run(blocks, kHopperThreads, emulated_seed, emulated_starved, [&] {
    if (call.a.type == Type::kBFloat16) {
      attention_hopper_fp8_kernel<Bf16, kSlabs>(map_k, call);
    } else {
      attention_hopper_fp8_kernel<Half, kSlabs>(map_k, call);
    }
  });
}
template void launch_hopper_fp8<1>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);
template void launch_hopper_fp8<2>(const CUtensorMap&, const HopperCall&, int, cudaStream_t);

std::string run_emulated(const EmulatedCall& p, std::uint64_t seed, int every) {
  EmulatedMemory m(p, seed);
  HopperShape shape{p.type,      p.coded ? Type::kFloat8E4M3 : p.type,
                    p.heads,     p.kv_heads,
                    p.head_dim,  p.head_dim_v,
                    p.page_size, false,
                    0,           p.scales == CacheScales::kTokenHead,
                    p.fp8};
  if (const std::string why = hopper_refusal(shape); !why.empty()) return "refused: " + why;
  int max_rows = 0;
  int max_keys = 0;
  for (const auto& [rows, keys] : p.sequences) {
    max_rows = std::max(max_rows, rows);
    max_keys = std::max(max_keys, keys);
  }
  const HopperPlan plan =
      plan_hopper(shape, p.multiprocessors, std::ssize(p.sequences), max_rows, max_keys,
                  p.images ? 0 : std::numeric_limits<std::int64_t>::max());
  if (!plan.taken) return "not taken";
  if ((plan.image_steps > 0) != (p.images || p.fp8)) return "images, or none, against the call";
  unsigned counter = 0;
  emulated_seed = seed;
  emulated_mistake = "was not launched";
  // Codes of NaN, and as many behind that nobody may write to.
  constexpr unsigned char kUntouched = 0xff;
  constexpr std::size_t kBehind = 4096;
  std::vector<unsigned char> images(plan.image_bytes() + kBehind + 256, kUntouched);
  unsigned char* const first =
      images.data() + (256 - reinterpret_cast<std::uintptr_t>(images.data()) % 256) % 256;
  attention_hopper(arguments_of(p, m), plan, &counter, first, nullptr);
  if (!emulated_mistake.empty()) return emulated_mistake;
  const unsigned char* const behind = first + plan.image_bytes();
  if (std::any_of(behind, behind + kBehind - 256,
                  [](unsigned char x) { return x != kUntouched; })) {
    return "the pass wrote behind the images";
  }
  if (counter != 0) return "the counter is left at " + std::to_string(counter);
  return judge(p, m, every);
}

}  // namespace attn::gpu
