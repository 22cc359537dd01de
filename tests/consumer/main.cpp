// Uses each installed library once: reads an installed golden file, evaluates it, runs a backend.
#include <cstdio>
#include <exception>

#include "reference/core/config.h"
#ifdef HAVE_GOLDEN
#include "golden/golden_file.h"
#endif
#ifdef HAVE_REFERENCE
#include "reference/reference.h"
#endif
#ifdef HAVE_HARNESS
#include "harness/backends/backend.h"
#endif

int main() try {
  const attn::AttentionConfig config = attn::parse_config(
      R"({"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 64})");
  std::printf("%s\n", attn::to_json(config).c_str());
#ifdef HAVE_GOLDEN
  const attn::golden::GoldenFile file = attn::golden::read(DATA_DIR "/golden/mha-causal-f32.h5");
  const attn::Case c = attn::golden::to_case(file, {});
  std::printf("%s: %lld tokens\n", c.id.c_str(), static_cast<long long>(c.tokens()));
#ifdef HAVE_REFERENCE
  const attn::Trace trace = attn::reference::evaluate(c, attn::reference::Mode::kExact);
  if (!trace.has(attn::Stage::kOut)) return 1;
#endif
#ifdef HAVE_HARNESS
  const auto backend = attn::harness::make_backend("cpu");
  const attn::Stage wanted[] = {attn::Stage::kOut};
  if (!backend->run(c, wanted).has(attn::Stage::kOut)) return 1;
#endif
#endif
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
