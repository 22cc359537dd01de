#include "harness/bench/history/parameters.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <regex>
#include <utility>
#include <vector>

namespace attn::history {
namespace {

std::optional<std::int64_t> whole_number(const std::string& text) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || text.empty()) return std::nullopt;
  return value;
}

using NumberColumn = std::pair<const char*, std::optional<std::int64_t> Benchmark::*>;
constexpr std::array<NumberColumn, 9> kNumbers{{{"batch", &Benchmark::batch},
                                                {"q_len", &Benchmark::q_len},
                                                {"kv_len", &Benchmark::kv_len},
                                                {"heads", &Benchmark::heads},
                                                {"kv_heads", &Benchmark::kv_heads},
                                                {"head_dim", &Benchmark::head_dim},
                                                {"hidden_size", &Benchmark::hidden_size},
                                                {"page_size", &Benchmark::page_size},
                                                {"threads", &Benchmark::threads}}};

using TextColumn = std::pair<const char*, std::string Benchmark::*>;
constexpr std::array<TextColumn, 4> kTexts{{{"kind", &Benchmark::kind},
                                            {"dtype", &Benchmark::dtype},
                                            {"mask", &Benchmark::mask},
                                            {"weights", &Benchmark::weights}}};

/// Implementations that harness/bench/peers times beside ours.
bool is_peer_name(const std::string& backend) {
  static const std::vector<std::string> kOurs{"cuda", "cpu", "exact", "faithful", "damaged"};
  const std::string word = backend.substr(0, backend.find(':'));
  const bool plugin = backend.find('/') != std::string::npos || word.ends_with(".so");
  return !backend.empty() && !plugin && std::ranges::find(kOurs, word) == kOurs.end();
}

/// "prefill B1 S4096 32/8 D256 causal", "B16 ctx8192 32/8 q4": sizes in any order. False when it is
/// another kind of name.
bool read_attention(Benchmark& b, const std::string& name) {
  static const std::regex kWord(R"(\S+)");
  static const std::regex kLetter(R"((B|S|ctx|D|q|page|W)(\d+))");
  static const std::regex kHeads(R"((\d+)/(\d+))");
  Benchmark found;
  bool is_prefill = false;
  for (std::sregex_iterator it(name.begin(), name.end(), kWord), end; it != end; ++it) {
    const std::string word = it->str();
    std::smatch match;
    if (std::regex_match(word, match, kHeads)) {
      found.heads = whole_number(match[1]);
      found.kv_heads = whole_number(match[2]);
    } else if (std::regex_match(word, match, kLetter)) {
      const std::string letter = match[1];
      const auto value = whole_number(match[2]);
      if (letter == "B") found.batch = value;
      if (letter == "S") found.q_len = value;
      if (letter == "S" || letter == "ctx") found.kv_len = value;
      if (letter == "D") found.head_dim = value;
      if (letter == "q") found.q_len = value;
      if (letter == "page") found.page_size = value;
      if (letter == "W") found.mask = "window " + match[2].str();
      is_prefill = is_prefill || letter == "S";
    } else if (word == "causal" || word == "full") {
      if (found.mask.empty()) found.mask = word;
    } else if (word != "prefill" && word != "decode") {
      return false;
    }
  }
  if (!found.batch || !found.kv_len || !found.heads) return false;
  b.kind = is_prefill ? "prefill" : "decode";
  b.batch = found.batch;
  b.q_len = found.q_len.value_or(1);
  b.kv_len = found.kv_len;
  b.heads = found.heads;
  b.kv_heads = found.kv_heads;
  b.head_dim = found.head_dim.value_or(128);
  b.page_size = found.page_size;
  b.mask = found.mask.empty() ? "causal" : found.mask;
  b.dtype = "bfloat16";
  return true;
}

/// "layer prefill 8x2048", "layer decode 64 x ctx 8191, hidden 2048": Llama-3-8B's geometry unless
/// hidden says Llama-3.2-1B's.
bool read_layer(Benchmark& b, const std::string& name) {
  static const std::regex kLayer(
      R"(layer (prefill|decode) (\d+) ?x ?(?:ctx ?)?(\d+)(?:, hidden (\d+))?)");
  std::smatch match;
  if (!std::regex_match(name, match, kLayer)) return false;
  b.kind = "layer";
  b.batch = whole_number(match[2]);
  const std::int64_t length = whole_number(match[3]).value_or(0);
  const bool is_prefill = match[1] == "prefill";
  b.q_len = is_prefill ? length : 1;
  b.kv_len = is_prefill ? length : length + 1;
  b.hidden_size = match[4].matched ? whole_number(match[4]) : 4096;
  b.heads = 32;
  b.kv_heads = 8;
  b.head_dim = *b.hidden_size / 32;
  b.mask = "causal";
  b.dtype = "bfloat16";
  return true;
}

/// "BM_gemm/rows:8/512": what stands between slashes.
void read_arguments(Benchmark& b, const std::string& name) {
  std::size_t at = name.find('/');
  for (int place = 0; at != std::string::npos; ++place) {
    const std::size_t next = name.find('/', at + 1);
    const std::string part = name.substr(at + 1, next == std::string::npos ? next : next - at - 1);
    const std::size_t colon = part.find(':');
    if (colon != std::string::npos && colon > 0) {
      set_parameter(b, part.substr(0, colon), part.substr(colon + 1));
    } else if (whole_number(part)) {
      b.parameters["arg" + std::to_string(place)] = part;
    }
    at = next;
  }
}

std::string sizes_of(const Benchmark& b) {
  std::string text = b.kind;
  const auto add = [&text](const std::string& word) { text += " " + word; };
  const bool decodes = b.kind == "decode" || b.q_len == 1;
  add("B" + std::to_string(b.batch.value_or(1)));
  if (decodes || b.q_len != b.kv_len) {
    add("ctx" + std::to_string(b.kv_len.value_or(0)));
    if (b.q_len != 1) add("q" + std::to_string(b.q_len.value_or(0)));
  } else {
    add("S" + std::to_string(b.q_len.value_or(0)));
  }
  if (b.hidden_size) add("hidden" + std::to_string(*b.hidden_size));
  if (b.heads) add(std::to_string(*b.heads) + "/" + std::to_string(b.kv_heads.value_or(*b.heads)));
  if (b.head_dim) add("D" + std::to_string(*b.head_dim));
  // One query row sees every key, causal or not.
  if (!b.mask.empty() && !(b.q_len == 1 && (b.mask == "causal" || b.mask == "full"))) add(b.mask);
  if (!b.dtype.empty()) add(b.dtype);
  if (!b.weights.empty() && b.weights != b.dtype) add(b.weights);
  for (const auto& [name, value] : b.parameters) add(std::string(name).append("=").append(value));
  return text;
}

}  // namespace

void read_name(Benchmark& benchmark, const std::string& name) {
  const std::size_t bar = name.rfind(" | ");
  benchmark.name = name.substr(0, bar);
  if (bar != std::string::npos) benchmark.backend = name.substr(bar + 3);
  // Runs that were recorded before the parameter say it here alone.
  if (benchmark.name.ends_with(" fp8 cache")) benchmark.parameters["kv_dtype"] = "float8_e4m3fn";
  if (read_attention(benchmark, benchmark.name) || read_layer(benchmark, benchmark.name)) return;
  if (bar == std::string::npos) read_arguments(benchmark, benchmark.name);
}

bool set_parameter(Benchmark& benchmark, const std::string& name, const std::string& value) {
  for (const auto& [column, member] : kNumbers) {
    if (name != column) continue;
    benchmark.*member = whole_number(value);
    return (benchmark.*member).has_value();
  }
  for (const auto& [column, member] : kTexts) {
    if (name != column) continue;
    benchmark.*member = value;
    return true;
  }
  benchmark.parameters[name] = value;
  return true;
}

void settle(Benchmark& benchmark) {
  benchmark.is_peer = is_peer_name(benchmark.backend);
  const bool has_sizes = !benchmark.kind.empty() && benchmark.batch && benchmark.q_len &&
                         benchmark.kv_len && benchmark.heads;
  benchmark.shape = has_sizes ? sizes_of(benchmark) : benchmark.name;
}

std::string identity_of(const Benchmark& benchmark) {
  std::string text =
      benchmark.program + "\n" + benchmark.name + "\n" + benchmark.backend + "\n" + benchmark.timer;
  for (const auto& [column, member] : kNumbers) {
    if (benchmark.*member) {
      text.append("\n").append(column).append("=").append(std::to_string(*(benchmark.*member)));
    }
  }
  for (const auto& [column, member] : kTexts) {
    if (!(benchmark.*member).empty()) {
      text.append("\n").append(column).append("=").append(benchmark.*member);
    }
  }
  for (const auto& [name, value] : benchmark.parameters) {
    text.append("\n").append(name).append("=").append(value);
  }
  return text;
}

std::string identity_of(const Machine& machine) {
  return machine.gpu + "\n" + std::to_string(machine.gpu_count) + "\n" + machine.cpu + "\n" +
         std::to_string(machine.num_cpus) + "\n" + machine.caches + "\n" + machine.host;
}

}  // namespace attn::history
