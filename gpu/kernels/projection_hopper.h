#pragma once

#include <cstdint>
#include <string>

#include "gpu/device/device.h"
#include "gpu/kernels/gemm.h"
#include "gpu/kernels/head_pass.h"

namespace attn::gpu {

/// What decides whether the Hopper projection takes a layer's q, k and v.
struct ProjectionShape {
  Type type = Type::kFloat32;
  Type cache_type = Type::kFloat32;
  bool quantised = false;      ///< weights
  std::int64_t num_heads = 0;  ///< of q; 0 where only k and v are made
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t rotary_dim = 0;
  bool interleaved = true;
  std::int64_t hidden_size = 0;
};

/// "" when the kernel takes the layer, else one line why not. Host arithmetic, no device.
std::string projection_refusal(const ProjectionShape& shape);

/// Which calls go to the kernel, of a layer that it takes.
enum class ProjectionUse : std::uint8_t {
  kNever,
  kWhereItPays,  ///< enough rows, and tiles that fill the device
  kAlways,       ///< every call with rows: for tests
};

/// How one call is cut into blocks.
struct ProjectionPlan {
  bool taken = false;   ///< else the call goes to a product and a head_pass
  std::string refusal;  ///< why not
  int blocks = 0;       ///< which stay and take tiles in turns
};

/// A call of `tokens` rows.
ProjectionPlan plan_projection(const ProjectionShape& shape, ProjectionUse use, int multiprocessors,
                               std::int64_t tokens);

/// The call of a taken plan: what a product and a head_pass with all of `heads`' steps would leave,
/// with the same roundings; the sums are of another order. `product`: x and w, both 16-byte
/// aligned, and bias, bound, and y for the sums, or null: not kept. `heads` has no sources; its
/// cache's heads begin at multiples of 16 bytes. Rows that no sequence owns get nothing but
/// padding_zeros. Pointers of x and w are part of a captured launch.
void projection_hopper(const GemmArguments& product, const HeadPassArguments& heads,
                       const ProjectionPlan& plan, StreamHandle stream);

}  // namespace attn::gpu
