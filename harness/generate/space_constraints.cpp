#include "harness/generate/space_constraints.h"

#include <algorithm>
#include <initializer_list>

#include "harness/generate/space_axes.h"

namespace attn::harness {
namespace {

using Values = std::initializer_list<std::string_view>;

std::vector<char> members(int axis, Values names) {
  std::vector<char> in(space_axes()[static_cast<std::size_t>(axis)].values.size(), 0);
  for (const std::string_view name : names) {
    in[static_cast<std::size_t>(value_number(axis, name))] = 1;
  }
  return in;
}

Constraint together(std::string why, std::string_view a, std::vector<char> a_in, std::string_view b,
                    std::vector<char> b_in) {
  return {std::move(why),
          {axis_number(a), axis_number(b)},
          [a_in = std::move(a_in), b_in = std::move(b_in)](std::span<const int> v) {
            return a_in[static_cast<std::size_t>(v[0])] == 0 ||
                   b_in[static_cast<std::size_t>(v[1])] != 0;
          }};
}

/// A value of `a` among `when` needs one of `b` among `only`.
Constraint needs(std::string why, std::string_view a, Values when, std::string_view b,
                 Values only) {
  return together(std::move(why), a, members(axis_number(a), when), b,
                  members(axis_number(b), only));
}

/// A value of `a` among `when` needs one of `b` not among `never`.
Constraint excludes(std::string why, std::string_view a, Values when, std::string_view b,
                    Values never) {
  std::vector<char> only = members(axis_number(b), never);
  for (char& in : only) in = in == 0 ? 1 : 0;
  return together(std::move(why), a, members(axis_number(a), when), b, std::move(only));
}

/// A value of `a` among `when` needs the first value of each of the others.
void add_defaults(std::vector<Constraint>& list, const std::string& why, std::string_view a,
                  Values when, Values others) {
  for (const std::string_view other : others) {
    list.push_back(needs(why, a, when, other,
                         {space_axes()[static_cast<std::size_t>(axis_number(other))].values[0]}));
  }
}

const Values kGgufWeights = {"q4_0", "q8_0", "q4_k", "q5_k", "q6_k", "gguf mixed"};
const Values kGptqWeights = {"gptq 4 bits", "gptq 8 bits"};

void add_variants(std::vector<Constraint>& list) {
  list.push_back({"entry point attention is variant attention, and the other way round",
                  {axis_number("variant"), axis_number("entry_point")},
                  [variant = value_number(axis_number("variant"), "attention"),
                   entry = value_number(axis_number("entry_point"), "attention")](
                      std::span<const int> v) { return (v[0] == variant) == (v[1] == entry); }});
  add_defaults(list, "entry point attention has no keys of the whole layer", "variant",
               {"attention"},
               {"weights", "activations", "hidden_size", "stacked_qkv", "has_bias", "clip_qkv",
                "clip_activations", "qk_norm", "rotary", "interleaved", "rope_scaling"});
  list.push_back(excludes("only entry point attention has values of another width", "entry_point",
                          {"forward", "materialize_kv_from_hidden"}, "head_dim_v",
                          {"smaller", "larger"}));
  list.push_back(excludes("only entry point attention takes a mask tensor", "entry_point",
                          {"forward", "materialize_kv_from_hidden"}, "mask", {"tensor"}));
  list.push_back(excludes("a layer's queries are keys too", "entry_point",
                          {"forward", "materialize_kv_from_hidden"}, "batch",
                          {"more queries than keys", "rows that see nothing"}));
  add_defaults(list, "materialize computes no scores, so features of theirs would not be tested",
               "entry_point", {"materialize_kv_from_hidden"},
               {"mask", "align", "span", "scale", "softcap", "sinks"});
  add_defaults(list, "no_opaque does not have it", "variant", {"no_opaque"},
               {"weights", "interleaved", "has_bias", "clip_activations", "qk_norm"});
  list.push_back(
      needs("no_opaque has one stacked weight", "variant", {"no_opaque"}, "stacked_qkv", {"yes"}));
  list.push_back(
      excludes("no_opaque clips no weights", "variant", {"no_opaque"}, "clip_qkv", {"binding"}));
  list.push_back(needs("gguf weights", "variant", {"gguf"}, "weights", kGgufWeights));
  list.push_back(needs("gptq weights", "variant", {"gptq"}, "weights", kGptqWeights));
}

void add_projections(std::vector<Constraint>& list) {
  add_defaults(list, "a stacked weight has no place for it", "stacked_qkv", {"yes"},
               {"weights", "has_bias"});
  list.push_back(
      excludes("a stacked weight is not clipped", "stacked_qkv", {"yes"}, "clip_qkv", {"binding"}));
  list.push_back(needs("gguf runs in float32", "weights", kGgufWeights, "dtype", {"float32"}));
  list.push_back(
      needs("gguf refuses every clip_qkv", "weights", kGgufWeights, "clip_qkv", {"null"}));
  list.push_back(excludes("clipping would act on codes", "weights",
                          {"gptq 4 bits", "gptq 8 bits", "nvfp4", "mxfp4", "mxfp8"}, "clip_qkv",
                          {"binding"}));
  list.push_back(needs("activations are quantised beside weights", "weights", {"none"},
                       "activations", {"none"}));
  list.push_back(
      needs("gptq has no quantised activations", "weights", kGptqWeights, "activations", {"none"}));
  list.push_back(needs("static activations need weights of one scale", "activations", {"static"},
                       "weights", {"fp8 tensor"}));
  list.push_back(needs("activations per token go with fp8 weights", "activations", {"token"},
                       "weights", {"fp8 tensor", "fp8 rowwise", "fp8 block"}));
  list.push_back(needs("block activations go with scaled weights", "activations", {"block"},
                       "weights",
                       {"fp8 tensor", "fp8 rowwise", "fp8 block", "nvfp4", "mxfp4", "mxfp8"}));
  list.push_back(needs("int8 activations go with gguf weights", "activations", {"int8"}, "weights",
                       kGgufWeights));
  for (const std::string_view axis : {"gptq_group", "gptq_desc_act", "gptq_checkpoint"}) {
    const auto& values = space_axes()[static_cast<std::size_t>(axis_number(axis))].values;
    for (std::size_t v = 1; v < values.size(); ++v) {
      list.push_back(needs("a detail of gptq", axis, {values[v]}, "weights", kGptqWeights));
    }
  }
  list.push_back(excludes("blocks of columns are multiples of 8", "hidden_size", {"uneven"},
                          "weights",
                          {"fp8 block", "nvfp4", "mxfp4", "mxfp8", "gptq 4 bits", "gptq 8 bits",
                           "q4_0", "q8_0", "q4_k", "q5_k", "q6_k", "gguf mixed"}));
}

/// Columns of a weight row that belong together, per value of weights and of gptq_group.
std::vector<std::vector<std::int64_t>> block_widths() {
  const auto weights = static_cast<std::size_t>(axis_number("weights"));
  const auto gptq_group = static_cast<std::size_t>(axis_number("gptq_group"));
  std::vector<std::vector<std::int64_t>> widths;
  Draw draw(0, "constraints");
  for (std::size_t w = 0; w < space_axes()[weights].values.size(); ++w) {
    widths.emplace_back();
    for (std::size_t g = 0; g < space_axes()[gptq_group].values.size(); ++g) {
      CaseSpec spec;
      axis_rules()[weights].write(spec, static_cast<int>(w), draw);
      axis_rules()[gptq_group].write(spec, static_cast<int>(g), draw);
      const QuantConfig quant = spec.config.quant.value_or(QuantConfig{});
      widths.back().push_back(block_width(quant, quant.q_proj));
    }
  }
  return widths;
}

void add_shapes(std::vector<Constraint>& list) {
  const int weights = axis_number("weights");
  const int gptq_group = axis_number("gptq_group");
  const int kv_heads = axis_number("kv_heads");
  const int group_size = axis_number("group_size");
  const int head_dim = axis_number("head_dim");
  list.push_back({"rows of o_proj are whole blocks, and the case stays small",
                  {weights, gptq_group, kv_heads, group_size, head_dim},
                  [=, widths = block_widths()](std::span<const int> v) {
                    const std::int64_t heads = value_as_integer(kv_heads, v[2]);
                    const std::int64_t group = value_as_integer(group_size, v[3]);
                    const std::int64_t dim = value_as_integer(head_dim, v[4]);
                    const std::int64_t width = (group + 1) * heads * dim;
                    // Larger ones where it takes them for a pair of the three.
                    const bool pair = heads == 1 || group == 1 || dim == 16;
                    if (width > kMostWidth && !pair) return false;
                    const std::int64_t block =
                        widths[static_cast<std::size_t>(v[0])][static_cast<std::size_t>(v[1])];
                    return group * heads * dim % block == 0 &&
                           2 * width * std::max(kLeastHidden, block) <= kMostWeights;
                  }});
  const int page_size = axis_number("page_size");
  const int layer = axis_number("layer");
  list.push_back(
      {"pages stay small", {page_size, layer, kv_heads, head_dim}, [=](std::span<const int> v) {
         constexpr std::int64_t kMostPage = 100'000;  // elements of k in all layers
         const std::int64_t layers = v[1] == 0 ? 1 : 3;
         return value_as_integer(page_size, v[0]) * layers * value_as_integer(kv_heads, v[2]) *
                    value_as_integer(head_dim, v[3]) <=
                kMostPage;
       }});
  list.push_back({"channels rotate in pairs",
                  {axis_number("entry_point"), head_dim, axis_number("rotary")},
                  [=, attention = value_number(axis_number("entry_point"), "attention")](
                      std::span<const int> v) {
                    return v[0] == attention || v[2] != 0 ||
                           value_as_integer(head_dim, v[1]) % 2 == 0;
                  }});
  list.push_back(excludes("one width has one name", "head_dim", {"256"}, "head_dim_v", {"larger"}));
  for (const char* const type : {"float32", "bfloat16", "float16"}) {
    list.push_back(excludes("one cache type has one name", "dtype", {type}, "kv_cache", {type}));
  }
}

void add_devices(std::vector<Constraint>& list) {
  const int variant = axis_number("variant");
  const int devices = axis_number("devices");
  const int replication = axis_number("kv_head_replication");
  const int kv_heads = axis_number("kv_heads");
  list.push_back(excludes("one device", "variant",
                          {"attention_with_rope", "attention", "no_opaque", "gguf", "gptq"},
                          "devices", {"2", "3", "8"}));
  list.push_back(needs("only tensor_parallel copies kv heads", "kv_head_replication", {"yes"},
                       "variant", {"tensor_parallel"}));
  list.push_back(
      {"whole kv heads on each tensor_parallel device, or copies of one",
       {variant, devices, replication, kv_heads},
       [=, tensor_parallel = value_number(variant, "tensor_parallel")](std::span<const int> v) {
         if (v[0] != tensor_parallel) return true;
         const std::int64_t count = value_as_integer(devices, v[1]);
         const std::int64_t heads = value_as_integer(kv_heads, v[3]);
         return count <= heads || (v[2] == 1 && count % heads == 0);
       }});
}

/// The least length of a kv_length value.
std::int64_t least_length(std::string_view name, std::int64_t page_size) {
  return fixed_length(name, page_size).value_or(name == "long" ? kLongFrom : kShortFrom);
}

/// A constraint over page_size, kv_length and one more axis, by the length that the two mean.
Constraint by_length(std::string why, std::string_view other,
                     std::function<bool(std::int64_t length, std::string_view value)> allows) {
  const int page_size = axis_number("page_size");
  const int kv_length = axis_number("kv_length");
  const int third = axis_number(other);
  return {std::move(why),
          {page_size, kv_length, third},
          [=, allows = std::move(allows)](std::span<const int> v) {
            const auto name = [&](int axis, int value) -> std::string_view {
              return space_axes()[static_cast<std::size_t>(axis)]
                  .values[static_cast<std::size_t>(value)];
            };
            return allows(least_length(name(kv_length, v[1]), value_as_integer(page_size, v[0])),
                          name(third, v[2]));
          }};
}

void add_lengths(std::vector<Constraint>& list) {
  constexpr std::int64_t kMostPrefilled = 70;
  const int page_size = axis_number("page_size");
  const int kv_length = axis_number("kv_length");
  list.push_back({"one length has one name", {page_size, kv_length}, [=](std::span<const int> v) {
                    const std::string_view name = space_axes()[static_cast<std::size_t>(kv_length)]
                                                      .values[static_cast<std::size_t>(v[1])];
                    const std::int64_t page = value_as_integer(page_size, v[0]);
                    const auto fixed = fixed_length(name, page);
                    return !fixed || length_class(*fixed, page) == name;
                  }});
  list.push_back(by_length("long enough for the batch, and not too long for a small case", "batch",
                           [](std::int64_t length, std::string_view batch) {
                             if (batch == "one prefill" || batch == "prefill") {
                               return length >= 2 && length <= kMostPrefilled;
                             }
                             if (batch == "mixed" || batch == "one continued") return length >= 3;
                             if (batch == "one long row") return length >= 8;
                             return true;
                           }));
  list.push_back(by_length("a span of its own beside the length", "span",
                           [](std::int64_t length, std::string_view span) {
                             return span == "none" || least_span(span, length) > 0;
                           }));
  list.push_back(
      needs("masks without a span", "mask", {"causal", "null", "tensor"}, "span", {"none"}));
  list.push_back(excludes("windows and chunks have a size", "mask",
                          {"chunked_causal", "sliding_window_causal", "sliding_window_noncausal"},
                          "span", {"none"}));
}

void add_empty_rows(std::vector<Constraint>& list) {
  const int batch = axis_number("batch");
  const int mask = axis_number("mask");
  const int align = axis_number("align");
  const auto causal = members(mask, {"causal", "chunked_causal", "sliding_window_causal"});
  list.push_back({"rows before the first key see nothing under a causal mask of the last key",
                  {batch, mask, align},
                  [=, more = value_number(batch, "more queries than keys"),
                   nothing = value_number(batch, "rows that see nothing"),
                   last = value_number(align, "bottom_right")](std::span<const int> v) {
                    const bool hidden = causal[static_cast<std::size_t>(v[1])] != 0 && v[2] == last;
                    return hidden ? v[0] != more : v[0] != nothing;
                  }});
}

void add_profiles(std::vector<Constraint>& list) {
  list.push_back(
      excludes("a soft-cap ends the rise", "profile", {"rising"}, "softcap", {"tight", "loose"}));
  list.push_back(needs("a norm ends the rise", "profile", {"rising"}, "qk_norm", {"no"}));
  list.push_back(
      needs("a clip ends the rise", "profile", {"rising"}, "clip_activations", {"null"}));
  list.push_back(needs("activations of one large channel keep no others", "profile", {"rising"},
                       "activations", {"none"}));
  list.push_back(needs("a rise in the steps of fp8 has leaps", "profile", {"rising"}, "kv_cache",
                       {"dtype", "float32", "bfloat16", "float16"}));
  list.push_back(excludes("extreme logits say nothing under a soft-cap", "profile", {"extreme"},
                          "softcap", {"tight", "loose"}));
  list.push_back(
      excludes("rms_norm_eps counts only with norms", "profile", {"tiny_norm"}, "qk_norm", {"no"}));
  list.push_back(
      excludes("codes of weights need codes", "profile", {"code_extremes"}, "weights", {"none"}));
  list.push_back(
      needs("sinks near the log-sum-exp need sinks", "profile", {"near_sink"}, "sinks", {"yes"}));
  list.push_back(
      {"values over the clip need a clip or a cap",
       {axis_number("profile"), axis_number("clip_qkv"), axis_number("clip_activations"),
        axis_number("softcap")},
       [over = value_number(axis_number("profile"), "over_clip"),
        binding = value_number(axis_number("clip_qkv"), "binding")](std::span<const int> v) {
         return v[0] != over || v[1] == binding || v[2] != 0 || v[3] != 0;
       }});
  list.push_back(excludes("a clip takes the range away", "profile", {"fp8_range"},
                          "clip_activations", {"binding"}));
  list.push_back(
      {"int8 and four-bit activations have no codes between the largest channels and zero",
       {axis_number("profile"), axis_number("weights"), axis_number("activations")},
       [range = value_number(axis_number("profile"), "fp8_range"),
        wide = members(axis_number("weights"), {"fp8 tensor", "fp8 rowwise", "fp8 block",
                                                "mxfp8"})](std::span<const int> v) {
         return v[0] != range || v[2] == 0 || wide[static_cast<std::size_t>(v[1])] != 0;
       }});
}

void add_layouts(std::vector<Constraint>& list) {
  const int kv_heads = axis_number("kv_heads");
  const int mask = axis_number("mask");
  const int broadcast = axis_number("broadcast");
  list.push_back(needs("equal kv heads and rows of a mask are given, not computed", "broadcast",
                       {"yes"}, "entry_point", {"attention"}));
  list.push_back({"a stride of 0 needs several heads, or rows of a mask",
                  {broadcast, kv_heads, mask},
                  [=, tensor = value_number(mask, "tensor")](std::span<const int> v) {
                    return v[0] == 0 || value_as_integer(kv_heads, v[1]) > 1 || v[2] == tensor;
                  }});
  add_defaults(list, "materialize has no queries and no output of attention", "entry_point",
               {"materialize_kv_from_hidden"}, {"q_order", "out_order", "row_stride"});
  for (const char* const order : {"q_order", "out_order"}) {
    list.push_back(excludes("each head so many far rows behind the one before: no address space",
                            "row_stride", {"2^31", "2^32"}, order, {"transposed"}));
  }
}

}  // namespace

std::span<const Constraint> space_constraints() {
  static const std::vector<Constraint> kConstraints = [] {
    std::vector<Constraint> list;
    add_variants(list);
    add_projections(list);
    add_shapes(list);
    add_devices(list);
    add_lengths(list);
    add_empty_rows(list);
    add_profiles(list);
    add_layouts(list);
    return list;
  }();
  return kConstraints;
}

}  // namespace attn::harness
