"""Known-good kernels as backends: attn-compare fuzz --backend py:harness/python/peers/peers.py:NAME

Each declares what it does, so that its correct answers are never called wrong, and what it takes; LISTED
names the pages of data/findings that its limitations come from. A NaN in a slot that no key owns never
reaches them: they read keys gathered from the pages.
"""

import contextlib
import inspect
import math
import os
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

import attn_compare as ac

from compiled import flex, jax_cudnn  # noqa: F401: peers as those below
from dense import ALL_MASKS, DEVICE, EXP_REL, NARROW, Dense, bias_of, causal_kind, declared, plain

NOT_POSITIVE = "scale not positive (data/findings/{}-scale-not-positive.md)"
# The cases that limitations come from are run so.
LIMITED = "PEERS_WITHOUT_LIMITATIONS" not in os.environ
FLASH = dict(same_dims=True, bottom_right=True, above_zero=NOT_POSITIVE.format("flash") if LIMITED else "")


def _sdpa(problem, kind, with_bias):
    """`with_bias`: what is no plain causal mask goes as a tensor. Else it is a causal mask that ends at
    the last key."""
    dense = Dense(problem)
    c, cudnn = problem.config, kind == SDPBackend.CUDNN_ATTENTION
    with sdpa_kernel([kind]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more rows than keys: put() takes care
        for s in dense.sequences():
            how = causal_kind(c, s)
            if how is None or (cudnn and LIMITED and problem.scale <= 0):  # with a tensor it is right
                bias = bias_of(s, s.q.dtype) if with_bias else causal_lower_right(s.rows, s.keys)
                if cudnn and not LIMITED and s.bias is None:
                    bias = s.visible  # data/findings/cudnn-bool-mask.md; minus infinity is right
                how = None
            else:
                bias = None
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


@ac.backend(supports=lambda c: plain(c, ("null", "causal"), **FLASH), lse=False,
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


def _without_tensor(c):
    return NOT_POSITIVE.format("cudnn") if LIMITED and c.mask in ("null", "causal") else ""


@ac.backend(supports=lambda c: plain(c, ALL_MASKS, most_dim=128, same_dims=True,
                                     above_zero=_without_tensor(c)), lse=False, arithmetic=declared(64))
def sdpa_cudnn(problem):
    """torch's SDPA, the cuDNN backend."""
    return _sdpa(problem, SDPBackend.CUDNN_ATTENTION, True)


@ac.backend(supports=lambda c: plain(c, ("null", "causal"), **FLASH), arithmetic=declared(64))
def aten_flash(problem):
    """FlashAttention-2 as torch's operator, with its lse. Its causal mask ends at the last key."""
    dense = Dense(problem, repeat=True)
    for s in dense.sequences():
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            s.q, s.k, s.v, 0.0, causal_kind(problem.config, s) != "full", False, scale=problem.scale)
        dense.put(s, out, lse)
    return dense.out, dense.lse


def _varlen_words():
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return inspect.signature(varlen_attn).parameters


@ac.backend(supports=lambda c: plain(c, ("null", "causal", "sliding_window_causal"), **FLASH), lse=False,
            arithmetic=declared(64))
def varlen(problem):
    """torch's varlen attention: all sequences in one call."""
    from torch.nn.attention.varlen import varlen_attn

    words = _varlen_words()
    dense = Dense(problem)
    c = problem.config
    if not problem.tokens or not any(s.keys for s in dense.all):
        return dense.out
    k, v = dense.k, dense.v
    ends = np.cumsum([(0, 0)] + [(s.rows, s.keys) for s in dense.all], 0).astype(np.int32)
    at_q, at_k = torch.from_numpy(np.ascontiguousarray(ends.T)).to(DEVICE)
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
    out = varlen_attn(dense.q, k, v, at_q, at_k, max(s.rows for s in dense.all),
                      max(s.keys for s in dense.all), **more)
    for s in dense.sequences():
        dense.put(s, out[s.first:s.first + s.rows].transpose(0, 1)[None])
    return dense.out


with contextlib.suppress(ImportError):
    from flash_attn import flash_attn_func

    @ac.backend(supports=lambda c: plain(c, ("null", "causal", "sliding_window_causal"), **FLASH),
                lse=False, arithmetic=declared(64))
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

    @ac.backend(supports=lambda c: plain(c, ("null", "causal"), same_dims=True, bottom_right=True),
                lse=False, arithmetic=declared(16))
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
JOBS = {"sdpa_cudnn": 2}  # it spends its time on plans, one for each shape
LISTED = {"sdpa_flash": ["flash-scale-not-positive"], "aten_flash": ["flash-scale-not-positive"],
          "varlen": ["flash-scale-not-positive"], "sdpa_cudnn": ["cudnn-scale-not-positive", "cudnn-bool-mask"]}
