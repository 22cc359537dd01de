"""A peer of torch on the host, by what all of torch's peers share: gathered, sent as one copy, put back."""

import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "harness/python/peers"))

import torch  # noqa: E402

import attn_compare as ac  # noqa: E402
from dense import ALL_MASKS, NARROW, Dense, bias_of, causal_kind, plain  # noqa: E402


def attend(problem, repeat, forget=None):
    """`forget`: a planted mistake in what is read of a sequence."""
    dense = Dense(problem, repeat)
    for s in dense.sequences():
        group = 1 if repeat else problem.config.group_size
        q, k, v = s.q.float(), *(x.float().repeat_interleave(group, 1) for x in (s.k, s.v))
        score = problem.scale * (q @ k.transpose(-1, -2))
        how = causal_kind(problem.config, s)
        if forget == "mask" or how == "full":
            pass
        elif how == "square":
            score = score.masked_fill(torch.ones(s.rows, s.keys).triu(1).bool(), -math.inf)
        else:
            score = score + bias_of(s, torch.float32)
        lse = torch.logsumexp(score, -1)
        dense.put(s, (torch.softmax(score, -1) @ v).to(dense.out.dtype), lse)
    return dense.out, dense.lse


def taken(c):
    return plain(c, ALL_MASKS + ("tensor",), (*NARROW, "float32"), 4096, 1)


declared = ac.backend(supports=taken, arithmetic=ac.Arithmetic(out="dtype", exp_rel=2**-20))
heads_of_groups = declared(lambda problem: attend(problem, False))
heads_repeated = declared(lambda problem: attend(problem, True))
mask_forgotten = declared(lambda problem: attend(problem, True, "mask"))
