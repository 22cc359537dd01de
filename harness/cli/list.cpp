#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "harness/backends/backend.h"
#include "harness/cli/build_info.h"
#include "harness/cli/verbs.h"
#include "harness/faults/catalogue.h"
#include "harness/faults/memory_faults.h"
#include "harness/generate/case_spec.h"
#include "harness/relations/relations.h"
#include "harness/report/format.h"
#include "harness/report/writers.h"
#include "reference/core/error.h"

namespace attn::cli {
namespace {

/// One thing there is: what to type, and a line about it.
struct Item {
  std::string name;
  std::string summary;
  std::string unavailable;  ///< backends: why this machine cannot run it
};

std::vector<Item> backend_items(const std::vector<std::string>& plugins) {
  std::vector<Item> items;
  for (const harness::BackendInfo& info : harness::list_backends()) {
    std::string summary = info.summary;
    if (!info.options.empty()) summary += "; options " + info.options;
    items.push_back({info.name, summary, info.unavailable});
  }
  for (const std::string& spec : plugins) {
    const std::unique_ptr<harness::Backend> backend = open_backend(spec, {});
    items.push_back({spec, "plug-in " + backend->name(), ""});
  }
  return items;
}

std::vector<Item> variant_items() {
  const auto item = [](Variant variant, const char* summary) {
    return Item{std::string(name_of(variant)), summary, ""};
  };
  return {
      item(Variant::kAttentionWithRope,
           "the standard layer: q, k, v, optional norm, RoPE, paged cache"),
      item(Variant::kNoOpaque,
           "stacked weights, interleaved RoPE, no bias, clip, norm or quantisation"),
      item(Variant::kGguf, "weights in GGUF blocks (q4_0, q8_0, q4_k, q5_k, q6_k), float32"),
      item(Variant::kGptq, "weights in GPTQ words, 4 or 8 bits"),
      item(Variant::kTensorParallel, "heads dealt over devices, partial outputs added up"),
      item(Variant::kDataParallel, "sequences dealt over devices"),
      item(Variant::kAttention, "attention alone: q and a filled cache in"),
  };
}

std::string_view stage_summary(Stage stage) {
  switch (stage) {
    case Stage::kFreqsCis:
      return "[positions, rotary_dim]: the RoPE table made from config.rope";
    case Stage::kQProj:
      return "[tokens, heads*head_dim]: q after projection, bias and clip";
    case Stage::kKProj:
      return "[tokens, kv heads*head_dim]: k after projection, bias and clip";
    case Stage::kVProj:
      return "[tokens, kv heads*head_dim]: v after projection, bias and clip";
    case Stage::kQNorm:
      return "[tokens, heads*head_dim]: q after the norm of each head";
    case Stage::kKNorm:
      return "[tokens, kv heads*head_dim]: k after the norm of each head";
    case Stage::kQRope:
      return "[tokens, heads*head_dim]: q after RoPE";
    case Stage::kKRope:
      return "[tokens, kv heads*head_dim]: k after RoPE";
    case Stage::kCacheK:
      return "[keys, kv heads, head_dim]: the whole key cache after the call, decoded";
    case Stage::kCacheV:
      return "[keys, kv heads, head_dim_v]: the whole value cache after the call, decoded";
    case Stage::kLse:
      return "[tokens, heads]: log of the softmax denominator, natural, sink included";
    case Stage::kAttnOut:
      return "[tokens, heads*head_dim_v]: attention's output";
    case Stage::kOut:
      return "[tokens, hidden_size]: after the output projection";
  }
  return "";
}

std::vector<Item> stage_items() {
  std::vector<Item> items;
  for (const Stage stage : all_stages()) {
    items.push_back({std::string(name_of(stage)), std::string(stage_summary(stage)), ""});
  }
  return items;
}

std::vector<Item> profile_items() {
  std::vector<Item> items;
  for (const harness::ProfileInfo& info : harness::list_profiles()) {
    items.push_back({info.name, info.summary, ""});
  }
  return items;
}

std::vector<Item> fault_items() {
  std::vector<Item> items;
  for (const harness::FaultInfo& fault : harness::fault_catalogue()) {
    const bool equivalent = !fault.equivalent_because.empty();
    items.push_back({std::string(fault.id),
                     std::string(fault.summary) + (equivalent ? " (equivalent)" : ""), ""});
  }
  return items;
}

std::vector<Item> memory_items() {
  std::vector<Item> items;
  for (const harness::FaultInfo& fault : harness::memory_faults()) {
    items.push_back({std::string(fault.id), std::string(fault.summary) + " (memory)", ""});
  }
  return items;
}

std::vector<Item> relation_items() {
  std::vector<Item> items;
  for (const harness::Relation& relation : harness::relations()) {
    items.push_back({std::string(relation.name), std::string(relation.summary), ""});
  }
  return items;
}

std::vector<Item> items_of(const ListOptions& options) {
  const std::string& what = options.what;
  if (what == "backends") return backend_items(options.backends);
  if (!options.backends.empty()) {
    throw Error(ErrorKind::kUsage, "--backend belongs to: list backends", "--backend");
  }
  if (what == "variants") return variant_items();
  if (what == "stages") return stage_items();
  if (what == "profiles") return profile_items();
  if (what == "faults") {
    std::vector<Item> items = fault_items();
    std::ranges::move(memory_items(), std::back_inserter(items));
    return items;
  }
  if (what == "relations") return relation_items();
  throw Error(ErrorKind::kUsage, "nothing is called \"" + what + "\"" +
                                     hint(what, {"backends", "variants", "stages", "profiles",
                                                 "faults", "relations"}));
}

void print_items(std::ostream& out, const std::vector<Item>& items) {
  std::size_t width = 0;
  for (const Item& item : items) width = std::max(width, item.name.size());
  for (const Item& item : items) {
    std::string line = item.name;
    line.resize(width + 2, ' ');
    line += item.summary;
    if (!item.unavailable.empty()) line += "; not on this machine: " + item.unavailable;
    out << harness::wrap(line, width + 2) << "\n";
  }
  out.flush();
}

}  // namespace

int list(const ListOptions& options, const Session& session) {
  const std::vector<Item> items = items_of(options);
  check_writable("--json", options.json);
  if (!options.json.empty()) {
    nlohmann::ordered_json json = {
        {"schema_version", harness::kReportSchemaVersion},
        {"tool", {{"name", "attn-compare"}, {"version", version()}, {"commit", commit()}}},
        {"verb", "list"},
        {"what", options.what},
        {"items", nlohmann::ordered_json::array()}};
    for (const Item& item : items) {
      json["items"].push_back({{"name", item.name},
                               {"summary", item.summary},
                               {"available", item.unavailable.empty()},
                               {"unavailable", item.unavailable}});
    }
    write_output(session, options.json, json.dump(2) + "\n");
    if (options.json == "-") return 0;
  }
  print_items(session.streams.out, items);
  if (options.what == "backends" && options.backends.empty()) {
    session.streams.out << "any ./lib.so of yours is one too: docs/plugin.md\n";
  }
  return 0;
}

}  // namespace attn::cli
