#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "gpu/device/device.h"
#include "gpu/kernels/coded_gemm.h"
#include "gpu/layers/decode_weights.h"
#include "reference/core/case.h"

namespace attn::gpu {

/// Codes and scales of some rows of a weight, unpacked: value (n, k) =
/// (code - offset) * scale - min, as CodedMatrix has it.
struct CodedRows {
  CodeKind kind = CodeKind::kU4;
  CodeScaling scaling = CodeScaling::kGroup;
  /// kWeight: the type that weights are rounded to.
  ElementType rounded = ElementType::kFloat32;
  int offset = 0;
  std::int64_t columns = 0;
  std::int64_t group = 0;  ///< columns of an inner scale: a power of two, or all
  float global = 1.0f;
  std::vector<std::uint8_t> codes;      ///< [rows, columns]
  std::vector<float> inner;             ///< [rows, groups]
  std::vector<float> inner_min;         ///< likewise, or empty
  std::vector<float> outer, outer_min;  ///< [rows, columns / 256], or empty
  /// Column j of the codes is column order[j] of the weight; empty: they are in order.
  std::vector<std::uint32_t> order;

  std::int64_t rows() const { return static_cast<std::int64_t>(codes.size()) / columns; }
  bool like(const CodedRows& other) const;
  void append(const CodedRows& other);
};

/// Nothing where the kernels cannot multiply by the codes themselves: clipped ones, groups that are
/// not runs of columns whose number is a power of two, columns that are no multiple of 8,
/// unquantised matrices.
std::optional<CodedRows> coded_rows(const AttentionConfig& config, const LayerWeights& weights,
                                    Matrix matrix);

/// The same without looking at the weights, so that a backend can declare its arithmetic.
bool has_coded_rows(const AttentionConfig& config, Matrix matrix);

/// The bytes of a plane of CodedMatrix, in host memory.
struct PackedPlane {
  std::vector<std::byte> data;
  int bytes = 0;
  int shift = 0;
};
/// What CodedWeight uploads.
struct PackedWeight {
  PackedPlane codes, high, inner, inner_min, outer, outer_min;
  CodedMatrix matrix;  ///< without its planes
};
PackedWeight pack(const CodedRows& rows);

/// On the device.
struct CodedWeight {
  CodedWeight(const CodedRows& rows, const Stream& stream);
  CodedMatrix matrix;
  const std::uint32_t* order = nullptr;  ///< [columns], or none: CodedRows::order

 private:
  Buffer codes_, high_, inner_, inner_min_, outer_, outer_min_, order_;
};

}  // namespace attn::gpu
