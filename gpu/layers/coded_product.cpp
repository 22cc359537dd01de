#include "gpu/layers/coded_product.h"

#include <algorithm>

#include "gpu/kernels/coded_cluster.h"
#include "gpu/kernels/coded_stream.h"
#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/gemm.h"

namespace attn::gpu {
namespace {

// Fewer products than this are over before the library's heuristic has been asked.
constexpr std::int64_t kFewestCublasProducts = std::int64_t{1} << 22;
// From here on decoding the weight costs less than what the library's product saves.
constexpr std::int64_t kFewestDecodedRows = 256;

bool is_quantised(const InputFormat& format) { return format.format != ActivationFormat::kNone; }

std::int64_t code_width(const CodedWeight& weight) { return weight.matrix.chunks * kCodedChunk; }

/// Columns that share a scale of activations, as far as the coded products care.
int columns_of_scale(const InputFormat& format, const std::vector<Range>& slices) {
  int columns = kCodedChunk;
  const auto divides = [&](std::int64_t x) { return x % columns == 0; };
  while (columns > kCodedStep &&
         !(divides(format.block) &&
           std::ranges::all_of(slices, [&](const Range& r) { return divides(r.first); }))) {
    columns /= 2;
  }
  return columns;
}

void quantise_slices(const CodedWeight& weight, const InputFormat& format,
                     const GemmArguments& product, const std::vector<Range>& slices,
                     const CodedMemory& memory, StreamHandle stream) {
  for (const Range& slice : slices) {
    QuantiseArguments a;
    a.x = product.x;
    a.type = product.out_type;
    a.codes = memory.codes;
    a.scales = memory.scales;
    a.sums = weight.matrix.inner_min.bytes > 0 ? memory.sums : nullptr;
    a.rows = product.m;
    a.width = product.k;
    a.code_width = code_width(weight);
    a.first_column = slice.first;
    a.columns = slice.count;
    a.block = format.block > 0 ? format.block : slice.count;
    a.format = format.format;
    a.scale = format.scale;
    quantise(a, stream);
  }
}

void run_decoded(const CodedProductPlan& plan, const CodedWeight& weight, GemmArguments product,
                 const CodedMemory& memory, StreamHandle stream) {
  decode_codes(weight.matrix, product.n, product.k, plan.decoded_type, memory.decoded, stream);
  product.w = memory.decoded;
  product.type = plan.decoded_type;
  if (plan.dense == nullptr) return gemm(product, stream);
  plan.dense->run(product, nullptr, memory.library, stream);
}

}  // namespace

std::shared_ptr<const CublasLtGemm> plan_product(const GemmArguments& shape, bool has_bias) {
  // Rows of 16 bytes, which its fast kernels want.
  const std::int64_t width = 16 / size_of(shape.type);
  if (shape.k % width != 0 || shape.n % width != 0) return nullptr;
  if (shape.m * shape.n * shape.k < kFewestCublasProducts) return nullptr;
  return CublasLtGemm::plan(shape, has_bias);
}

void CodedSpace::include(const CodedSpace& other) {
  codes = std::max(codes, other.codes);
  scales = std::max(scales, other.scales);
  sums = std::max(sums, other.sums);
  gathered = std::max(gathered, other.gathered);
  decoded = std::max(decoded, other.decoded);
  partials = std::max(partials, other.partials);
  padded = std::max(padded, other.padded);
  library = std::max(library, other.library);
}

CodedMemory::CodedMemory(const CodedSpace& space, Arena& arena)
    : codes(arena.take(space.codes)),
      scales(static_cast<float*>(arena.take(space.scales))),
      sums(static_cast<float*>(arena.take(space.sums))),
      gathered(arena.take(space.gathered)),
      decoded(arena.take(space.decoded)),
      partials(static_cast<float*>(arena.take(space.partials))),
      padded(arena.take(space.padded)),
      library(arena.take(space.library)) {}

CodedProductPlan plan_coded_product(const CodedWeight& weight, const Fp8Weight* plain,
                                    const InputFormat& format, const GemmArguments& shape,
                                    const CodedProductOptions& options) {
  CodedProductPlan plan;
  if (plain != nullptr && options.cublas) plan.fp8 = plan_fp8_product(*plain, shape, options.fp8);
  if (plan.fp8.taken()) return plan;
  const bool narrow = shape.out_type != Type::kFloat32;
  const bool streamed =
      weight.matrix.scaling == CodeScaling::kWeight
          ? narrow && !is_quantised(format)
          : format.format == ActivationFormat::kInt8 || (!narrow && !is_quantised(format));
  const bool by_clusters =
      options.clusters == CodedClusters::kAlways && weight.matrix.scaling == CodeScaling::kWeight;
  const bool wanted = options.streams == CodedStreams::kAlways ||
                      (options.streams == CodedStreams::kWhereTheyPay && !by_clusters &&
                       stream_pays(weight.matrix, shape.m, shape.k, format.block));
  if (wanted && streamed) {
    plan.stream = plan_coded_stream(weight.matrix, shape.m, shape.k, format.block,
                                    options.multiprocessors, shared_memory_limit());
    if (plan.stream.taken) return plan;
  }
  const bool clustered =
      options.clusters == CodedClusters::kAlways ||
      (options.clusters == CodedClusters::kWhereTheyPay && cluster_pays(shape.m));
  if (clustered && options.tile == 0 && narrow && !is_quantised(format)) {
    plan.cluster =
        plan_coded_cluster(weight.matrix, shape.m, cluster_places(), shared_memory_limit());
    if (plan.cluster.taken) return plan;
  }
  plan.decoded_type = shape.out_type;
  plan.decodes = !is_quantised(format) && !narrow;
  GemmArguments dense = shape;
  dense.type = plan.decoded_type;
  // The library knows neither float32 biases nor bounds, nor rows with gaps.
  const bool bare = shape.bias == nullptr && shape.clip == kNoBound &&
                    (shape.y_stride == 0 || shape.y_stride == shape.n);
  const bool may_pay = weight.matrix.scaling == CodeScaling::kWeight &&
                       shape.m >= kFewestDecodedRows && options.tile == 0;
  if (options.cublas && bare && (plan.decodes || may_pay)) {
    plan.dense = plan_product(dense, false);
    plan.decodes = plan.decodes || plan.dense != nullptr;
  }
  if (!plan.decodes) {
    plan.gemm = plan_coded_gemm(weight.matrix.scaling, shape.m, weight.matrix.rows,
                                weight.matrix.chunks, options.multiprocessors, options.tile);
  }
  return plan;
}

CodedSpace coded_space(const CodedProductPlan& plan, const CodedWeight& weight,
                       const InputFormat& format, const GemmArguments& shape) {
  CodedSpace space;
  if (plan.fp8.taken()) {
    space.codes = plan.fp8.code_bytes;
    space.scales = plan.fp8.scale_bytes;
    space.padded = plan.fp8.padded_bytes;
    space.library = plan.fp8.product->workspace_bytes();
    return space;
  }
  const auto codes = static_cast<std::size_t>(shape.m * code_width(weight));
  if (plan.stream.taken) {
    space.codes = plan.stream.image_bytes;
  } else if (is_quantised(format)) {
    space.codes = 2 * codes;
    space.scales = codes / kCodedStep * sizeof(float);
    if (weight.matrix.inner_min.bytes > 0) space.sums = space.scales;
  }
  if (weight.order != nullptr) {
    space.gathered = static_cast<std::size_t>(shape.m * shape.k * size_of(shape.out_type));
  }
  if (plan.decodes) {
    space.decoded = static_cast<std::size_t>(shape.n * shape.k * size_of(plan.decoded_type));
  }
  if (plan.dense != nullptr) space.library = plan.dense->workspace_bytes();
  space.partials = plan.gemm.partial_bytes;
  return space;
}

void run_coded_product(const CodedProductPlan& plan, const CodedWeight& weight,
                       const InputFormat& format, const GemmArguments& given,
                       const std::vector<Range>& slices, const CodedMemory& memory,
                       StreamHandle stream) {
  GemmArguments product = given;
  if (product.y_stride == 0) product.y_stride = product.n;
  if (plan.fp8.taken()) {
    return run_fp8_product(plan.fp8, product,
                           {memory.codes, memory.scales, memory.padded, memory.library}, stream);
  }
  if (weight.order != nullptr) {
    gather_columns(product.x, size_of(product.out_type), weight.order, memory.gathered, product.m,
                   product.k, stream);
    product.x = memory.gathered;
  }
  if (plan.decodes) return run_decoded(plan, weight, product, memory, stream);
  CodedGemmArguments a;
  a.w = weight.matrix;
  a.x = product.x;
  a.x_type = product.out_type;
  a.x_stride = product.k;
  if (is_quantised(format) && !plan.stream.taken) {
    quantise_slices(weight, format, product, slices, memory, stream);
    a.x = memory.codes;
    a.x_type = Type::kFloat16;
    a.x_stride = code_width(weight);
    a.x_scale = memory.scales;
    if (weight.matrix.inner_min.bytes > 0) a.x_sum = memory.sums;
    a.x_group = columns_of_scale(format, slices);
  }
  a.bias = product.bias;
  a.clip = product.clip;
  a.y = product.y;
  a.out_type = product.out_type;
  a.y_stride = product.y_stride;
  a.m = product.m;
  a.n = product.n;
  a.k = product.k;
  if (plan.stream.taken) return coded_stream(a, plan.stream, memory.codes, stream);
  if (plan.cluster.taken) return coded_cluster(a, plan.cluster, stream);
  coded_gemm(a, plan.gemm, memory.partials, memory.counters, stream);
}

}  // namespace attn::gpu
