#include "tests/gpu/emulated_memory.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <sstream>

namespace attn::gpu {

/// Beyond it scores are so large that float32 rounds them by more than lse may be off.
constexpr float kMostRise = 40.0f;
/// Of lone keys. With a scale of 0.1 the score is 16, and those of other keys are 0.4 times normal.
constexpr float kLoneQuery = 4.0f;
constexpr float kLoneKey = 40.0f;

std::string EmulatedCall::text() const {
  std::ostringstream s;
  s << "heads " << heads << "/" << kv_heads << " d " << head_dim << "/" << head_dim_v << " page "
    << page_size << " hnd " << heads_first << " mask " << static_cast<int>(mask) << " span " << span
    << " top_left " << top_left << " cap " << softcap << " scale " << scale << " coded " << coded
    << " fp8 " << fp8 << " scales " << static_cast<int>(scales) << " sequences";
  for (const auto& [rows, keys] : sequences) s << ' ' << rows << ':' << keys;
  return s.str();
}

std::string run_emulated_rise(EmulatedCall call, float rise, int head_dim) {
  call.head_dim = call.head_dim_v = head_dim;
  call.scale = 1.2f / std::sqrt(static_cast<float>(head_dim));
  call.rise = rise;
  call.sequences = {{128, 650}};
  std::string wrong = run_emulated(call, 3);
  call.mask = MaskKind::kCausal;
  call.sequences = {{250, 500}, {20, 20}};
  if (wrong.empty()) wrong = run_emulated(call, 4);
  call.mask = MaskKind::kWindow;
  call.span = 260;
  return wrong.empty() ? run_emulated(call, 5) : wrong;
}

std::uint64_t emulated_calls() {
  const char* const wanted = std::getenv("ATTN_EMULATED_CALLS");
  return wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 32;
}
namespace {

/// Key and channel of a row, or -1.
int lone_key(int row) {
  const int warp = row / 16 % 16;
  return row / 8 % 2 == warp % 2 ? warp / 2 * 16 + warp * 3 % 16 : -1;
}

bool sees(const EmulatedCall& p, int rows, int keys, int query, int key) {
  const int at = p.top_left ? query : keys - rows + query;
  switch (p.mask) {
    case MaskKind::kNone:
      return true;
    case MaskKind::kCausal:
      return key <= at;
    case MaskKind::kChunked:
      return key <= at && key / p.span == at / p.span;
    case MaskKind::kWindow:
      return key <= at && at - key < p.span;
    case MaskKind::kLookback:
      return at - key < p.span;
  }
  return false;
}

}  // namespace

EmulatedMemory::EmulatedMemory(const EmulatedCall& p, std::uint64_t seed) : random(seed) {
  std::normal_distribution<float> normal;
  const auto draw = [&] { return to_bits(normal(random), p.type); };
  const Type cache_type = p.coded ? Type::kFloat8E4M3 : p.type;
  // Of each head, where the call has as many: what the kernel may read is as long as its kind.
  const int kept = p.scales == CacheScales::kHead ? p.kv_heads : 1;
  for (int h = 0; h < kept; ++h) {
    const float size = p.any_codes ? 0.004f : 0.05f;
    std::uniform_real_distribution<float> uniform(0.5f * size, 2.0f * size);
    k_scales.push_back(p.key_scales.empty() ? uniform(random)
                                            : p.key_scales[static_cast<std::size_t>(h)]);
    v_scales.push_back(uniform(random));
  }
  // Values of about 1 and the codes that mean them, or any codes.
  const auto put = [&](EmulatedPool& pool, std::size_t i, double scale, float size = 1.0f) {
    if (p.coded && p.any_codes) {
      const auto code = std::uniform_int_distribution<unsigned>(0, 253)(random);
      return pool.put_code(i, static_cast<std::uint8_t>(code < 127 ? code : code + 1));
    }
    pool.put(i, size * normal(random) / static_cast<float>(scale == 0.0 ? 1.0 : std::abs(scale)));
  };
  int pages = 0;
  offsets.push_back(0);
  for (const auto& [rows, keys] : p.sequences) {
    offsets.push_back(offsets.back() + static_cast<std::uint32_t>(rows));
    lengths.push_back(static_cast<std::uint32_t>(keys));
    columns = std::max(columns, (keys + p.page_size - 1) / p.page_size);
    pages += (keys + p.page_size - 1) / p.page_size;
  }
  columns += 1;
  tokens = static_cast<int>(offsets.back()) + kPaddingRows;
  pool_pages = pages + 2;
  std::vector<std::uint32_t> free;
  for (int i = 0; i < pool_pages; ++i) free.push_back(static_cast<std::uint32_t>(i));
  std::shuffle(free.begin(), free.end(), random);
  // Behind a sequence's pages: one that is no page at all.
  table.assign(p.sequences.size() * static_cast<std::size_t>(columns), 0x7fffff00U);
  q.assign(static_cast<std::size_t>(tokens * p.heads * p.head_dim), kNan);
  for (std::uint32_t i = 0; i < offsets.back() * static_cast<std::uint32_t>(p.heads * p.head_dim);
       ++i) {
    q[i] = draw();
    const auto row = static_cast<int>(i) / (p.heads * p.head_dim);
    if (row / 8 % 2 == p.level_rows) q[i] = 0;
    if (p.lone_keys) {
      const bool lone = static_cast<int>(i) % p.head_dim == lone_key(row);
      q[i] = to_bits(lone ? kLoneQuery : 0.0f, p.type);
    }
  }
  const std::size_t slots =
      static_cast<std::size_t>(pool_pages) * static_cast<std::size_t>(p.page_size * p.kv_heads);
  k.reserve(cache_type, slots * static_cast<std::size_t>(p.head_dim));
  v.reserve(cache_type, slots * static_cast<std::size_t>(p.head_dim_v));
  for (std::size_t b = 0; b < p.sequences.size(); ++b) {
    for (int key = 0; key < p.sequences[b][1]; ++key) {
      std::uint32_t& page = table[b * static_cast<std::size_t>(columns) +
                                  static_cast<std::size_t>(key / p.page_size)];
      if (key % p.page_size == 0) {
        page = free.back();
        free.pop_back();
      }
      for (int h = 0; h < p.kv_heads; ++h) {
        const std::size_t row = row_of(p, page, key % p.page_size, h);
        const int steps_behind = (p.sequences[b][1] - 1 - key) / 128;
        const float size = std::min(std::pow(p.rise, static_cast<float>(steps_behind)), kMostRise);
        for (int d = 0; d < p.head_dim; ++d) {
          const std::size_t at =
              row * static_cast<std::size_t>(p.head_dim) + static_cast<std::size_t>(d);
          const double scale = scale_of(p, k_scales, h);
          put(k, at, scale, size);
          if (p.lone_keys && key == d) k.put(at, kLoneKey / static_cast<float>(scale));
        }
        for (int d = 0; d < p.head_dim_v; ++d) {
          put(v, row * static_cast<std::size_t>(p.head_dim_v) + static_cast<std::size_t>(d),
              scale_of(p, v_scales, h));
        }
      }
    }
  }
  out.assign(static_cast<std::size_t>(tokens * p.heads * p.head_dim_v), kNan);
  lse.assign(static_cast<std::size_t>(tokens * p.heads), std::numeric_limits<float>::quiet_NaN());
  for (int h = 0; h < p.heads; ++h) sinks.push_back(normal(random));
}

AttentionArguments arguments_of(const EmulatedCall& p, EmulatedMemory& m) {
  AttentionArguments a;
  a.type = p.type;
  a.q = m.q.data();
  a.out = m.out.data();
  a.lse = m.lse.data();
  a.num_heads = p.heads;
  a.num_kv_heads = p.kv_heads;
  a.head_dim = p.head_dim;
  a.head_dim_v = p.head_dim_v;
  a.scale = p.scale;
  a.softcap = p.softcap;
  a.mask = p.mask;
  a.span = p.span;
  a.top_left = p.top_left;
  a.sinks = p.sinks ? m.sinks.data() : nullptr;
  a.batch = {m.offsets.data(), m.lengths.data(), static_cast<std::int64_t>(p.sequences.size()),
             m.tokens, false};
  CacheView& c = a.cache;
  c.k = m.k.data();
  c.v = m.v.data();
  c.type = p.coded ? Type::kFloat8E4M3 : p.type;
  c.scales = p.coded ? p.scales : CacheScales::kNone;
  if (c.scales != CacheScales::kNone) {
    c.k_scale = m.k_scales.data();
    c.v_scale = m.v_scales.data();
  }
  const auto strides = [&](int dim, std::int64_t& page, std::int64_t& token, std::int64_t& head) {
    page = static_cast<std::int64_t>(p.page_size) * p.kv_heads * dim;
    token = p.heads_first ? dim : p.kv_heads * dim;
    head = p.heads_first ? p.page_size * dim : dim;
  };
  strides(p.head_dim, c.k_page_stride, c.k_token_stride, c.k_head_stride);
  strides(p.head_dim_v, c.v_page_stride, c.v_token_stride, c.v_head_stride);
  c.page_table = m.table.data();
  c.table_stride = m.columns;
  c.page_size = p.page_size;
  return a;
}

namespace {

struct Row {
  std::vector<double> out, tolerance;
  double lse = -std::numeric_limits<double>::infinity();
};
/// Of a vector of q, the values that are multiplied. Those of fp8 products are rounded to e4m3,
/// under the power of two that brings the largest magnitude into [128, 256).
std::vector<double> queries_of(const EmulatedCall& p, const EmulatedMemory& m, std::size_t q_row) {
  std::vector<double> q;
  double most = 0.0;
  for (std::size_t d = 0; d < static_cast<std::size_t>(p.head_dim); ++d) {
    q.push_back(double{from_bits(m.q[q_row * static_cast<std::size_t>(p.head_dim) + d], p.type)});
    most = std::max(most, std::abs(q.back()));
  }
  if (!p.fp8 || most == 0.0) return q;
  const int up = 7 - std::ilogb(most);
  for (double& x : q) {
    x = std::ldexp(from_code(to_code(static_cast<float>(std::ldexp(x, up)))), -up);
  }
  return q;
}

/// Of a value o = sum p v: probabilities of fp8 products are off by 2^-4 of themselves, each on its
/// own (magnitude: sum p |v|; squares: sum p^2 v^2), and below 2^-6 / 64 by 2^-10 / 64; the
/// result by half a unit of its type, and float32 sums and exponentials by less than 2^-16.
double fp8_tolerance(const EmulatedCall& p, double o, double magnitude, double squares,
                     double floor) {
  const double result = p.type == Type::kFloat16 ? 0x1p-11 : 0x1p-8;
  const double rounded =
      0x1p-4 * std::min(magnitude, 4.0 * std::sqrt(squares) + std::abs(o)) + 0x1p-16 * floor;
  return rounded + result * (std::abs(o) + rounded) + 0x1p-16 * magnitude + 1e-7;
}

Row expected_row(const EmulatedCall& p, const EmulatedMemory& m, std::size_t b, int query,
                 int head) {
  const auto [rows, keys] = p.sequences[b];
  const int kv_head = head / (p.heads / p.kv_heads);
  const std::size_t q_row =
      (m.offsets[b] + static_cast<std::size_t>(query)) * static_cast<std::size_t>(p.heads) +
      static_cast<std::size_t>(head);
  const std::vector<double> q = queries_of(p, m, q_row);
  Row row;
  row.out.assign(static_cast<std::size_t>(p.head_dim_v), 0.0);
  // Outputs in the type: half a unit of the largest value, 2^-8 of 4; probabilities rounded to it.
  row.tolerance.assign(row.out.size(), p.type == Type::kFloat16 ? 0.004 : 0.03);
  std::vector<double> score(static_cast<std::size_t>(keys),
                            -std::numeric_limits<double>::infinity());
  double most = p.sinks ? double{m.sinks[static_cast<std::size_t>(head)]}
                        : -std::numeric_limits<double>::infinity();
  const auto at = [&](int key) {
    return EmulatedMemory::row_of(p,
                                  m.table[b * static_cast<std::size_t>(m.columns) +
                                          static_cast<std::size_t>(key / p.page_size)],
                                  key % p.page_size, kv_head);
  };
  for (int key = 0; key < keys; ++key) {
    if (!sees(p, rows, keys, query, key)) continue;
    double s = 0.0;
    for (std::size_t d = 0; d < q.size(); ++d) {
      s += q[d] * m.k.at(at(key) * static_cast<std::size_t>(p.head_dim) + d);
    }
    s *= double{p.scale} * EmulatedMemory::scale_of(p, m.k_scales, kv_head);
    if (p.softcap > 0.0f) s = double{p.softcap} * std::tanh(s / double{p.softcap});
    score[static_cast<std::size_t>(key)] = s;
    most = std::max(most, s);
  }
  if (most == -std::numeric_limits<double>::infinity()) return row;
  std::vector<double> magnitude(row.out.size()), squares(row.out.size()), all(row.out.size());
  double sum = p.sinks ? std::exp(double{m.sinks[static_cast<std::size_t>(head)]} - most) : 0.0;
  for (int key = 0; key < keys; ++key) {
    const double weight = std::exp(score[static_cast<std::size_t>(key)] - most);
    if (weight == 0.0) continue;
    sum += weight;
    for (std::size_t d = 0; d < static_cast<std::size_t>(p.head_dim_v); ++d) {
      const double v = m.v.at(at(key) * static_cast<std::size_t>(p.head_dim_v) + d);
      row.out[d] += weight * v;
      magnitude[d] += weight * std::abs(v);
      squares[d] += weight * weight * v * v;
      all[d] += std::abs(v);
    }
  }
  const double factor = EmulatedMemory::scale_of(p, m.v_scales, kv_head) / sum;
  const double largest =
      score.empty() ? 0.0 : std::exp(*std::max_element(score.begin(), score.end()) - most);
  for (std::size_t d = 0; d < row.out.size(); ++d) {
    row.out[d] *= factor;
    if (!p.fp8) continue;
    row.tolerance[d] = fp8_tolerance(p, row.out[d], magnitude[d] * factor,
                                     squares[d] * factor * factor, all[d] * largest * factor);
  }
  row.lse = most + std::log(sum);
  return row;
}

}  // namespace

std::string judge(const EmulatedCall& p, const EmulatedMemory& m, int every) {
  int judged = 0;
  for (std::size_t b = 0; b < p.sequences.size(); ++b) {
    for (int query = 0; query < p.sequences[b][0]; ++query) {
      for (int head = 0; head < p.heads; ++head, ++judged) {
        const std::size_t vector =
            (m.offsets[b] + static_cast<std::size_t>(query)) * static_cast<std::size_t>(p.heads) +
            static_cast<std::size_t>(head);
        const std::string where = " of sequence " + std::to_string(b) + " query " +
                                  std::to_string(query) + " head " + std::to_string(head);
        if (std::isnan(m.lse[vector])) return "no lse" + where;
        if (judged % every != 0) continue;
        const Row row = expected_row(p, m, b, query, head);
        for (std::size_t d = 0; d < row.out.size(); ++d) {
          const double got = double{from_bits(m.out[vector * row.out.size() + d], p.type)};
          if (!(std::abs(got - row.out[d]) <= row.tolerance[d])) {
            return "channel " + std::to_string(d) + where + ": " + std::to_string(got) + " not " +
                   std::to_string(row.out[d]) + " within " + std::to_string(row.tolerance[d]);
          }
        }
        const double lse = double{m.lse[vector]};
        if (!(lse == row.lse || std::abs(lse - row.lse) <= 1e-3)) {
          return "lse" + where + ": " + std::to_string(lse) + " not " + std::to_string(row.lse);
        }
      }
    }
  }
  for (std::size_t i = m.offsets.back() * static_cast<std::size_t>(p.heads * p.head_dim_v);
       i < m.out.size(); ++i) {
    if (m.out[i] != kNan) return "a padding row was written";
  }
  return "";
}

}  // namespace attn::gpu
