"""Attention in numpy, right and with one mistake each, written from docs/plugin.md alone."""

import os

import numpy as np

import attn_compare as ac


def evaluate(problem, kv_head=None, extra_key=0, drop_sink=False, scale=1.0, lse_base_2=False,
             last_row_stale=False, ignore_pages=False):
    c = problem.config
    out = np.zeros((problem.tokens, c.num_heads, c.head_dim_v), np.float64)
    lse = np.full((problem.tokens, c.num_heads), -np.inf)
    for b in range(problem.batch):
        begin, end = problem.row_offsets[b], problem.row_offsets[b + 1]
        keys, rows = problem.key_lengths[b], end - begin
        slots = np.arange(keys) if ignore_pages else problem.slots(b)
        flat = lambda pool: pool.reshape(-1, *pool.shape[2:])[slots].astype(np.float64)
        k, v = flat(problem.k_cache), flat(problem.v_cache)
        for name, values in (("k_scale", k), ("v_scale", v)):
            factor = getattr(problem, name)
            if factor is not None:
                values *= (factor.reshape(-1, factor.shape[2])[slots][..., None]
                           if factor.ndim == 3 else factor.reshape(-1, 1))
        visible = problem.visible(b)
        if extra_key and c.window_size:
            q_at = np.arange(rows)[:, None] + keys - rows
            visible = visible | ((np.arange(keys) <= q_at)
                                 & (q_at - np.arange(keys) < c.window_size + extra_key))
        for h in range(c.num_heads):
            kv = (kv_head or (lambda h, group: h // group))(h, c.group_size) % c.num_kv_heads
            score = scale * problem.scale * problem.q[begin:end, h].astype(np.float64) @ k[:, kv].T
            if problem.softcap:
                score = problem.softcap * np.tanh(score / problem.softcap)
            if problem.mask is not None:
                score = score + problem.mask[begin:end, :keys]
            score = np.where(visible, score, -np.inf)
            sink = -np.inf
            if problem.sinks is not None and not drop_sink:
                sink = float(problem.sinks[h])
            top = np.maximum(score.max(axis=1, initial=-np.inf), sink)
            top = np.where(np.isneginf(top), 0.0, top)
            p = np.exp(score - top[:, None])
            total = p.sum(axis=1) + np.exp(sink - top)
            with np.errstate(divide="ignore"):
                lse[begin:end, h] = np.log(total) + top
            out[begin:end, h] = p @ v[:, kv] / np.where(total > 0, total, 1.0)[:, None]
    if lse_base_2:
        lse = lse / np.log(2)
    if last_row_stale and problem.tokens > 1:
        out[-1] = out[-2]
    return out.astype(np.float32), lse.astype(np.float32)


def _backend(name, **mistake):
    return ac.Backend(lambda problem: evaluate(problem, **mistake), name)


right = _backend("right")
kv_head_modulo = _backend("kv_head_modulo", kv_head=lambda h, group: h)
window_too_wide = _backend("window_too_wide", extra_key=1)
sink_dropped = _backend("sink_dropped", drop_sink=True)
scale_wrong = _backend("scale_wrong", scale=1.01)
lse_base_2 = _backend("lse_base_2", lse_base_2=True)
last_row_stale = _backend("last_row_stale", last_row_stale=True)
pages_ignored = _backend("pages_ignored", ignore_pages=True)
MISTAKES = [kv_head_modulo, window_too_wide, sink_dropped, scale_wrong, lse_base_2, last_row_stale,
            pages_ignored]

no_lse = ac.Backend(lambda problem: evaluate(problem)[0], "no_lse", lse=False)
base_2_declared = ac.Backend(lambda problem: evaluate(problem, lse_base_2=True), "base_2_declared",
                             arithmetic=ac.Arithmetic(lse_base="2"))


@ac.backend(configs=["good", "stale"])
def tuned(problem, config):
    """An autotuned kernel, one of whose configurations is wrong."""
    return evaluate(problem, last_row_stale=config == "stale")


@ac.backend()
def raises(problem):
    raise ValueError("no such luck")


@ac.backend()
def wrong_type(problem):
    return [x.astype(np.float16) for x in evaluate(problem)]


@ac.backend()
def wrong_shape(problem):
    out, lse = evaluate(problem)
    return out[..., :-1], lse


@ac.backend()
def leaves(problem):
    import sys

    sys.exit("enough")


@ac.backend()
def prints(problem):
    print("a line\n" * 1000)
    return evaluate(problem)


@ac.backend()
def not_a_number(problem):
    out, lse = evaluate(problem)
    out[0, 0, 3] = np.nan
    return out, lse


@ac.backend()
def nothing(problem):
    evaluate(problem)


@ac.backend()
def three(problem):
    return *evaluate(problem), 1


@ac.backend()
def a_number(problem):
    return 1.0, 2.0


@ac.backend()
def exits(problem):
    import os

    os._exit(3)


@ac.backend()
def hangs(problem):
    while True:
        pass


@ac.backend()
def loses_the_device(problem):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@ac.backend()
def writes_input(problem):
    problem.codes("q")[...] = 0
    return evaluate(problem)


@ac.backend(supports=lambda c: c.head_dim <= 16 or "head_dim above 16")
def picky(problem):
    if problem.tokens > 8:
        raise ac.Unsupported("more than 8 rows")
    return evaluate(problem)


@ac.backend()
def says_its_threads(problem):
    raise RuntimeError(f"OMP_NUM_THREADS is {os.environ.get('OMP_NUM_THREADS')}")


@ac.backend()
def nan_throughout(problem):
    out, lse = evaluate(problem)
    return np.full_like(out, np.nan), np.full_like(lse, np.nan)
