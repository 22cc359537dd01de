"""Kernels in numpy that are recorded and replayed, right and with one mistake each.

Tape is a graph as devices have them: what a function launches while it is recorded is launched again
by a replay, on the same arrays; what it does between launches is done once.
"""

import numpy as np

import attn_compare as ac

_recording = []


class Tape:
    def __init__(self, function, problem):
        self.problem, self.launches = problem.fixed(), []
        _recording.append(self)
        try:
            self.results = function(self.problem)
        finally:
            _recording.pop()

    def replay(self, problem):
        self.problem.refill(problem)
        for kernel, arguments in self.launches:
            kernel(*arguments)
        return self.results


def launch(kernel, *arguments):
    if _recording:
        _recording[-1].launches.append((kernel, arguments))
    else:
        kernel(*arguments)


def attend(p, offsets, lengths, padding, out, lse):
    """Everything that is looked up here is looked up at the launch."""
    out[...], lse[...] = padding, padding
    group, size = p.config.group_size, p.config.page_size
    for b in range(p.batch):
        begin, end, keys = int(offsets[b]), int(offsets[b + 1]), int(lengths[b])
        at = np.arange(keys)
        slots = p.page_table[b, at // size] * size + at % size
        k, v = (np.repeat(pool.reshape(-1, *pool.shape[2:]).take(slots, 0, mode="clip"), group, 1)
                .astype(np.float64)
                for pool in (p.k_cache, p.v_cache))
        score = p.scale * np.einsum("qhd,khd->hqk", p.q[begin:end].astype(np.float64), k)
        if p.config.mask == "causal":
            score[:, at > np.arange(end - begin)[:, None] + keys - (end - begin)] = -np.inf
        top = np.maximum(score.max(-1, initial=-np.inf), -1e300)
        weight = np.exp(score - top[..., None])
        total = weight.sum(-1)
        with np.errstate(divide="ignore"):
            lse[begin:end] = (np.log(total) + top).T
        out[begin:end] = np.einsum("hqk,khd->qhd", weight / np.maximum(total, 1e-300)[..., None], v)


def supports(c):
    plain = c.dtype == c.cache_dtype == "float32" and not (c.softcap or c.has_sinks or c.top_left)
    return plain and c.mask in ("null", "causal") or "only plain float32"


def call(problem, lengths=None, padding=0.0):
    shape = (problem.tokens, problem.config.num_heads)
    out, lse = np.empty((*shape, problem.config.head_dim_v), np.float32), np.empty(shape, np.float32)
    launch(attend, problem, problem.row_offsets, problem.key_lengths if lengths is None else lengths,
           padding, out, lse)
    return out, lse


graphed = ac.backend(supports=supports, graph=Tape, padding="zero")


@graphed
def right(problem):
    return call(problem)


@graphed
def lengths_recorded(problem):
    """The lengths are read when the call is recorded: they are those of the recorded problem ever
    after."""
    return call(problem, lengths=np.array(problem.key_lengths))


@graphed
def padding_is_nan(problem):
    return call(problem, padding=np.nan)


@ac.backend(supports=supports, padding="finite")
def padding_is_seven(problem):
    return call(problem, padding=7.0)


@ac.backend(supports=supports, padding="zero")
def last_offset_is_all(problem):
    """The rows behind the last sequence's count as its own."""
    offsets = np.array(problem.row_offsets)
    offsets[-1] = problem.tokens
    shape = (problem.tokens, problem.config.num_heads)
    out, lse = np.empty((*shape, problem.config.head_dim_v), np.float32), np.empty(shape, np.float32)
    attend(problem, offsets, problem.key_lengths, 0.0, out, lse)
    return out, lse
