"""What the peers share: problems as dense sequences on the device, and what they declare and take."""

import math

import torch

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
