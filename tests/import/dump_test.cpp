// Dumped tensors of a kernel become an attention case, and the dumped answer is judged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "golden/golden_file.h"
#include "reference/core/element.h"
#include "tests/import/files.h"

namespace attn::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

/// Attention of dense sequences in double, as anyone would write it: q [B][S][H][D] and so on.
struct Plain {
  std::int64_t batch = 2, queries = 5, keys = 9, heads = 4, kv_heads = 2, dim = 8, dim_v = 6;
  Tensor q, k, v;
  std::vector<double> out;  ///< [B][S][H][Dv]
  std::vector<double> lse;  ///< [B][S][H]

  explicit Plain(ElementType type) {
    q = random_tensor("q", type, {batch, queries, heads, dim});
    k = random_tensor("k", type, {batch, keys, kv_heads, dim});
    v = random_tensor("v", type, {batch, keys, kv_heads, dim_v});
    for (std::int64_t row = 0; row < batch * queries; ++row) {
      for (std::int64_t h = 0; h < heads; ++h) add(row / queries, row % queries, h);
    }
  }

 private:
  void add(std::int64_t b, std::int64_t i, std::int64_t h) {
    const std::int64_t g = h / (heads / kv_heads);
    const std::int64_t visible = keys - queries + i + 1;  // causal
    std::vector<double> score;
    for (std::int64_t j = 0; j < visible; ++j) {
      double dot = 0.0;
      for (std::int64_t c = 0; c < dim; ++c) {
        dot += q.value(((b * queries + i) * heads + h) * dim + c) *
               k.value(((b * keys + j) * kv_heads + g) * dim + c);
      }
      score.push_back(dot / std::sqrt(static_cast<double>(dim)));
    }
    const double top = *std::max_element(score.begin(), score.end());
    double total = 0.0;
    std::vector<double> sum(static_cast<std::size_t>(dim_v));
    for (std::int64_t j = 0; j < visible; ++j) {
      const double p = std::exp(score[static_cast<std::size_t>(j)] - top);
      total += p;
      for (std::int64_t c = 0; c < dim_v; ++c) {
        sum[static_cast<std::size_t>(c)] +=
            p * v.value(((b * keys + j) * kv_heads + g) * dim_v + c);
      }
    }
    for (const double s : sum) out.push_back(s / total);
    lse.push_back(top + std::log(total));
  }
};

/// Axes 1 and 2 of a tensor changed.
Tensor swapped(const Tensor& t) {
  const Shape& s = t.shape();
  Tensor out(t.type(), {s[0], s[2], s[1], s[3]});
  for (std::int64_t flat = 0; flat < t.size(); ++flat) {
    const std::int64_t c = flat % s[3], j = flat / s[3] % s[2], i = flat / s[3] / s[2] % s[1];
    const std::int64_t b = flat / s[3] / s[2] / s[1];
    out.set_code(((b * s[2] + j) * s[1] + i) * s[3] + c, t.code(flat));
  }
  return out;
}

Tensor reshaped(const Tensor& t, Shape shape) {
  Tensor out(t.type(), std::move(shape));
  std::ranges::copy(t.bytes(), out.bytes().begin());
  return out;
}

Ran import(const std::string& file, const std::string& layout, const std::string& map,
           const std::string& out, const std::vector<std::string>& more = {}) {
  std::vector<std::string> args = {"golden", "import", "--tensors", file, "--layout", layout,
                                   "--map",  map,      "-o",        out,  "--force"};
  args.insert(args.end(), more.begin(), more.end());
  return run(args);
}

/// Two keys with weights 1/4 and 3/4: q.k1 = ln 3. out = (4, 0)/4 + 3 (8, 4)/4 = (7, 3), lse =
/// ln 4. ln 3 is rounded to float32, by at most 2^-24; the derivative of a weight is p (1 - p) =
/// 3/16 and the values differ by 4, so out moves by less than 2^-24, lse by 3/4 of 2^-24.
TEST(Dump, HandWorked) {
  const TempFolder folder;
  const ElementType f32 = ElementType::kFloat32;
  const Tensors t = {
      {"Q", Tensor::from_values(f32, {1, 1, 2}, std::vector<double>{1, 0})},
      {"K", Tensor::from_values(f32, {2, 1, 2}, std::vector<double>{0, 0, std::log(3.0), 5})},
      {"V", Tensor::from_values(f32, {2, 1, 2}, std::vector<double>{4, 0, 8, 4})},
      {"O", Tensor::from_values(f32, {1, 2}, std::vector<double>{7, 3})},
      {"L", Tensor::from_values(f32, {1, 1}, std::vector<double>{std::log(4.0)})}};
  write_bytes(folder / "d.safetensors", safetensors_bytes(t));
  const Ran ran = import(folder / "d.safetensors", "thd", "q=Q,k=K,v=V,out=O,lse=L",
                         folder / "d.h5", {"--config", R"({"scale": 1.0})"});
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("2 passed, 0 failed"));
  const golden::GoldenFile file = golden::read(folder / "d.h5");
  EXPECT_NEAR(file.datasets.at("expected/attn_out").value(0), 7.0, 0x1p-24);
  EXPECT_NEAR(file.datasets.at("expected/attn_out").value(1), 3.0, 0x1p-24);
  EXPECT_NEAR(file.datasets.at("expected/lse").value(0), std::log(4.0), 0x1p-24);
}

TEST(Dump, EveryLayoutIsTheSameCase) {
  const Plain p(ElementType::kFloat16);
  const TempFolder folder;
  const Tensor out =
      Tensor::from_values(ElementType::kFloat16, {p.batch, p.queries, p.heads, p.dim_v}, p.out);
  const Tensor lse =
      Tensor::from_values(ElementType::kFloat32, {p.batch, p.queries, p.heads, 1}, p.lse);
  const Tensor lse_by_head = reshaped(swapped(lse), {p.batch, p.heads, p.queries});
  write_npz(folder / "bshd.npz",
            {{"q", p.q}, {"k", p.k}, {"v", p.v}, {"o", out}, {"l", lse_by_head}}, false);
  write_npz(folder / "bhsd.npz",
            {{"q", swapped(p.q)},
             {"k", swapped(p.k)},
             {"v", swapped(p.v)},
             {"o", swapped(out)},
             {"l", lse_by_head}},
            true);
  const auto flat = [](const Tensor& t) {
    return reshaped(t, {t.dim(0) * t.dim(1), t.dim(2), t.dim(3)});
  };
  const std::vector<double> q_ends = {0, 5, 10}, k_ends = {0, 9, 18};
  write_bytes(folder / "thd.safetensors",
              safetensors_bytes({{"q", flat(p.q)},
                                 {"k", flat(p.k)},
                                 {"v", flat(p.v)},
                                 {"o", reshaped(out, {10, p.heads * p.dim_v})},
                                 {"l", reshaped(lse, {10, p.heads})},
                                 {"cq", Tensor::from_values(ElementType::kInt32, {3}, q_ends)},
                                 {"ck", Tensor::from_values(ElementType::kInt32, {3}, k_ends)}}));
  const std::string map = "q=q,k=k,v=v,out=o,lse=l";
  std::vector<std::string> digests;
  for (const auto& [file, layout, more] :
       {std::tuple{"bshd.npz", "bshd", ""},
        {"bhsd.npz", "bhsd", ""},
        {"thd.safetensors", "thd", ",cu_seqlens_q=cq,cu_seqlens_k=ck"}}) {
    SCOPED_TRACE(file);
    const Ran ran = import(folder / file, layout, map + more, folder / "d.h5");
    EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
    EXPECT_THAT(ran.out, HasSubstr("2 passed, 0 failed"));
    digests.push_back(golden::read(folder / "d.h5").content_sha256);
  }
  EXPECT_EQ(digests[0], digests[1]);
  EXPECT_EQ(digests[0], digests[2]);
  const Ran verified = run({"verify", folder / "d.h5", "--backend", "exact", "--backend", "cpu"});
  EXPECT_EQ(verified.code, 0) << verified.out;
  // [heads, tokens] is known by its shape.
  const Tensor by_head = reshaped(swapped(reshaped(lse, {1, 10, p.heads, 1})), {p.heads, 10});
  write_npz(folder / "hl.npz",
            {{"q", flat(p.q)}, {"k", flat(p.k)}, {"v", flat(p.v)}, {"l", by_head}}, false);
  EXPECT_EQ(import(folder / "hl.npz", "thd", "q=q,k=k,v=v,lse=l", folder / "d.h5",
                   {"--tokens", "[[5, 9], [5, 9]]"})
                .code,
            0);
}

TEST(Dump, AWrongAnswerFails) {
  const Plain p(ElementType::kBFloat16);
  const TempFolder folder;
  std::vector<double> wrong = p.out;
  // One head's output in another's place, in the last row.
  std::swap_ranges(wrong.end() - p.dim_v, wrong.end(), wrong.end() - 2 * p.dim_v);
  const Shape shape = {p.batch, p.queries, p.heads, p.dim_v};
  const Tensor out = Tensor::from_values(ElementType::kBFloat16, shape, wrong);
  write_npz(folder / "d.npz", {{"q", p.q}, {"k", p.k}, {"v", p.v}, {"o", out}}, true);
  const Ran ran = import(folder / "d.npz", "bshd", "q=q,k=k,v=v,out=o", folder / "d.h5");
  EXPECT_EQ(ran.code, 1) << ran.out << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("first bad stage  attn_out"));
  EXPECT_THAT(ran.out, HasSubstr("row 9 (sequence 1, position 8)"));
  EXPECT_THAT(ran.out, HasSubstr("1 passed, 1 failed"));
}

TEST(Dump, MaskScaleAndCapChangeTheAnswer) {
  const Plain p(ElementType::kFloat32);
  const TempFolder folder;
  const Shape shape = {p.batch, p.queries, p.heads, p.dim_v};
  const Tensor out = Tensor::from_values(ElementType::kFloat32, shape, p.out);
  write_npz(folder / "d.npz", {{"q", p.q}, {"k", p.k}, {"v", p.v}, {"o", out}}, true);
  const auto code = [&](const std::string& config) {
    return import(folder / "d.npz", "bshd", "q=q,k=k,v=v,out=o", folder / "d.h5",
                  {"--config", config})
        .code;
  };
  EXPECT_EQ(code(R"({"mask": {"variant": "causal"}})"), 0);
  EXPECT_EQ(code(R"({"mask": {"variant": "null"}})"), 1);
  EXPECT_EQ(code(R"({"scale": 0.5})"), 1);
  EXPECT_EQ(code(R"({"logit_softcap": 1.0})"), 1);
  EXPECT_EQ(code(R"({"head_dim": 8})"), 2);
  EXPECT_EQ(code(R"({"maks": {"variant": "null"}})"), 2);
}

/// The causal rule as a mask tensor gives the same answer; so do boolean and added ones.
TEST(Dump, MaskTensors) {
  const Plain p(ElementType::kFloat16);
  const TempFolder folder;
  const Shape shape = {p.batch, p.queries, p.heads, p.dim_v};
  Tensor seen(ElementType::kUInt8, {1, 1, p.queries, p.keys});
  Tensor added(ElementType::kFloat32, {p.queries, p.keys});
  for (std::int64_t i = 0; i < p.queries; ++i) {
    for (std::int64_t j = 0; j < p.keys; ++j) {
      const bool visible = j <= p.keys - p.queries + i;
      seen.set_code(i * p.keys + j, visible ? 1 : 0);
      added.set_value(i * p.keys + j, visible ? 0.0 : -std::numeric_limits<double>::infinity());
    }
  }
  write_npz(folder / "d.npz",
            {{"q", p.q},
             {"k", p.k},
             {"v", p.v},
             {"o", Tensor::from_values(ElementType::kFloat16, shape, p.out)},
             {"seen", seen},
             {"added", added},
             {"narrow", reshaped(seen, {1, 1, p.keys, p.queries})}},
            true);
  const auto import_with = [&](const std::string& mask) {
    return import(folder / "d.npz", "bshd", "q=q,k=k,v=v,out=o,mask=" + mask, folder / "d.h5");
  };
  EXPECT_EQ(import_with("seen").code, 0);
  EXPECT_EQ(import_with("added").code, 0);
  EXPECT_EQ(golden::read(folder / "d.h5").config().mask.variant, MaskVariant::kTensor);
  EXPECT_EQ(run({"verify", folder / "d.h5", "--backend", "cpu"}).code, 0);
  const Ran narrow = import_with("narrow");
  EXPECT_EQ(narrow.code, 3);
  EXPECT_THAT(narrow.err, HasSubstr("narrow"));
}

TEST(Dump, PaddingBehindTheLengthsIsNotRead) {
  Plain p(ElementType::kFloat32);
  const TempFolder folder;
  for (std::int64_t i = 7 * p.kv_heads * p.dim; i < 9 * p.kv_heads * p.dim; ++i) {
    p.k.set_value(i, std::nan(""));
  }
  const Tensor lengths = Tensor::from_values(ElementType::kInt64, {2}, std::vector<double>{7, 9});
  write_npz(folder / "d.npz", {{"q", p.q}, {"k", p.k}, {"v", p.v}, {"n", lengths}}, false);
  const Ran ran = import(folder / "d.npz", "bshd", "q=q,k=k,v=v,kv_lengths=n", folder / "d.h5");
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
  const golden::GoldenFile file = golden::read(folder / "d.h5");
  EXPECT_EQ(file.datasets.at("cache/k").dim(0), 16);
  for (const double value : file.datasets.at("expected/attn_out").values()) {
    EXPECT_TRUE(std::isfinite(value));
  }
}

TEST(Dump, Float8CachesWithScales) {
  const TempFolder folder;
  const Tensors t = {
      {"q", random_tensor("q", ElementType::kBFloat16, {3, 4, 16})},
      {"k", random_tensor("k", ElementType::kFloat8E4M3FN, {11, 2, 16}, 4.0)},
      {"v", random_tensor("v", ElementType::kFloat8E4M3FN, {11, 2, 16}, 4.0)},
      {"ks", Tensor::from_values(ElementType::kFloat32, {2}, std::vector<double>{0.3, 0.2})},
      {"vs", Tensor::from_values(ElementType::kFloat32, {2}, std::vector<double>{0.7, 0.4})},
      {"bad", random_tensor("b", ElementType::kFloat32, {5})}};
  write_bytes(folder / "d.safetensors", safetensors_bytes(t));
  const Ran ran =
      import(folder / "d.safetensors", "thd", "q=q,k=k,v=v,k_scale=ks,v_scale=vs", folder / "d.h5");
  EXPECT_EQ(ran.code, 0) << ran.out << ran.err;
  const AttentionConfig c = golden::read(folder / "d.h5").config();
  EXPECT_EQ(c.kv_cache.dtype, ElementType::kFloat8E4M3FN);
  EXPECT_EQ(c.kv_cache.scale_granularity, ScaleGranularity::kHead);
  const Ran verified = run({"verify", folder / "d.h5", "--backend", "exact", "--backend", "cpu"});
  EXPECT_EQ(verified.code, 0) << verified.out;
  EXPECT_EQ(
      import(folder / "d.safetensors", "thd", "q=q,k=k,v=v,k_scale=bad,v_scale=vs", folder / "d.h5")
          .code,
      3);
}

TEST(Dump, Sinks) {
  const TempFolder folder;
  const Tensors t = {{"q", random_tensor("q", ElementType::kBFloat16, {3, 4, 16})},
                     {"k", random_tensor("k", ElementType::kBFloat16, {11, 2, 16})},
                     {"v", random_tensor("v", ElementType::kBFloat16, {11, 2, 16})},
                     {"s", random_tensor("s", ElementType::kFloat32, {4})}};
  write_bytes(folder / "d.safetensors", safetensors_bytes(t));
  EXPECT_EQ(import(folder / "d.safetensors", "thd", "q=q,k=k,v=v,sinks=s", folder / "d.h5").code,
            0);
  EXPECT_EQ(golden::read(folder / "d.h5").datasets.at("weights/sinks"), t.at("s"));
  EXPECT_EQ(import(folder / "d.safetensors", "thd", "q=q,k=k,v=v,sinks=k", folder / "d.h5").code,
            3);
}

/// Some rows of a case, each with what it sees as a mask row, have the same answers as in the
/// whole.
TEST(Dump, SampledRowsKeepTheirAnswers) {
  const TempFolder folder;
  const std::int64_t rows = 300;
  const Tensors t = {{"q", random_tensor("q", ElementType::kFloat32, {rows, 2, 8})},
                     {"k", random_tensor("k", ElementType::kFloat32, {rows, 1, 8})},
                     {"v", random_tensor("v", ElementType::kFloat32, {rows, 1, 8})}};
  write_bytes(folder / "d.safetensors", safetensors_bytes(t));
  const std::vector<std::string> window = {
      "--config", R"({"mask": {"variant": "sliding_window_causal", "window_size": 40}})",
      "--tokens", "[[120, 100], [180, 200]]"};
  const auto import_rows = [&](const std::string& selection, const std::string& out) {
    std::vector<std::string> more = window;
    more.insert(more.end(), {"--rows", selection});
    return import(folder / "d.safetensors", "thd", "q=q,k=k,v=v", out, more);
  };
  ASSERT_EQ(import_rows("all", folder / "all.h5").code, 0);
  const Ran sampled = import_rows("10", folder / "some.h5");
  ASSERT_EQ(sampled.code, 0) << sampled.out << sampled.err;
  EXPECT_THAT(sampled.out, HasSubstr("of 300 query rows"));

  const golden::GoldenFile all = golden::read(folder / "all.h5");
  const golden::GoldenFile some = golden::read(folder / "some.h5");
  const auto kept = json::parse(json::parse(some.provenance_json)["rows"].get<std::string>());
  ASSERT_GT(kept.size(), 10U);
  ASSERT_LT(kept.size(), 100U);
  const Tensor& want = all.datasets.at("expected/attn_out");
  const Tensor& got = some.datasets.at("expected/attn_out");
  ASSERT_EQ(got.dim(0), static_cast<std::int64_t>(kept.size()));
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (std::int64_t c = 0; c < want.dim(1); ++c) {
      EXPECT_DOUBLE_EQ(got.value(static_cast<std::int64_t>(i) * want.dim(1) + c),
                       want.value(kept[i].get<std::int64_t>() * want.dim(1) + c));
    }
  }
  EXPECT_EQ(run({"verify", folder / "some.h5", "--backend", "exact", "--backend", "cpu"}).code, 0);
}

TEST(Dump, RefusalsNameTheTensor) {
  const Plain p(ElementType::kFloat32);
  const TempFolder folder;
  write_npz(folder / "d.npz",
            {{"q", p.q},
             {"k", p.k},
             {"v", p.v},
             {"half", random_tensor("h", ElementType::kFloat16, p.v.shape())},
             {"ints", random_bytes("i", ElementType::kInt32, p.q.shape())},
             {"n", Tensor::from_values(ElementType::kInt64, {2}, std::vector<double>{7, 10})},
             {"wide", random_tensor("w", ElementType::kFloat32, {2, 5, 4, 7})}},
            false);
  const auto refused = [&](int code, const std::string& layout, const std::string& map,
                           const std::string& what) {
    const Ran ran = import(folder / "d.npz", layout, map, folder / "d.h5");
    EXPECT_EQ(ran.code, code) << map << ran.out;
    EXPECT_THAT(ran.err, HasSubstr(what));
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
  };
  refused(3, "bshd", "q=q,k=k,v=absent", "absent: is not in the file");
  refused(3, "thd", "q=q,k=k,v=v", "try --layout bhsd or bshd");
  refused(3, "bhsd", "q=q,k=k,v=v", "num_key_value_heads");
  refused(3, "bshd", "q=q,k=k,v=half", "another type than k");
  refused(3, "bshd", "q=ints,k=k,v=v", "dtype");
  refused(3, "bshd", "q=wide,k=k,v=v", "channels a head");
  refused(3, "bshd", "q=q,k=k,v=v,kv_lengths=n", "lengths");
  refused(3, "bshd", "q=q,k=k,v=v,out=wide", "q and v make");
  refused(3, "bshd", "q=q,k=k,v=v,lse=n", "fits neither");
  refused(2, "bshd", "q=q,k=k", "v is missing");
  refused(2, "bshd", "q=q,k=k,vv=v", "unknown role \"vv\"");
  refused(2, "bsdh", "q=q,k=k,v=v", "--layout bsdh");
  refused(2, "bshd", "q,k=k,v=v", "ROLE=NAME");
}

}  // namespace
}  // namespace attn::test
