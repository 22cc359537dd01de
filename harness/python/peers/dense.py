"""What the peers share: problems as dense sequences on the device, and what they declare and take."""

import math
import os

import numpy as np
import torch

import attn_compare as ac

torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
DEVICE = os.environ.get("ATTN_TORCH_DEVICE", "cuda")
NARROW = ("bfloat16", "float16")
# Of the exponentials that these kernels use, ex2.approx after a product with log2(e) in float32:
# 2 ulp of the one and the rounding of an argument of a few dozen.
EXP_REL = 2**-20
_ALIGNMENT = 256  # of a tensor on the device, as its own allocator gives


def declared(block, **more):
    """A fused kernel: P in the inputs' type, sums in float32 on the tensor cores."""
    return ac.Arithmetic(out="dtype", probabilities="dtype", accumulator="float32_tensor_core",
                         block=block, exp_rel=EXP_REL, **more)


def plain(c, masks, dtypes=NARROW, most_dim=256, multiple=8, same_dims=False, bottom_right=False,
          above_zero=""):
    """"" when a kernel takes the config, else the first reason why not. above_zero: the reason, when a
    scale that is not positive is none for it."""
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
        (same_dims and c.head_dim != c.head_dim_v, "head_dim_v"),
        (bottom_right and c.top_left and c.mask != "null", "top_left"),
        (above_zero and c.scale <= 0, above_zero),
    ]
    return next((reason for wrong, reason in reasons if wrong), "")


class Dense:
    """The sequences of a problem as [1, heads, n, dim] on the device, and the outputs to be filled.

    Everything is gathered on the host and goes there as one copy: several workers share a device, and
    each wait for it costs a slice of its time."""

    def __init__(self, problem, repeat=False):
        if problem.softcap or problem.sinks is not None:
            raise ac.Unsupported("softcap or sinks")
        c = problem.config
        self.repeat = c.group_size if repeat else 1
        self.all = list(_gathered(problem))
        packed = {"q": (problem.codes("q"), c.dtype)}
        for name in ("k", "v"):
            none = problem.codes(f"{name}_cache")[:0, 0]  # of no sequence at all
            packed[name] = np.concatenate([none, *(getattr(s, name) for s in self.all)]), c.dtype
        for n, s in enumerate(self.all):
            if s.rows and s.keys and not s.is_full:
                packed[f"visible{n}"] = s.visible, "bool"
            if s.bias is not None:
                packed[f"bias{n}"] = s.bias, problem.element_type("mask")
        self._device = _on_device(packed)
        self.q, self.k, self.v = (self._device[name] for name in "qkv")
        self.out = torch.zeros(problem.tokens, c.num_heads, c.head_dim_v, dtype=self.q.dtype, device=DEVICE)
        self.lse = torch.full((problem.tokens, c.num_heads), -math.inf, device=DEVICE)

    def sequences(self):
        """Those with rows and keys; of the others zeros and minus infinity stay as they are."""
        end = 0
        for n, s in enumerate(self.all):
            begin, end = end, end + s.keys
            if not s.rows or not s.keys:
                continue
            s.q = self.q[s.first:s.first + s.rows].transpose(0, 1)[None]
            s.k, s.v = (x[begin:end].transpose(0, 1)[None] for x in (self.k, self.v))
            if self.repeat > 1:
                s.k, s.v = (x.repeat_interleave(self.repeat, 1) for x in (s.k, s.v))
            s.visible, s.bias = self._device.get(f"visible{n}"), self._device.get(f"bias{n}")
            if s.visible is None:
                s.visible = torch.ones(s.rows, s.keys, dtype=torch.bool, device=DEVICE)
            yield s

    def put(self, s, out, lse=None):
        """Rows that see nothing keep zeros: what kernels leave there is each one's own."""
        rows = slice(s.first, s.first + s.rows)
        out = out[0].transpose(0, 1)
        lse = None if lse is None else lse[0, :, : s.rows].T.float()
        if not s.all_see:
            seen = s.visible.any(1)
            out = torch.where(seen[:, None, None], out, 0)
            lse = None if lse is None else torch.where(seen[:, None], lse, -math.inf)
        self.out[rows] = out
        if lse is not None:
            self.lse[rows] = lse


def _gathered(problem):
    """The sequences with their keys and values as codes, and what the host knows of the mask."""
    size, mask = problem.config.page_size, problem.codes("mask")
    for b in range(problem.batch):
        first, end = int(problem.row_offsets[b]), int(problem.row_offsets[b + 1])
        keys, visible = int(problem.key_lengths[b]), problem.visible(b)
        at = np.arange(keys)
        where = problem.page_table[b, at // size], at % size
        yield ac.Sequence(
            first=first, rows=end - first, keys=keys, k=problem.codes("k_cache")[where],
            v=problem.codes("v_cache")[where], visible=visible, is_full=bool(visible.all()),
            all_see=bool(visible.any(1).all()), bias=None if mask is None else mask[first:end, :keys])


def _on_device(arrays):
    """Tensors of the device by name, of (codes, type) each: one copy for all."""
    places, end = {}, 0
    for name, (codes, _) in arrays.items():
        places[name] = slice(end, end + codes.nbytes)
        end += -(-codes.nbytes // _ALIGNMENT) * _ALIGNMENT
    buffer = np.empty(end, np.uint8)
    for name, (codes, _) in arrays.items():
        buffer[places[name]].view(codes.dtype).reshape(codes.shape)[...] = codes
    there = torch.from_numpy(buffer).to(DEVICE)

    def tensor(name, shape, dtype):
        if 0 in shape:
            return torch.empty(shape, dtype=dtype, device=DEVICE)
        return there[places[name]].view(dtype).reshape(shape)

    return {name: tensor(name, codes.shape, getattr(torch, kind)) for name, (codes, kind) in arrays.items()}


def causal_kind(c, s):
    """How a causal sequence can be asked for without a mask tensor: "full", "square" or None."""
    if s.bias is not None:
        return None
    if s.is_full:
        return "full"
    return "square" if c.mask == "causal" and s.rows == s.keys else None


def bias_of(s, dtype):
    bias = torch.zeros(s.visible.shape, dtype=dtype, device=DEVICE)
    if s.bias is not None:
        bias = s.bias.to(dtype)
    return bias.masked_fill(~s.visible, -math.inf)


ALL_MASKS = ("null", "causal", "chunked_causal", "sliding_window_causal",
             "sliding_window_noncausal")
