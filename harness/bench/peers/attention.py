"""Attention alone: ours on shuffled pages, the peers on contiguous caches."""
import math

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from exact import attention as exact_attention
from exact import bound, fp8_attention, sample_rows
from shim import Call, Pages, int32

ROTATED_BYTES = 240e6  # twice the largest L2 and more
CODE_SCALE = 2.0 ** -6  # of caches in e4m3: its products are exact
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
SDPA = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION}


class AttentionCase:
    """Tensors of one case of entry point attention, several sets of them so that no call finds its
    inputs in the L2."""

    def __init__(self, case):
        self.name, self.config = case["name"], case["case"]["config"]
        rows = case["case"]["rows"]
        self.new, self.keys = [r[0] for r in rows], [r[1] for r in rows]
        self.heads, self.kv_heads = (self.config["num_attention_heads"],
                                     self.config["num_key_value_heads"])
        self.dim, self.dtype = self.config["head_dim"], DTYPES[self.config["dtype"]]
        self.mask = self.config.get("mask", {"variant": "causal"})
        self.scale = self.config.get("scale") or self.dim ** -0.5
        self.is_uniform = len(set(map(tuple, rows))) == 1
        self.coded = self.config["kv_cache"].get("dtype") == "float8_e4m3fn"
        size = self.dtype.itemsize
        tokens = sum(self.new)
        self.bytes = self.dim * (2 * sum(self.keys) * self.kv_heads * (1 if self.coded else size) +
                                 2 * tokens * self.heads * size)
        self.operations = 4 * self.heads * self.dim * sum(self.pairs(n, m) for n, m in zip(self.new, self.keys))
        self.sets = max(1, min(16, math.ceil(ROTATED_BYTES / self.bytes)))
        self.q, self.k, self.v = [], [], []
        for _ in range(self.sets):
            self.q.append([self.draw(self.heads, n) for n in self.new])
            self.k.append([self.draw_cached(m) for m in self.keys])
            self.v.append([self.draw_cached(m) for m in self.keys])

    def draw(self, heads, rows):
        return torch.randn(heads, rows, self.dim, device="cuda", dtype=self.dtype)

    def draw_cached(self, rows):
        """Of a coded cache the values of its codes, which the peers read as they are."""
        drawn = self.draw(self.kv_heads, rows)
        return self.codes(drawn).to(self.dtype) * CODE_SCALE if self.coded else drawn

    @staticmethod
    def codes(values):
        return (values / CODE_SCALE).clamp(-448, 448).to(torch.float8_e4m3fn)

    def pairs(self, new, keys):
        """Query rows times keys that the mask shows them."""
        kind = self.mask["variant"]
        if kind == "null":
            return new * keys
        window = self.mask.get("window_size", keys)
        return sum(min(p + 1, window) for p in range(keys - new, keys))

    def packed(self, tensors):
        """[tokens, heads, dim] of a list of [heads, rows, dim]."""
        return torch.cat([t.transpose(0, 1) for t in tensors]).contiguous()

    def stacked(self, which):
        return torch.stack(which)  # [batch, heads, rows, dim], for uniform cases

    def error_over_bound(self, packed, fp8=False):
        """Largest |error| / bound of some rows of [tokens, heads, dim] against float64. `fp8`: the
        bound of products of codes, whose queries and probabilities are rounded to e4m3."""
        worst, first = 0.0, 0
        for b in range(len(self.new)):
            if b < 3 or b + 1 == len(self.new):
                worst = max(worst, self.row_errors(packed[first:first + self.new[b]], b, fp8))
            first += self.new[b]
        return worst

    @staticmethod
    def rounded_queries(q):
        """To e4m3 under the power of two that brings a row's largest into [128, 256)."""
        up = 2.0 ** (8 - torch.frexp(q.abs().amax(1, keepdim=True)).exponent.double())
        return (q * up).float().to(torch.float8_e4m3fn).double() / up

    def row_errors(self, got, b, fp8):
        rows = sample_rows(self.new[b])
        at = torch.tensor([self.keys[b] - self.new[b] + r for r in rows], device="cuda")
        worst = 0.0
        group = self.heads // self.kv_heads
        for head in sorted({0, group - 1, self.heads - 1}):
            q = self.q[0][b][head, rows].double()
            k = self.k[0][b][head // group].double()
            v = self.v[0][b][head // group].double()
            out, absolute, squares, logit_error = exact_attention(torch, q, k, v, at, self.mask,
                                                                  self.scale)
            allowed = bound(out, absolute, squares, logit_error, self.keys[b], self.config["dtype"])
            if fp8:  # what rounding the queries does is known, and may be done
                moved, allowed = fp8_attention(torch, self.rounded_queries(q), k, v, at, self.mask,
                                               self.scale, self.config["dtype"])
                allowed = allowed + (moved - out).abs()
            error = (got[rows, head].double() - out).abs()
            worst = max(worst, (error / allowed).max().item())
        return worst


def ours(case, library, heads_first, words=""):
    """(functions, output) of our layer, one function for each set."""
    layer = library.layer(case.config, {}, words)
    space = layer.plan(case.new, case.keys)
    offsets = int32([sum(case.new[:b]) for b in range(len(case.new) + 1)])
    counts = int32(case.keys)
    functions, keep = [], [space, offsets, counts, layer]
    cached = (lambda t: case.codes(t).view(torch.uint8)) if case.coded else (lambda t: t)
    if case.coded:
        layer.set_scales(torch.full((1,), CODE_SCALE, device="cuda"))
    for s in range(case.sets):
        q = case.packed(case.q[s])
        pages = Pages([cached(t) for t in case.k[s]], [cached(t) for t in case.v[s]],
                      case.config["kv_cache"]["page_size"], heads_first)
        out = torch.empty_like(q)
        lse = torch.empty(q.shape[:2], device="cuda")
        call = Call(q=q.data_ptr(), row_offsets=offsets.data_ptr(),
                    cache_lengths=counts.data_ptr(), attn_out=out.data_ptr(), lse=lse.data_ptr(),
                    workspace=space.data_ptr())
        pages.fill(call)
        keep.append((q, pages, out, lse))
        functions.append(lambda c=call: layer.run(c))
    functions[0]()
    torch.cuda.synchronize()
    first = keep[4][2]
    return functions, first, keep


def sdpa(case, name):
    if not case.is_uniform:
        raise NotImplementedError("takes sequences of one length only")
    kind, new, keys = case.mask["variant"], case.new[0], case.keys[0]
    if kind not in ("null", "causal"):
        raise NotImplementedError("has no sliding window")
    if name == "efficient" and case.heads != case.kv_heads:
        raise NotImplementedError("wants as many heads of K and V as of Q")
    is_causal = kind == "causal" and new == keys
    mask = causal_lower_right(new, keys) if kind == "causal" and 1 < new < keys else None
    functions = []
    for s in range(case.sets):
        q, k, v = (case.stacked(t[s]) for t in (case.q, case.k, case.v))

        def run(q=q, k=k, v=v):
            with sdpa_kernel(SDPA[name]):
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True,
                                                      is_causal=is_causal, scale=case.scale)
        functions.append(run)
    out = functions[0]()
    return functions, out.transpose(1, 2).reshape(-1, case.heads, case.dim), functions


def varlen(case):
    """FlashAttention over packed sequences."""
    cu_q = int32([sum(case.new[:b]) for b in range(len(case.new) + 1)])
    cu_k = int32([sum(case.keys[:b]) for b in range(len(case.keys) + 1)])
    kind = case.mask["variant"]
    extra = {}
    if kind == "sliding_window_causal":
        extra = {"window_size_left": case.mask["window_size"] - 1, "window_size_right": 0}
    functions = []
    for s in range(case.sets):
        q, k, v = (case.packed(t[s]) for t in (case.q, case.k, case.v))

        def run(q=q, k=k, v=v):
            return torch.ops.aten._flash_attention_forward(
                q, k, v, cu_q, cu_k, max(case.new), max(case.keys), 0.0, kind != "null", False,
                scale=case.scale, **extra)[0]
        functions.append(run)
    return functions, functions[0](), functions


FLEX = None


def flex(case):
    global FLEX
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    if not case.is_uniform:
        raise NotImplementedError("takes sequences of one length only")
    FLEX = FLEX or torch.compile(flex_attention, dynamic=False)
    new, keys, kind = case.new[0], case.keys[0], case.mask["variant"]
    shift, window = keys - new, case.mask.get("window_size", keys + 1)

    def seen(b, h, q, k):
        return (q + shift >= k) & (q + shift - k < window)
    blocks = None if kind == "null" else create_block_mask(seen, None, None, new, keys, "cuda")
    functions = []
    for s in range(case.sets):
        q, k, v = (case.stacked(t[s]) for t in (case.q, case.k, case.v))
        functions.append(lambda q=q, k=k, v=v: FLEX(q, k, v, block_mask=blocks, scale=case.scale,
                                                    enable_gqa=case.heads != case.kv_heads))
    out = functions[0]()
    return functions, out.transpose(1, 2).reshape(-1, case.heads, case.dim), functions
