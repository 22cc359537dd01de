"""Attention in numpy: attn-compare fuzz --backend py:examples/python/numpy_attention.py:attention"""
import numpy as np
import attn_compare as ac

@ac.backend(supports=lambda c: c.dtype == "float32" or "only float32")
def attention(problem):
    out = np.zeros((problem.tokens, problem.config.num_heads, problem.config.head_dim_v), "float32")
    lse = np.full(out.shape[:2], -np.inf, "float32")
    for s in problem.sequences():
        k, v = (np.repeat(x, problem.config.group_size, axis=1) for x in (s.k, s.v))
        score = problem.scale * np.einsum("qhd,khd->hqk", s.q, k)
        if problem.softcap:
            score = problem.softcap * np.tanh(score / problem.softcap)
        score = np.where(s.visible, score if s.bias is None else score + s.bias, -np.inf)
        sink = -np.inf if problem.sinks is None else problem.sinks.astype("float32")[:, None]
        top = np.maximum(score.max(-1, initial=-np.inf), sink)
        top = np.where(np.isfinite(top), top, 0).astype("float32")
        p = np.exp(score - top[..., None])
        total = p.sum(-1) + np.exp(sink - top)
        rows = slice(s.first, s.first + s.rows)
        with np.errstate(divide="ignore"):
            lse[rows] = (np.log(total) + top).T
        out[rows] = np.einsum("hqk,khd->qhd", p / np.where(total > 0, total, 1)[..., None], v)
    return out, lse
