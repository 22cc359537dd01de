#include "golden/import/model_layer.h"

#include "golden/import/byte_file.h"
#include "golden/import/json_text.h"
#include "golden/import/layer_weights.h"
#include "golden/import/model_geometry.h"
#include "reference/core/error.h"

namespace attn::golden {

ImportedLayer import_layer(const LayerRequest& request) {
  const Model model = open_model(request.model, request.layer);
  ImportedLayer layer;
  layer.family = model.family.family;
  layer.config = geometry_of(model, request, layer.notes);
  try {
    layer.weights = read_layer_weights(model, request.layer, layer.config, layer.notes);
  } catch (const Error& error) {
    // A rule that the model breaks: the file is at fault, not the command line.
    if (error.kind() == ErrorKind::kConfig) refuse_config(model.config_path, error);
    throw;
  }
  return layer;
}

}  // namespace attn::golden
