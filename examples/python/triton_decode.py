"""Paged decode in Triton: attn-compare fuzz --backend py:examples/python/triton_decode.py:decode"""
from triton import jit, language as tl
import attn_compare as ac
@jit
def kernel(q, k, v, table, lengths, out, scale, pages, H, G, tail, D: tl.constexpr, PAGE: tl.constexpr):
    b, h, d, slot = tl.program_id(0), tl.program_id(1), tl.arange(0, D), tl.arange(0, PAGE)
    x, n = tl.load(q + (b * H * G + h) * D + d).to(tl.float32) * scale, tl.load(lengths + b)
    top, total, acc = -float("inf"), 0.0, tl.zeros([D], tl.float32)
    for i in range(tl.cdiv(n, PAGE)):
        at = ((tl.load(table + b * pages + i).to(tl.int64) * PAGE + slot) * H + h // G)[:, None] * D + d
        s = tl.where(i * PAGE + slot < n + tail, tl.sum(tl.load(k + at).to(tl.float32) * x, 1), -float("inf"))
        new = tl.maximum(top, tl.max(s, 0))
        p, old = tl.exp(s - new), tl.exp(top - new)
        seen = tl.where(s[:, None] > -float("inf"), p[:, None] * tl.load(v + at).to(tl.float32), 0)
        acc = acc * old + tl.sum(seen, 0)
        total, top = total * old + tl.sum(p, 0), new
    tl.store(out + (b * H * G + h) * D + d, acc / tl.where(total > 0, total, 1))
@ac.backend(queries=1, lse=False, arithmetic=ac.Arithmetic(exp_rel=2**-21, block=1), supports=lambda c: c.beyond(
    "cache_dtype") or {c.head_dim, c.page_size} <= {2**i for i in range(1, 10)} or "sizes are no powers of 2")
def decode(problem, tail=0):
    p, c = problem.to("torch", "cuda"), problem.config
    out = p.q.float().clone()  # of the results' shape and type, to be overwritten
    kernel[p.batch, c.num_heads](p.q, p.k_cache, p.v_cache, p.page_table_device, p.key_lengths_device, out,
        p.scale, p.page_table.shape[1], c.num_kv_heads, c.group_size, tail, D=c.head_dim, PAGE=c.page_size)
    return out
