"""Known-good kernels as backends: attn-compare fuzz --backend py:harness/python/peers/peers.py:NAME

Each declares what it does, so that its correct answers are never called wrong, and what it takes.
A NaN in a slot that no key owns never reaches them: they read keys gathered from the pages.
"""

import contextlib
import inspect
import math

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import attn_compare as ac

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
DEVICE = "cuda"
NARROW = ("bfloat16", "float16")
# Of the exponentials that these kernels use, ex2.approx after a product with log2(e) in float32:
# 2 ulp of the one and the rounding of an argument of a few dozen.
EXP_REL = 2**-20


def declared(block, **more):
    """A fused kernel: P in the inputs' type, sums in float32 on the tensor cores."""
    return ac.Arithmetic(out="dtype", probabilities="dtype", accumulator="float32_tensor_core",
                         block=block, exp_rel=EXP_REL, **more)


def plain(c, masks, dtypes=NARROW, most_dim=256, multiple=8):
    """"" when a kernel takes the config, else the first reason why not."""
    if c.entry_point == "materialize_kv_from_hidden":
        return "no attention"
    reasons = [
        (c.dtype not in dtypes, f"dtype {c.dtype}"),
        (c.cache_dtype != c.dtype, f"a cache of {c.cache_dtype}"),
        (c.softcap != 0, "softcap"),
        (c.has_sinks, "sinks"),
        (c.mask not in masks, f"mask {c.mask}"),
        (max(c.head_dim, c.head_dim_v) > most_dim, f"head_dim above {most_dim}"),
        (c.head_dim % multiple or c.head_dim_v % multiple, f"head_dim no multiple of {multiple}"),
    ]
    return next((reason for wrong, reason in reasons if wrong), "")


class Dense:
    """The sequences of a problem as [1, heads, n, dim], and the outputs to be filled."""

    def __init__(self, problem, repeat=False):
        if problem.softcap or problem.sinks is not None:
            raise ac.Unsupported("softcap or sinks")
        self.p = problem.to("torch", DEVICE)
        c = self.p.config
        self.out = torch.zeros(self.p.tokens, c.num_heads, c.head_dim_v, dtype=self.p.q.dtype,
                               device=DEVICE)
        self.lse = torch.full((self.p.tokens, c.num_heads), -math.inf, device=DEVICE)
        self.repeat = c.group_size if repeat else 1

    def sequences(self):
        for s in self.p.sequences():
            if not s.rows or not s.keys:
                continue  # zeros and minus infinity, as they are
            s.q, s.k, s.v = (x.transpose(0, 1)[None] for x in (s.q, s.k, s.v))
            if self.repeat > 1:
                s.k, s.v = (x.repeat_interleave(self.repeat, 1) for x in (s.k, s.v))
            yield s

    def put(self, s, out, lse=None):
        """Rows that see nothing keep zeros: what kernels leave there is each one's own."""
        rows = slice(s.first, s.first + s.rows)
        seen = s.visible.any(1)
        self.out[rows] = torch.where(seen[:, None, None], out[0].transpose(0, 1), 0)
        if lse is not None:
            self.lse[rows] = torch.where(seen[:, None], lse[0, :, : s.rows].T.float(), -math.inf)


def causal_kind(c, s):
    """How a causal sequence can be asked for without a mask tensor: "full", "square" or None."""
    if s.bias is not None:
        return None
    if bool(s.visible.all()):
        return "full"
    square = c.mask == "causal" and s.rows == s.keys
    return "square" if square else None


def bias_of(s, dtype):
    bias = torch.zeros(s.visible.shape, dtype=dtype, device=DEVICE)
    if s.bias is not None:
        bias = s.bias.to(dtype)
    return bias.masked_fill(~s.visible, -math.inf)


ALL_MASKS = ("null", "causal", "chunked_causal", "sliding_window_causal",
             "sliding_window_noncausal")


def _sdpa(problem, kind, with_bias):
    dense = Dense(problem)
    c = problem.config
    with sdpa_kernel([kind]):
        for s in dense.sequences():
            how = causal_kind(c, s)
            if how is None and not with_bias:
                if c.mask == "causal" and not c.top_left and s.rows <= s.keys:
                    from torch.nn.attention.bias import causal_lower_right

                    bias = causal_lower_right(s.rows, s.keys)
                else:
                    raise ac.Unsupported("a mask tensor")
            else:
                bias = None if how else bias_of(s, s.q.dtype)
            dense.put(s, _call_sdpa(s, bias, how, problem.scale, c.group_size > 1))
    return dense.out


def _call_sdpa(s, bias, how, scale, gqa):
    try:
        return F.scaled_dot_product_attention(s.q, s.k, s.v, bias, is_causal=how == "square",
                                              scale=scale, enable_gqa=gqa)
    except RuntimeError as error:
        if "No available kernel" in str(error):
            raise ac.Unsupported("torch has no kernel of this backend for it") from None
        raise


@ac.backend(supports=lambda c: plain(c, ALL_MASKS, NARROW + ("float32",), 1024, 1), lse=False,
            arithmetic=lambda c: ac.Arithmetic(out="dtype", exp_rel=EXP_REL))
def sdpa_math(problem):
    """torch's SDPA, the math backend: products in float32 for the narrow types too."""
    return _sdpa(problem, SDPBackend.MATH, True)


@ac.backend(supports=lambda c: plain(c, ("null", "causal")) or
            ("" if c.head_dim == c.head_dim_v else "head_dim_v"), lse=False,
            arithmetic=declared(64))
def sdpa_flash(problem):
    """torch's SDPA, the flash backend (FlashAttention-2)."""
    return _sdpa(problem, SDPBackend.FLASH_ATTENTION, False)


@ac.backend(supports=lambda c: plain(c, ALL_MASKS, NARROW + ("float32",)), lse=False,
            arithmetic=declared(64))
def sdpa_efficient(problem):
    """torch's SDPA, the memory-efficient backend."""
    if problem.config.group_size == 1:
        return _sdpa(problem, SDPBackend.EFFICIENT_ATTENTION, True)
    dense = Dense(problem, repeat=True)
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION]):
        for s in dense.sequences():
            how = causal_kind(problem.config, s)
            bias = None if how else bias_of(s, s.q.dtype).expand(1, s.q.shape[1], -1, -1)
            dense.put(s, _call_sdpa(s, bias, how, problem.scale, False))
    return dense.out


@ac.backend(supports=lambda c: plain(c, ALL_MASKS, most_dim=128) or
            ("" if c.head_dim == c.head_dim_v else "head_dim_v"), lse=False, arithmetic=declared(64))
def sdpa_cudnn(problem):
    """torch's SDPA, the cuDNN backend."""
    return _sdpa(problem, SDPBackend.CUDNN_ATTENTION, True)


@ac.backend(supports=lambda c: plain(c, ("null", "causal")) or
            ("" if c.head_dim == c.head_dim_v else "head_dim_v"), arithmetic=declared(64))
def aten_flash(problem):
    """FlashAttention-2 as torch's operator, with its lse."""
    dense = Dense(problem, repeat=True)
    for s in dense.sequences():
        how = causal_kind(problem.config, s)
        if how is None:
            raise ac.Unsupported("a causal mask of fewer rows than keys")
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            s.q, s.k, s.v, 0.0, how == "square", False, scale=problem.scale)
        dense.put(s, out, lse)
    return dense.out, dense.lse


def _varlen_words():
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return inspect.signature(varlen_attn).parameters


@ac.backend(supports=lambda c: plain(c, ("null", "causal", "sliding_window_causal")) or
            ("" if c.head_dim == c.head_dim_v else "head_dim_v") or
            ("top_left" if c.top_left and c.mask != "null" else ""), lse=False,
            arithmetic=declared(64))
def varlen(problem):
    """torch's varlen attention: all sequences in one call."""
    from torch.nn.attention.varlen import varlen_attn

    words = _varlen_words()
    dense = Dense(problem)
    p, c = dense.p, problem.config
    sequences = list(p.sequences())
    if not p.tokens or not any(s.keys for s in sequences):
        return dense.out
    k = torch.cat([s.k for s in sequences])
    v = torch.cat([s.v for s in sequences])
    at_k = torch.tensor([0] + [s.keys for s in sequences], device=DEVICE).cumsum(0).int()
    at_q = p.row_offsets_device
    more = {"scale": problem.scale} if "scale" in words else {}
    if "scale" not in words and abs(problem.scale * math.sqrt(c.head_dim) - 1) > 1e-6:
        raise ac.Unsupported("a scale of its own")
    if "enable_gqa" in words:
        more["enable_gqa"] = c.group_size > 1
    elif c.group_size > 1:
        k, v = (x.repeat_interleave(c.group_size, 1) for x in (k, v))
    if "window_size" in words:
        left = c.window_size - 1 if c.mask == "sliding_window_causal" else -1
        more["window_size"] = (-1, -1) if c.mask == "null" else (left, 0)
    elif c.mask == "sliding_window_causal":
        raise ac.Unsupported("a window")
    else:
        more["is_causal"] = c.mask == "causal"
    out = varlen_attn(p.q, k, v, at_q, at_k, max(s.rows for s in sequences),
                      max(s.keys for s in sequences), **more)
    for s in sequences:
        if s.rows and s.keys:
            rows = slice(s.first, s.first + s.rows)
            seen = s.visible.any(1)[:, None, None]
            dense.out[rows] = torch.where(seen, out[rows], 0)
    return dense.out


_flex = None


@ac.backend(supports=lambda c: plain(c, ALL_MASKS + ("tensor",), NARROW + ("float32",), 128, 8) or
            ("head_dim below 16" if min(c.head_dim, c.head_dim_v) < 16 else ""),
            arithmetic=declared(16))
def flex(problem):
    """flex_attention, compiled. Lengths are rounded up to multiples of 128 and the rest is masked, so
    that few shapes are compiled."""
    global _flex
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if _flex is None:
        torch._dynamo.config.cache_size_limit = 256
        _flex = torch.compile(flex_attention, dynamic=False)
    dense = Dense(problem)
    with torch.no_grad():
        for s in dense.sequences():
            rows, keys = (-(-n // 128) * 128 for n in (s.rows, s.keys))
            q = F.pad(s.q, (0, 0, 0, rows - s.rows))
            k, v = (F.pad(x, (0, 0, 0, keys - s.keys)) for x in (s.k, s.v))
            see = F.pad(s.visible, (0, keys - s.keys, 0, rows - s.rows))
            score_mod = None
            if s.bias is not None:
                bias = F.pad(torch.nan_to_num(s.bias, nan=0.0), (0, keys - s.keys, 0, rows - s.rows))

                def score_mod(score, b, h, i, j, bias=bias):
                    return score + bias[i, j]

            mask = create_block_mask(lambda b, h, i, j, see=see: see[i, j], None, None, rows, keys,
                                     device=DEVICE)
            out, lse = _flex(q, k, v, score_mod, mask, problem.scale,
                             problem.config.group_size > 1, True)
            dense.put(s, out[:, :, : s.rows], lse[:, :, : s.rows])
    return dense.out, dense.lse


@ac.backend(supports=lambda c: plain(c, ("null", "causal"), most_dim=128) or
            ("" if c.head_dim == c.head_dim_v else "head_dim_v") or
            ("top_left" if c.top_left and c.mask != "null" else ""), lse=False,
            arithmetic=declared(64))
def jax_cudnn(problem):
    """JAX's dot_product_attention through cuDNN, with lengths rounded up to powers of two."""
    import jax
    import jax.numpy as jnp

    p = problem.to("jax")
    c = problem.config
    if problem.softcap or problem.sinks is not None:
        raise ac.Unsupported("softcap or sinks")
    out = jnp.zeros((p.tokens, c.num_heads, c.head_dim_v), p.q.dtype)
    for s in p.sequences():
        if not s.rows or not s.keys:
            continue
        if not (bool(s.visible.all()) or s.rows == s.keys):
            raise ac.Unsupported("a causal mask of fewer rows than keys")
        causal = not bool(s.visible.all())
        n, m = (max(64, 1 << (x - 1).bit_length()) for x in (s.rows, s.keys))
        q = jnp.pad(s.q, ((0, n - s.rows), (0, 0), (0, 0)))[None]
        k, v = (jnp.pad(x, ((0, m - s.keys), (0, 0), (0, 0)))[None] for x in (s.k, s.v))
        row = jax.nn.dot_product_attention(
            q, k, v, scale=problem.scale, is_causal=causal,
            query_seq_lengths=jnp.array([s.rows]), key_value_seq_lengths=jnp.array([s.keys]),
            implementation="cudnn")
        out = out.at[s.first:s.first + s.rows].set(row[0, : s.rows])
    return out


with contextlib.suppress(ImportError):
    from flash_attn import flash_attn_func

    @ac.backend(supports=lambda c: plain(c, ("null", "causal", "sliding_window_causal")) or
                ("" if c.head_dim == c.head_dim_v else "head_dim_v") or
                ("top_left" if c.top_left and c.mask != "null" else ""), lse=False,
                arithmetic=declared(64))
    def flash_attn(problem):
        """The flash-attn package."""
        dense = Dense(problem)
        c = problem.config
        left = c.window_size - 1 if c.window_size else -1
        for s in dense.sequences():
            out = flash_attn_func(s.q.transpose(1, 2), s.k.transpose(1, 2), s.v.transpose(1, 2),
                                  softmax_scale=problem.scale, causal=c.mask != "null",
                                  window_size=(left, -1))
            dense.put(s, out.transpose(1, 2))
        return dense.out


with contextlib.suppress(ImportError):
    import flashinfer

    @ac.backend(supports=lambda c: plain(c, ("null", "causal")) or
                ("" if c.head_dim == c.head_dim_v else "head_dim_v") or
                ("top_left" if c.top_left and c.mask != "null" else ""), lse=False,
                arithmetic=declared(16))
    def flashinfer_single(problem):
        """FlashInfer's prefill of one sequence."""
        dense = Dense(problem)
        for s in dense.sequences():
            out = flashinfer.single_prefill_with_kv_cache(
                s.q[0].transpose(0, 1), s.k[0].transpose(0, 1), s.v[0].transpose(0, 1),
                causal=problem.config.mask == "causal", sm_scale=problem.scale)
            dense.put(s, out.transpose(0, 1)[None])
        return dense.out


EAGER = ["sdpa_math", "sdpa_flash", "sdpa_efficient", "sdpa_cudnn", "aten_flash", "varlen",
         "flash_attn", "flashinfer_single"]
COMPILED = ["flex", "jax_cudnn"]
LIBRARIES = {"jax_cudnn": "jax", "flash_attn": "flash_attn", "flashinfer_single": "flashinfer"}
