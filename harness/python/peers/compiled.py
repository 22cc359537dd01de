"""The peers that are compiled for what they get: flex_attention and JAX's cuDNN."""

import numpy as np
import torch
import torch.nn.functional as F

import attn_compare as ac

from blocks import head_blocks, rounded
from dense import ALL_MASKS, DEVICE, NARROW, Dense, declared, plain


_flex = None


def _compiled_flex():
    global _flex
    from torch.nn.attention.flex_attention import flex_attention

    if _flex is None:
        torch._dynamo.config.cache_size_limit = 256
        _flex = torch.compile(flex_attention, dynamic=False)
    return _flex


def _mask_mod(see):
    def mask_mod(b, h, i, j):
        return see[i, j]

    return mask_mod


def _score_mod(factor, bias):
    def score_mod(score, b, h, i, j):
        return score * factor[h] + bias[i, j]

    return score_mod


@ac.backend(supports=lambda c: plain(c, ALL_MASKS + ("tensor",), NARROW + ("float32",), 128, 8) or
            ("head_dim below 16" if min(c.head_dim, c.head_dim_v) < 16 else ""),
            arithmetic=declared(16))
def flex(problem):
    """flex_attention, compiled. So that few shapes are compiled, lengths are rounded up and the rest is
    masked, heads come in blocks, and a scale of its own and a mask tensor go through score_mod, which
    multiplies the score in float32 as the kernel's own scale does."""
    from torch.nn.attention.flex_attention import create_block_mask

    compiled, dense, c = _compiled_flex(), Dense(problem), problem.config
    # The three stages that torch would take for head_dim 64 leave no room for the tiles of a bias.
    options = {"num_stages": 2} if c.head_dim == 64 else None
    for s in dense.sequences():
        rows, keys = rounded(s.rows, 128), rounded(s.keys, 512)
        end = (0, keys - s.keys, 0, rows - s.rows)
        q = F.pad(s.q, (0, 0, 0, rows - s.rows))
        k, v = (F.pad(x, (0, 0, 0, keys - s.keys)) for x in (s.k, s.v))
        see = F.pad(s.visible, end)
        mask = create_block_mask(_mask_mod(see), None, None, rows, keys, device=DEVICE)
        score_mod, scale = None, problem.scale
        if s.bias is not None or c.json.get("scale") is not None:
            bias = torch.zeros(rows, keys, device=DEVICE)
            if s.bias is not None:
                bias = torch.where(see, F.pad(s.bias.float(), end), bias)
            score_mod, scale = _score_mod(torch.full((8,), scale, device=DEVICE), bias), 1.0
        out = torch.zeros(1, c.num_heads, s.rows, c.head_dim_v, dtype=q.dtype, device=DEVICE)
        lse = torch.zeros(1, c.num_heads, s.rows, device=DEVICE)
        for heads, kv in head_blocks(c.num_heads, c.num_kv_heads):
            with torch.no_grad():
                o, l = compiled(q[:, heads].contiguous(), k[:, kv].contiguous(), v[:, kv].contiguous(),
                                score_mod, mask, scale, c.group_size > 1, True, options)
            out[:, heads], lse[:, heads] = o[:, :, : s.rows], l[:, :, : s.rows]
        dense.put(s, out, lse)
    return dense.out, dense.lse


@ac.backend(supports=lambda c: plain(c, ("null", "causal"), most_dim=128, same_dims=True), lse=False,
            arithmetic=declared(64))
def jax_cudnn(problem):
    """JAX's dot_product_attention through cuDNN; as flex, lengths are rounded up and heads come in
    blocks. Its causal mask begins at the first key."""
    import jax
    import jax.numpy as jnp
    import ml_dtypes

    p, c = problem, problem.config
    if p.softcap or p.sinks is not None:
        raise ac.Unsupported("softcap or sinks")
    narrow = np.dtype(getattr(ml_dtypes, c.dtype, c.dtype))
    out = np.zeros((p.tokens, c.num_heads, c.head_dim_v), narrow)
    for s in p.sequences():
        if not s.rows or not s.keys:
            continue
        causal = not s.visible.all()
        if causal and not c.top_left and s.rows != s.keys:
            raise ac.Unsupported("a causal mask of fewer rows than keys")
        m = rounded(max(s.rows, s.keys) if causal else s.keys, 512)
        n = m if causal else rounded(s.rows, 128)
        q = np.pad(s.q.astype(narrow), ((0, n - s.rows), (0, 0), (0, 0)))
        k, v = (np.pad(x.astype(narrow), ((0, m - s.keys), (0, 0), (0, 0))) for x in (s.k, s.v))
        lengths = {"query_seq_lengths": jnp.asarray(np.array([s.rows], np.int32)),
                   "key_value_seq_lengths": jnp.asarray(np.array([s.keys], np.int32))}
        for heads, kv in head_blocks(c.num_heads, c.num_kv_heads):
            block = jax.nn.dot_product_attention(
                *(jnp.asarray(x) for x in (q[None, :, heads], k[None, :, kv], v[None, :, kv])),
                scale=problem.scale, is_causal=causal, implementation="cudnn", **lengths)
            out[s.first:s.first + s.rows, heads] = np.asarray(block)[0, : s.rows]
    return out
