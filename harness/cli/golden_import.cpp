#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>

#include "golden/golden_file.h"
#include "golden/import/dump.h"
#include "golden/import/model_layer.h"
#include "golden/import/tensor_file.h"
#include "harness/cli/judge.h"
#include "harness/cli/sampled_case.h"
#include "harness/cli/sealing.h"
#include "harness/cli/stage_table.h"
#include "harness/cli/verbs.h"
#include "harness/generate/case_spec.h"
#include "harness/report/format.h"
#include "reference/core/error.h"
#include "reference/core/rules.h"

namespace attn::cli {
namespace {

using harness::ReportRow;
using nlohmann::json;

/// Keys of one step of the kernel that a dump is judged as; the rows beside its edges are looked
/// at.
constexpr std::int64_t kKeysPerStep = 64;

/// A case spec made of the words of the command line, with the checks and messages of --config.
harness::CaseSpec spec_of(const AttentionConfig& config, const GoldenImportOptions& options) {
  json spec = {{"config", json::parse(to_json(config))}, {"profile", options.profile}};
  std::string text = spec.dump();
  if (!options.tokens.empty()) {
    text.pop_back();
    text += ", \"rows\": " + options.tokens + "}";
  }
  return harness::parse_case_spec(text);
}

/// The pairs of --tokens; none when it is absent.
std::vector<harness::RowSpec> parse_tokens(const GoldenImportOptions& options) {
  if (options.tokens.empty()) return {};
  AttentionConfig any;
  any.num_attention_heads = any.num_key_value_heads = 1;
  any.head_dim = any.head_dim_v = any.hidden_size = 2;
  return spec_of(any, options).rows;
}

/// --hidden FILE:NAME as [sequences, rows, hidden_size].
Tensor read_hidden(const GoldenImportOptions& options) {
  const std::size_t colon = options.hidden.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == options.hidden.size()) {
    throw Error(
        ErrorKind::kUsage,
        "--hidden " + options.hidden + ": write FILE:NAME, the name of a tensor in the file",
        "--hidden");
  }
  const auto file = golden::open_tensor_file(options.hidden.substr(0, colon));
  return file->read(options.hidden.substr(colon + 1));
}

/// The given hidden states in place of the drawn ones. `pairs` become one prefill a sequence when
/// there are none.
void check_hidden(const Tensor& hidden, const AttentionConfig& config, const std::string& where,
                  std::vector<harness::RowSpec>& pairs) {
  const Shape& shape = hidden.shape();
  if (!is_float(hidden.type()) || shape.size() < 2 || shape.size() > 3 ||
      shape.back() != config.hidden_size) {
    throw Error(ErrorKind::kInput,
                where + ": is " + std::string(element_name(hidden.type())) + " " +
                    to_string(shape) +
                    ", must be [tokens, hidden_size] or [batch, tokens, "
                    "hidden_size] with hidden_size " +
                    std::to_string(config.hidden_size),
                where);
  }
  if (pairs.empty()) {
    const std::int64_t sequences = shape.size() == 3 ? shape[0] : 1;
    pairs.assign(static_cast<std::size_t>(sequences), {0, shape[shape.size() - 2]});
  }
  std::int64_t rows = 0;
  for (const harness::RowSpec& pair : pairs) rows += pair.second;
  if (rows * config.hidden_size != hidden.size()) {
    throw Error(ErrorKind::kInput,
                where + ": holds " + std::to_string(hidden.size() / config.hidden_size) +
                    " rows, --tokens asks for " + std::to_string(rows) + " new ones",
                where);
  }
}

/// A rule that imported tensors break is the fault of their file.
void check_tensors(const Case& c, const std::string& file) {
  try {
    validate(c);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kConfig) throw;
    throw Error(ErrorKind::kInput, file + ": " + error.what(), error.field(), error.rule());
  }
}

/// The case of a layer: its own config and weights, the rest drawn as for any case. Drawing knows
/// no imported weights, so it is done for the unquantised layer, whose inputs are the same.
Case case_of_layer(golden::ImportedLayer layer, const GoldenImportOptions& options,
                   std::vector<harness::RowSpec> pairs, std::vector<std::string>& notes) {
  Tensor hidden;
  if (!options.hidden.empty()) {
    hidden = read_hidden(options);
    check_hidden(hidden, layer.config, options.hidden, pairs);
  }
  AttentionConfig drawn = layer.config;
  drawn.quant.reset();
  drawn.variant = Variant::kAttentionWithRope;
  harness::CaseSpec spec = spec_of(drawn, options);
  if (!pairs.empty()) spec.rows = pairs;
  Case c = harness::make_case(spec, options.seed);
  c.config = layer.config;
  c.weights = std::move(layer.weights);
  c.repro.clear();
  if (!hidden.empty()) {
    const std::vector<double> values = hidden.values();
    c.x = Tensor::from_values(c.config.dtype, c.x.shape(), values);
    if (c.x.values() != values) {
      notes.push_back("the hidden states were rounded to " +
                      std::string(element_name(c.config.dtype)));
    }
  }
  check_tensors(c, options.model);
  return c;
}

std::string describe(const AttentionConfig& c) {
  std::string text = std::to_string(c.num_attention_heads) + " heads, " +
                     std::to_string(c.num_key_value_heads) + " of keys and values, head_dim " +
                     std::to_string(c.head_dim);
  if (!c.starts_at_attention()) text += ", hidden_size " + std::to_string(c.hidden_size);
  text +=
      ", " + std::string(element_name(c.dtype)) + ", mask " + std::string(name_of(c.mask.variant));
  if (c.quant) text += ", weights " + std::string(name_of(c.quant->q_proj));
  return text;
}

/// The pieces of one import, in the order in which they are printed.
class Import {
 public:
  Import(const GoldenImportOptions& options, const Session& session)
      : options_(options), session_(session), reporter_(session, options.report, "golden import") {
    row_.name = std::filesystem::path(options.output).stem().string();
    row_.file = options.output;
  }

  int execute() {
    if (options_.model.empty()) {
      import_tensors();
    } else {
      import_model();
    }
    return reporter_.finish();
  }

 private:
  std::ostream& out() const { return reporter_.text(); }

  void import_model() {
    std::vector<harness::RowSpec> pairs = parse_tokens(options_);
    golden::LayerRequest request;
    request.model = options_.model;
    request.layer = options_.layer;
    request.page_size = options_.page_size;
    for (const harness::RowSpec& pair : pairs) {
      request.longest_sequence = std::max(request.longest_sequence, pair.first + pair.second);
    }
    golden::ImportedLayer layer = golden::import_layer(request);
    const std::string family = layer.family;
    notes_ = layer.notes;
    Case c = case_of_layer(std::move(layer), options_, std::move(pairs), notes_);
    out() << harness::wrap("layer " + std::to_string(options_.layer) + " of " + options_.model +
                               " (" + family + "): " + describe(c.config),
                           2)
          << std::endl;  // before the evaluations, which may take a while
    write(std::move(c));
    finish_row();
  }

  void import_tensors() {
    golden::DumpRequest request;
    request.file = options_.tensors;
    request.names = parse_map();
    request.layout = parse_layout();
    request.config_json = options_.config;
    for (const harness::RowSpec& pair : parse_tokens(options_)) {
      request.lengths.emplace_back(pair.first, pair.second);
    }
    const golden::ImportedDump dump = golden::import_dump(request);
    notes_ = dump.notes;
    out() << harness::wrap(options_.tensors + ": " + describe(dump.c.config), 2) << std::endl;
    const harness::RowSelection rows = selection(dump.c);
    if (rows.all) {
      write(dump.c);
    } else {
      SampledCase sampled = sample_rows(dump.c, rows, kKeysPerStep);
      notes_.push_back(sampled.note);
      sampled_rows_ = std::move(sampled.rows);
      write(std::move(sampled.c));
    }
    finish_row();
    judge_given(dump, rows);
  }

  std::map<std::string, std::string> parse_map() const {
    const std::vector<std::string>& roles = golden::dump_roles();
    std::map<std::string, std::string> names;
    for (const std::string& pair : options_.map) {
      const std::size_t equals = pair.find('=');
      const std::string role = pair.substr(0, equals);
      if (equals == std::string::npos || equals + 1 == pair.size()) {
        throw Error(ErrorKind::kUsage, "--map " + pair + ": write ROLE=NAME", "--map");
      }
      if (std::find(roles.begin(), roles.end(), role) == roles.end()) {
        throw Error(ErrorKind::kUsage, "--map: unknown role \"" + role + "\"" + hint(role, roles),
                    "--map");
      }
      names[role] = pair.substr(equals + 1);
    }
    for (const char* needed : {"q", "k", "v"}) {
      if (names.count(needed) == 0) {
        throw Error(ErrorKind::kUsage,
                    std::string("--map: ") + needed + " is missing; write q=NAME,k=NAME,v=NAME",
                    "--map");
      }
    }
    return names;
  }

  golden::DumpLayout parse_layout() const {
    if (options_.layout == "thd") return golden::DumpLayout::kThd;
    if (options_.layout == "bhsd") return golden::DumpLayout::kBhsd;
    if (options_.layout == "bshd") return golden::DumpLayout::kBshd;
    throw Error(ErrorKind::kUsage,
                "--layout " + options_.layout + hint(options_.layout, {"thd", "bhsd", "bshd"}),
                "--layout");
  }

  harness::RowSelection selection(const Case& c) const {
    if (!options_.rows.empty()) return parse_rows(options_.rows, options_.seed);
    return parse_rows(is_large(c) ? "auto" : "all", options_.seed);
  }

  void write(Case c) {
    c.id = row_.name;
    golden::WriteOptions write;
    write.force = options_.force;
    write.command_line = session_.command_line;
    write.seed = options_.seed;
    write.generator = "attn-compare golden import";
    write.more["source"] = options_.model.empty() ? options_.tensors : options_.model;
    std::string notes;
    for (const std::string& note : notes_) notes += (notes.empty() ? "" : "; ") + note;
    if (!notes.empty()) write.more["notes"] = notes;
    if (!sampled_rows_.empty()) write.more["rows"] = json(sampled_rows_).dump();
    guarded(row_, [&] { write_when_agreed(c, write, WithoutSecond::kWriteUnsealed, row_); });
  }

  void finish_row() {
    for (const std::string& note : notes_) out() << harness::wrap("note: " + note, 2) << "\n";
    const bool good =
        row_.verdict.status == harness::Status::kPassed && row_.trouble == harness::Trouble::kNone;
    out() << harness::wrap(row_.file + "  " + (good ? "" : std::string(outcome(row_)) + ": ") +
                               row_.verdict.detail,
                           4)
          << std::endl;
    reporter_.report().rows.push_back(row_);
  }

  /// What the dumped kernel answered, against the exact result.
  void judge_given(const golden::ImportedDump& dump, const harness::RowSelection& rows) {
    if (!dump.given.has(Stage::kAttnOut) && !dump.given.has(Stage::kLse)) {
      out() << "\n" << to_string(reporter_.report().tally()) << std::endl;
      return;
    }
    ReportRow row;
    row.name = row_.name;
    row.file = options_.tensors;
    row.backend = "dump";
    const harness::Arithmetic arithmetic = arithmetic_of_dump(dump);
    guarded(row, [&] {
      harness::CompareOptions compare;
      compare.rows = rows;
      row.verdict = harness::compare(dump.c, dump.given, arithmetic, compare);
    });
    out() << "\n"
          << harness::wrap(
                 "the dumped answer, against the exact result; judged as the work of a "
                 "kernel with probabilities in " +
                     std::string(element_name(arithmetic.probabilities)) + " and float32 sums",
                 2)
          << "\n\n";
    print_stage_table(out(), row.verdict);
    print_row_coverage(out(), row.verdict, rows);
    reporter_.report().rows.push_back(std::move(row));
    harness::ConsoleTable(out(), reporter_.table_options()).finish(reporter_.report());
  }

  /// A fused kernel in the dump's own types: probabilities in those of q, as tensor cores want
  /// them, float32 sums over blocks of keys.
  static harness::Arithmetic arithmetic_of_dump(const golden::ImportedDump& dump) {
    harness::Arithmetic a;
    a.store = dump.c.config.dtype;
    a.cache = dump.c.config.kv_cache.dtype;
    a.probabilities = dump.c.config.dtype;
    if (a.probabilities != ElementType::kFloat32) {
      a.attention_acc = harness::Accumulator::kFloat32TensorCore;
    }
    a.block = kKeysPerStep;
    if (dump.given.has(Stage::kAttnOut)) a.out = dump.given[Stage::kAttnOut].type();
    if (dump.given.has(Stage::kLse)) a.lse = dump.given[Stage::kLse].type();
    return a;
  }

  const GoldenImportOptions& options_;
  const Session& session_;
  Reporter reporter_;
  ReportRow row_;
  std::vector<std::string> notes_;
  std::vector<std::int64_t> sampled_rows_;
};

void check_options(const GoldenImportOptions& options) {
  if (options.model.empty() == options.tensors.empty()) {
    throw Error(ErrorKind::kUsage,
                "give one of --model DIR|FILE and --tensors FILE --map q=NAME,k=NAME,v=NAME");
  }
  const bool from_model = options.tensors.empty();
  if (from_model && !(options.map.empty() && options.config.empty() && options.rows.empty())) {
    throw Error(ErrorKind::kUsage, "--map, --config and --rows belong to --tensors");
  }
  if (!from_model && !options.hidden.empty()) {
    throw Error(ErrorKind::kUsage, "--hidden belongs to --model", "--hidden");
  }
  check_writable("-o", options.output);
  if (!options.force && std::filesystem::exists(options.output)) {
    throw Error(ErrorKind::kUsage,
                "-o " + options.output + ": the file exists; --force overwrites it", "-o");
  }
}

}  // namespace

int golden_import(const GoldenImportOptions& options, const Session& session) {
  check_options(options);
  return Import(options, session).execute();
}

}  // namespace attn::cli
