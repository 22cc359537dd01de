"""Paged decode in Triton: attn-compare fuzz --backend py:examples/python/triton_decode.py:decode"""
import torch
import triton
import triton.language as tl
import attn_compare as ac


@triton.jit
def kernel(q, k, v, table, lengths, out, scale, pages, H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, PAGE: tl.constexpr, TAIL: tl.constexpr):
    b, h, d, slot = tl.program_id(0), tl.program_id(1), tl.arange(0, D), tl.arange(0, PAGE)
    x, n = tl.load(q + (b * H * G + h) * D + d).to(tl.float32) * scale, tl.load(lengths + b)
    top, total, acc = -float("inf"), 0.0, tl.zeros([D], tl.float32)
    for i in range(tl.cdiv(n, PAGE)):
        at = ((tl.load(table + b * pages + i).to(tl.int64) * PAGE + slot) * H + h // G)[:, None] * D + d
        see = i * PAGE + slot < n + TAIL
        s = tl.where(see, tl.sum(tl.load(k + at).to(tl.float32) * x, 1), -float("inf"))
        new = tl.maximum(top, tl.max(s, 0))
        p, old = tl.exp(s - new), tl.exp(top - new)
        acc = acc * old + tl.sum(p[:, None] * tl.load(v + at, see[:, None], 0).to(tl.float32), 0)
        total, top = total * old + tl.sum(p, 0), new
    tl.store(out + (b * H * G + h) * D + d, acc / tl.where(total > 0, total, 1))


def run(problem, tail):
    p = problem.to("torch", "cuda")
    out = torch.empty(p.batch, p.config.num_heads, p.config.head_dim, device="cuda")
    if p.tokens != p.batch or (p.row_offsets[1:] - p.row_offsets[:-1]).max() != 1:
        raise ac.Unsupported("only one query row a sequence")
    kernel[p.batch, p.config.num_heads](p.q, p.k_cache, p.v_cache, p.page_table_device, p.key_lengths_device, out, p.scale, p.page_table.shape[1], p.config.num_kv_heads, p.config.group_size, p.config.head_dim, p.config.page_size, tail)
    return out


def supports(c):
    powers = all(n > 1 and n & (n - 1) == 0 for n in (c.head_dim, c.page_size))
    extras = c.softcap or c.has_sinks or c.scale_granularity or c.head_dim != c.head_dim_v
    return powers and c.mask in ("null", "causal") and not c.top_left and not extras or "only plain decode"


take = ac.backend("decode", supports=supports, lse=False, arithmetic=ac.Arithmetic(exp_rel=2**-21, block=1))
decode = take(lambda problem: run(problem, 0))
