#include "reference/stages/weights.h"

#include <string>

#include "reference/formats/dense.h"
#include "reference/stages/clip.h"

namespace attn::reference {
namespace {

std::string name_of(Projection p) {
  switch (p) {
    case Projection::kQ:
      return "q_proj";
    case Projection::kK:
      return "k_proj";
    case Projection::kV:
      return "v_proj";
    case Projection::kO:
      return "o_proj";
  }
  return {};
}

/// Where a projection's weight lies: rows first .. first+rows-1 of tensor `name`.
struct WeightRows {
  std::string name;
  std::int64_t first;
  std::int64_t rows;
};

WeightRows weight_rows(const AttentionConfig& config, Projection p) {
  const std::int64_t q = config.q_width();
  const std::int64_t k = config.k_width();
  const std::int64_t v = config.v_width();
  if (p == Projection::kO) {
    return {"o_proj.weight", 0, config.hidden_size};
  }
  const std::int64_t rows = p == Projection::kQ ? q : p == Projection::kK ? k : v;
  if (!config.stacked_qkv) {
    return {name_of(p) + ".weight", 0, rows};
  }
  const std::int64_t first = p == Projection::kQ ? 0 : p == Projection::kK ? q : q + k;
  return {"qkv_proj.weight", first, rows};
}

}  // namespace

Matrix projection_weight(const Case& c, Projection p, Rounding r) {
  const WeightRows at = weight_rows(c.config, p);
  const Tensor& stored = c.weights.at(at.name);
  Matrix w = decode_dense(stored, at.first, at.rows);  // [out, in]
  if (const auto bound = c.config.weight_clip(); bound && p != Projection::kO) {
    w = clip(w, r.to(stored.type(), *bound));
  }
  return w;
}

Matrix projection_bias(const Case& c, Projection p) {
  const Tensor& stored = c.weights.at(name_of(p) + ".bias");
  return decode_matrix(stored, 1, stored.size());
}

}  // namespace attn::reference
