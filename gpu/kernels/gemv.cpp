#include "gpu/kernels/gemv.h"

#include "gpu/kernels/gemv_launch.h"
#include "gpu/kernels/gemv_work.h"

namespace attn::gpu {
namespace {

GemvCall call_of(const GemmArguments& product) {
  GemvCall call;
  call.x = product.x;
  call.w = product.w;
  call.bias = product.bias;
  call.y = product.y;
  call.y_stride = product.y_stride > 0 ? product.y_stride : product.n;
  call.bound = product.clip;
  call.tokens = static_cast<int>(product.m);
  call.columns = static_cast<int>(product.n);
  call.depth = static_cast<int>(product.k);
  return call;
}

}  // namespace

GemvGrid gemv_grid(const GemvCall& call, bool heads) {
  if (!heads) return {(call.columns + kGemvColumns - 1) / kGemvColumns, 1};
  const auto head_dim = static_cast<int>(call.a.head_dim);
  return {call.columns / head_dim, gemv_parts(head_dim, gemv_tiles(call))};
}

int gemv_tiles(const GemvCall& call) {
  return gemv_tiles(static_cast<int>(call.a.head_dim), call.a.norm);
}

std::string gemv_refusal(Type type, std::int64_t depth) {
  if (type != Type::kBFloat16 && type != Type::kFloat16) {
    return "activations are neither bfloat16 nor float16";
  }
  if (depth % 8 != 0) return "rows of " + std::to_string(depth) + " are no multiple of 8";
  return "";
}

void gemv(const GemmArguments& arguments, bool ahead, StreamHandle stream) {
  GemvCall call = call_of(arguments);
  call.ahead = ahead;
  call.a.type = arguments.type;
  launch_gemv(call, false, 1, stream);
}

void gemv_heads(const GemmArguments& product, const HeadPassArguments& heads, StreamHandle stream) {
  GemvCall call = call_of(product);
  call.a = heads;
  launch_gemv(call, true, heads.norm ? gemv_grid(call, true).z : 1, stream);
}

}  // namespace attn::gpu
