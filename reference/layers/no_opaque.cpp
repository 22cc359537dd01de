#include "reference/layers/layers.h"
#include "reference/stages/rope_table.h"

namespace attn::reference {

/// One stacked projection, interleaved rotation, a causal mask and nothing optional: the rules hold
/// the config to that, so it is the general layer at these settings. It has no freqs_cis argument:
/// its rope makes the table. The float32 table of the exact mode serves both modes, as the other
/// layers are given one, so that an error of the table shows at stage freqs_cis and nowhere else.
Trace no_opaque(const Case& c, Mode mode) {
  Case own = c;
  const Matrix table = rope_table(c.config, c.freqs_cis.dim(0), Rounding(Mode::kExact));
  own.freqs_cis = Tensor::from_values(
      ElementType::kFloat32, c.freqs_cis.shape(),
      std::span<const double>(table.data(), static_cast<std::size_t>(table.size())));
  const bool forward = c.config.entry_point == EntryPoint::kForward;
  return forward ? attention_with_rope(own, mode) : materialize(own, mode);
}

}  // namespace attn::reference
