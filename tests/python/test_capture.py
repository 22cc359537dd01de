
import tempfile

import numpy as np
import pytest

import attn_compare as ac

import planted


def attention(q, k, v, top_left):
    """[rows, heads, dim] of one sequence, in float64."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1).astype(float), np.repeat(v, group, 1).astype(float)
    score = np.einsum("qhd,khd->hqk", q.astype(float), k) / np.sqrt(q.shape[2])
    shift = 0 if top_left else k.shape[0] - q.shape[0]
    hidden = np.arange(k.shape[0]) > np.arange(q.shape[0])[:, None] + shift
    score[:, hidden] = -np.inf
    p = np.exp(score)
    return np.einsum("hqk,khd->qhd", p / p.sum(-1, keepdims=True), v).astype(np.float32)


def random(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def test_dense_calls_become_golden_files(tmp_path):
    captured = ac.Capture(tmp_path)
    q, k, v = random(3, 4, 8), random(10, 2, 8), random(10, 2, 8)
    assert captured.wants()
    captured.dense(q, k, v, out=attention(q, k, v, False))
    assert captured.reports[0].passed, str(captured.reports[0])
    case = ac.Case.read(captured.paths[0])
    assert case.check(planted.right).passed
    captured.dense(q, k, v, out=attention(q, k, v, True))
    assert captured.reports[1].stage == "attn_out"


def test_only_pages_that_are_referred_to_are_kept(tmp_path):
    pool_k, pool_v, q = random(1000, 4, 2, 8), random(1000, 4, 2, 8), random(2, 4, 8)
    table = np.array([[7, 3, 1000], [999, 1000, 1000]], np.uint32)
    captured = ac.Capture(tmp_path)
    captured.wants()
    rows = np.array([0, 1, 2])
    lengths = np.array([6, 3])
    keys = [np.concatenate([pool_k[7], pool_k[3]])[:6], pool_k[999][:3]]
    values = [np.concatenate([pool_v[7], pool_v[3]])[:6], pool_v[999][:3]]
    out = np.concatenate([attention(q[b:b + 1], keys[b], values[b], False) for b in range(2)])
    captured.paged(q, pool_k, pool_v, table, rows, lengths, out=out)
    assert captured.reports[0].passed, str(captured.reports[0])
    size = (tmp_path / "call-00000.h5").stat().st_size
    assert size < pool_k.nbytes / 4


def test_numbers_and_sizes_are_limited(tmp_path):
    captured = ac.Capture(tmp_path, calls={1})
    assert [captured.wants() for _ in range(3)] == [False, True, False]
    small = ac.Capture(tmp_path, max_gb=1e-9)
    small.wants()
    small.dense(random(3, 4, 8), random(10, 2, 8), random(10, 2, 8))
    assert small.left_out == {"max_gb is reached": 1} and not small.paths


def test_a_running_model_is_captured():
    torch = pytest.importorskip("torch", reason="no torch here")
    if not hasattr(torch.nn.functional, "scaled_dot_product_attention"):
        with tempfile.TemporaryDirectory() as folder, ac.capture(folder, calls=1):
            pytest.skip(f"torch {torch.__version__} has no scaled_dot_product_attention to capture")

    with tempfile.TemporaryDirectory() as folder, ac.capture(folder, calls=1) as captured:
        q, k, v = (torch.randn(2, h, n, 16) for h, n in ((4, 5), (4, 9), (4, 9)))
        for causal in (True, False):
            torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert len(captured.paths) == 1 and captured.reports[0].passed
