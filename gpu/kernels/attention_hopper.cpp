#include "gpu/kernels/attention_hopper.h"

#include <algorithm>
#include <bit>

#include "gpu/kernels/attention_hopper_launch.h"
#include "gpu/kernels/coded_launch.h"
#include "gpu/kernels/hopper_work.h"
#include "gpu/kernels/tensor_map.h"
#include "reference/core/error.h"

namespace attn::gpu {

static_assert(kFp8ProbabilityScale == 1 << kHopperFp8ProbabilityLog2);

namespace {

// Of an L2 of 50 MB, what the keys and values of a section may take.
constexpr std::int64_t kSectionBytes = 32'000'000;
// Bounds of the kernel's 32-bit numbers, far from where they would overflow.
constexpr std::int64_t kMostKeys = std::int64_t{1} << 29;
constexpr std::int64_t kMostPackedRows = std::int64_t{1} << 29;
constexpr std::int64_t kMostTiles = std::int64_t{1} << 29;
constexpr std::int64_t kMostTokenStride = std::int64_t{1} << 28;

int group_of(std::int64_t heads, std::int64_t kv_heads) {
  return static_cast<int>(heads / kv_heads);
}

#ifndef ATTN_FAULTY
// Tensor maps want a number of pages; the cache's is not known here, and pages behind it are in no
// table. So many that neither their number nor the address of the last leaves what a map can hold.
constexpr std::uint64_t kMostPages = std::uint64_t{1} << 31;
constexpr std::uint64_t kMostPoolBytes = std::uint64_t{1} << 47;

CUtensorMap query_map(const AttentionArguments& a, int pack) {
  TensorMapShape<3> shape;
  shape.base = a.q;
  shape.type = a.type;
  shape.sizes = {static_cast<std::uint64_t>(a.head_dim), static_cast<std::uint64_t>(a.num_heads),
                 static_cast<std::uint64_t>(a.batch.tokens)};
  shape.strides = {static_cast<std::uint64_t>(2 * a.head_dim),
                   static_cast<std::uint64_t>(2 * a.head_dim * a.num_heads)};
  shape.box = {kSlabColumns, static_cast<std::uint32_t>(pack),
               static_cast<std::uint32_t>(kHopperGroupRows / pack)};
  return make_tensor_map(shape);
}

CUtensorMap cache_map(const AttentionArguments& a, bool values, int piece) {
  const CacheView& c = a.cache;
  const auto bytes = [](std::int64_t elements) { return static_cast<std::uint64_t>(2 * elements); };
  const std::uint64_t page_bytes = bytes(values ? c.v_page_stride : c.k_page_stride);
  const std::uint64_t pages = std::clamp<std::uint64_t>(kMostPoolBytes / page_bytes, 1, kMostPages);
  TensorMapShape<4> shape;
  shape.base = values ? c.v : c.k;
  shape.type = a.type;
  shape.sizes = {static_cast<std::uint64_t>(values ? a.head_dim_v : a.head_dim),
                 static_cast<std::uint64_t>(c.page_size),
                 static_cast<std::uint64_t>(a.num_kv_heads), pages};
  shape.strides = {bytes(values ? c.v_token_stride : c.k_token_stride),
                   bytes(values ? c.v_head_stride : c.k_head_stride), page_bytes};
  shape.box = {kSlabColumns, static_cast<std::uint32_t>(piece), 1, 1};
  return make_tensor_map(shape);
}

/// Keys of codes, rows of 128 of them; zeros behind head_dim.
CUtensorMap key_code_map(const AttentionArguments& a, int piece) {
  const CacheView& c = a.cache;
  const auto page_bytes = static_cast<std::uint64_t>(c.k_page_stride);
  TensorMapShape<4> shape;
  shape.base = c.k;
  shape.type = c.type;
  shape.sizes = {static_cast<std::uint64_t>(a.head_dim), static_cast<std::uint64_t>(c.page_size),
                 static_cast<std::uint64_t>(a.num_kv_heads),
                 std::clamp<std::uint64_t>(kMostPoolBytes / page_bytes, 1, kMostPages)};
  shape.strides = {static_cast<std::uint64_t>(c.k_token_stride),
                   static_cast<std::uint64_t>(c.k_head_stride), page_bytes};
  shape.box = {kSlabRowBytes, static_cast<std::uint32_t>(piece), 1, 1};
  return make_tensor_map(shape);
}

/// What the kernels' loads and boxes of codes and their 32-bit offsets within eight rows want. A
/// cache of this project has both; one of another making may not.
void check_codes(const AttentionArguments& a, bool fp8) {
  const CacheView& c = a.cache;
  const auto places = {reinterpret_cast<std::int64_t>(c.k),
                       reinterpret_cast<std::int64_t>(c.v),
                       c.k_page_stride,
                       c.k_token_stride,
                       c.k_head_stride,
                       c.v_page_stride,
                       c.v_token_stride,
                       c.v_head_stride};
  const bool aligned =
      std::ranges::all_of(places, [](std::int64_t place) { return place % 16 == 0; });
  if (!aligned || std::max(c.k_token_stride, c.v_token_stride) > kMostTokenStride) {
    throw Error(
        ErrorKind::kUnsupported,
        std::string("cuda: prefill=") + (fp8 ? "fp8" : "hopper") +
            ": a cache of codes whose addresses or strides are no multiples of 16 bytes, or whose "
            "tokens lie " +
            std::to_string(kMostTokenStride) + " bytes or more apart; try prefill=tiled");
  }
}
#endif

/// None where they would be too large.
void plan_images(const HopperShape& s, std::int64_t batch, std::int64_t max_keys,
                 HopperPlan& plan) {
  const std::int64_t slabs = hopper_slabs(std::max(s.head_dim, s.head_dim_v));
  const int instance = static_cast<int>(s.fp8 ? slabs : hopper_code_slabs(slabs));
  const std::int64_t keys = hopper_keys(instance);
  const std::int64_t steps = (max_keys + keys - 1) / keys;
  const std::int64_t images = batch * s.num_kv_heads * steps;
  const std::int64_t of_values =
      s.fp8 ? hopper_turned_bytes(instance) : hopper_widened_bytes(instance);
  const std::int64_t of_keys = s.fp8 ? 0 : of_values;
  if (images > kMostImageBytes / (of_keys + of_values)) return;
  plan.image_steps = static_cast<int>(steps);
  plan.key_image_bytes = static_cast<std::size_t>(images * of_keys);
  plan.value_image_bytes = static_cast<std::size_t>(images * of_values);
}

}  // namespace

std::string hopper_refusal(const HopperShape& s) {
#ifdef ATTN_FAULTY
  static_cast<void>(s);
  return "not part of the library of planted bugs";
#else
  if (s.type != Type::kBFloat16 && s.type != Type::kFloat16) {
    return "activations are neither bfloat16 nor float16";
  }
  const bool coded = s.cache_type == Type::kFloat8E4M3;
  if (s.cache_type != s.type && !coded) {
    return "the cache has neither the type of the activations nor e4m3 codes";
  }
  if (s.head_dim % 8 != 0 || s.head_dim_v % 8 != 0 || std::max(s.head_dim, s.head_dim_v) > 256) {
    return "head_dim " + std::to_string(s.head_dim) + " and " + std::to_string(s.head_dim_v) +
           " are not multiples of 8 up to 256";
  }
  if (coded && (s.head_dim % 16 != 0 || s.head_dim_v % 16 != 0)) {
    return "head_dim " + std::to_string(s.head_dim) + " and " + std::to_string(s.head_dim_v) +
           " of codes are not multiples of 16";
  }
  if (coded && s.token_scales) {
    return "scales of codes by token and head are not implemented, those by tensor or head are";
  }
  if (s.fp8 && !coded) return "products of codes want a cache of e4m3 codes";
  if (s.fp8 && std::max(s.head_dim, s.head_dim_v) > kSlabRowBytes) {
    return "head_dim " + std::to_string(std::max(s.head_dim, s.head_dim_v)) +
           " is not implemented for products of codes, up to 128 is";
  }
  if (hopper_slabs(s.head_dim) != hopper_slabs(s.head_dim_v)) {
    return "head_dim " + std::to_string(s.head_dim) + " and " + std::to_string(s.head_dim_v) +
           " do not fill as many slabs of 64 columns";
  }
  if (hopper_piece(s.page_size, hopper_keys(1)) == 0) {
    return "page_size " + std::to_string(s.page_size) + " is no multiple of 8";
  }
  if (s.page_size >= kMostKeys) return "page_size " + std::to_string(s.page_size) + " is too large";
  if (s.mask_tensor) return "a mask tensor is not implemented";
  if (s.fixed_splits > 0) return "a fixed number of splits is not implemented";
  return "";
#endif
}

std::string hopper_device_refusal() {
#ifndef ATTN_FAULTY
  // The probe is compiled with the other wgmma kernels, for the same architecture.
  if (has_wide_kernels()) return "";
#endif
  const DeviceInfo device = device_info();
  return device.name + " has compute capability " + std::to_string(device.major) + "." +
         std::to_string(device.minor) +
         " and runs no sm_90a code of this build; the kernel is for 9.0, built with "
         "-DCMAKE_CUDA_ARCHITECTURES=90a or 80;90a";
}

HopperPlan plan_hopper(const HopperShape& s, int multiprocessors, std::int64_t batch,
                       std::int64_t max_rows, std::int64_t max_keys, std::int64_t image_tiles) {
  HopperPlan plan;
  const int group = group_of(s.num_heads, s.num_kv_heads);
  const int pack = hopper_pack(group);
  const std::int64_t packed = max_rows * pack;
  const std::int64_t units = s.num_heads / pack;
  if (!hopper_refusal(s).empty() || batch == 0 || batch > kHopperMostSequences) return plan;
  if (max_rows * group <= kDecodeRows) return plan;
  // Without any keys there may be no pool to make a map of.
  if (max_keys == 0 || max_keys > kMostKeys || packed > kMostPackedRows) return plan;
  const std::int64_t row_tiles = (packed + kHopperRows - 1) / kHopperRows;
  const std::int64_t tiles = row_tiles * units * batch;
  if (tiles > kMostTiles) return plan;
  if (s.fp8 || (s.cache_type == Type::kFloat8E4M3 && row_tiles * (group / pack) >= image_tiles)) {
    plan_images(s, batch, max_keys, plan);
  }
  // Units of one kv head share its keys and values.
  const std::int64_t head_bytes =
      std::max<std::int64_t>(1, max_keys * size_of(s.cache_type) * (s.head_dim + s.head_dim_v));
  const std::int64_t kv_heads = std::max<std::int64_t>(1, kSectionBytes / head_bytes);
  plan.section = static_cast<int>(std::min<std::int64_t>(kv_heads * (group / pack), units));
  plan.blocks = static_cast<int>(std::min<std::int64_t>(multiprocessors, tiles));
  plan.fp8 = s.fp8 && plan.image_steps > 0;
  plan.taken = true;
  return plan;
}

void attention_hopper(const AttentionArguments& a, const HopperPlan& plan, unsigned* counter,
                      void* images, StreamHandle stream) {
  if (a.batch.tokens == 0) return;
#ifdef ATTN_FAULTY
  static_cast<void>(plan);
  static_cast<void>(images);
  static_cast<void>(counter);
  static_cast<void>(stream);
#else
  const std::int64_t slabs = hopper_slabs(std::max(a.head_dim, a.head_dim_v));
  HopperCall call;
  call.a = a;
  call.counter = counter;
  call.pack = hopper_pack(group_of(a.num_heads, a.num_kv_heads));
  call.pack_log2 = std::countr_zero(static_cast<unsigned>(call.pack));
  call.units = static_cast<int>(a.num_heads / call.pack);
  call.section = plan.section;
  call.piece = hopper_piece(a.cache.page_size, hopper_keys(static_cast<int>(slabs)));
  if (a.cache.type == Type::kFloat8E4M3) {
    check_codes(a, plan.fp8);
    call.key_images = static_cast<unsigned char*>(images);
    call.value_images = call.key_images + plan.key_image_bytes;
    call.image_steps = plan.image_steps;
    if (plan.fp8) {
      const CUtensorMap map_k = key_code_map(a, call.piece);
      if (slabs == 1) return launch_hopper_fp8<1>(map_k, call, plan.blocks, stream);
      return launch_hopper_fp8<2>(map_k, call, plan.blocks, stream);
    }
    const CUtensorMap map_q = query_map(a, call.pack);
    const std::int64_t wide = hopper_code_slabs(slabs);
    if (plan.image_steps > 0) {
      if (wide == 1) return launch_hopper_images<1>(map_q, call, plan.blocks, stream);
      if (wide == 2) return launch_hopper_images<2>(map_q, call, plan.blocks, stream);
      return launch_hopper_images<4>(map_q, call, plan.blocks, stream);
    }
    if (wide == 1) return launch_hopper_codes<1>(map_q, call, plan.blocks, stream);
    if (wide == 2) return launch_hopper_codes<2>(map_q, call, plan.blocks, stream);
    return launch_hopper_codes<4>(map_q, call, plan.blocks, stream);
  }
  const HopperMaps maps{query_map(a, call.pack), cache_map(a, false, call.piece),
                        cache_map(a, true, call.piece)};
  if (slabs == 1) return launch_hopper<1>(maps, call, plan.blocks, stream);
  if (slabs == 2) return launch_hopper<2>(maps, call, plan.blocks, stream);
  if (slabs == 3) return launch_hopper<3>(maps, call, plan.blocks, stream);
  launch_hopper<4>(maps, call, plan.blocks, stream);
#endif
}

}  // namespace attn::gpu
