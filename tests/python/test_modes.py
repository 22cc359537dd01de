"""Execution modes of Python backends: graphs, their replay with another problem, padded batches."""

import json
import os
import pathlib
import subprocess
import types

import numpy as np
import pytest

import attn_compare as ac

import graphed
import planted

FILE = pathlib.Path(__file__).with_name("graphed.py")
SPEC = ac.attention(4, 2, 16, rows=[(1, 20), (3, 40), (2, 7)], page_size=4)
DECODE = ac.attention(4, 2, 16, rows=[(1, 20), (1, 40)], page_size=4)
MODES = ["plain", "second_call", "dirty_scratch", "repeat", "graph", "graph_replay", "padded"]


def run(*words):
    return subprocess.run([os.environ["ATTN_COMPARE_PROGRAM"], *map(str, words)], capture_output=True,
                          text=True, timeout=280)


@pytest.mark.parametrize("seed", range(1, 5))  # the other lengths: longer, shorter, as many rows
@pytest.mark.parametrize("mode", MODES)
def test_a_right_kernel_passes_in_every_mode(mode, seed):
    for spec in (SPEC, DECODE):
        report = ac.check(graphed.right, spec, seed, exec=mode)
        assert report.passed, str(report)


def test_any_code_of_nan_answers_inputs_of_nan():
    """All bits set, as vector units round a NaN to bfloat16, is what outputs hold before the call too."""
    def all_bits_set(problem):
        out, lse = planted.evaluate(problem)
        return tuple(np.where(np.isnan(x), np.uint32(0xFFFFFFFF).view("f4"), x) for x in (out, lse))

    report = ac.check(ac.Backend(all_bits_set), SPEC, 1, exec="dirty_scratch")
    assert report.passed, str(report)


@pytest.mark.parametrize("mode", MODES)
def test_recorded_lengths_are_found_by_the_replay_alone(mode):
    report = ac.check(graphed.lengths_recorded, SPEC, 2, exec=mode)
    if mode == "graph_replay":
        assert report.status == "failed" and report.stage == "lse" and report.ratio > 1
    else:
        assert report.passed, str(report)


def test_the_rows_of_a_decode_stay_in_every_other_seed():
    rows = []

    class Look(graphed.Tape):
        def __init__(self, function, problem):
            rows.append((problem.tokens, problem.row_offsets.tolist()))
            super().__init__(function, problem)

    look = ac.Backend(graphed.right.function, supports=graphed.supports, graph=Look)
    for seed in (1, 2, 3, 4):
        assert ac.check(look, DECODE, seed, exec="graph_replay")
    # Each twice: at both ends of guarded memory.
    assert rows[::2] == [(2, [0, 1, 2]), (2, [0, 0, 0]), (6, [0, 3, 6]), (2, [0, 1, 2])]


def test_a_padded_batch_has_empty_sequences_and_rows_of_nobody():
    seen = []

    def look(problem):
        seen.append((problem.batch, problem.tokens, problem.row_offsets.tolist(),
                     problem.key_lengths.tolist(), problem.q[6:]))
        return graphed.call(problem)

    backend = ac.Backend(look, supports=graphed.supports, padding="zero")
    assert ac.check(backend, SPEC, exec="padded")
    batch, tokens, offsets, lengths, rest = seen[0]
    assert (batch, tokens) == (4, 7)
    assert offsets == [0, 1, 4, 6, 6] and lengths == [20, 40, 7, 0]
    assert rest.shape == (1, 4, 16) and (rest != rest).all()


@pytest.mark.parametrize("backend, left", [(graphed.last_offset_is_all, "-inf"),
                                           (graphed.padding_is_nan, "nan")])
def test_what_is_left_in_padding_is_held_against_the_declaration(backend, left):
    assert ac.check(backend, SPEC, exec="plain").passed
    report = ac.check(backend, SPEC, exec="padded")
    assert report.status == "failed", str(report)
    assert f"lse: padding row 6, column 0 is {left}; declared: zero" in report.detail, report.detail


def test_any_number_may_be_left_where_that_is_declared():
    assert ac.check(graphed.padding_is_seven, SPEC, exec="padded").passed
    zero = ac.Backend(graphed.padding_is_seven.function, supports=graphed.supports, padding="zero")
    report = ac.check(zero, SPEC, exec="padded")
    assert "padding row 6, column 0 is 7; declared: zero" in report.detail


@pytest.mark.parametrize("mode, words", [("graph", "@backend(graph=...)"),
                                         ("graph_replay", "@backend(graph=...)"),
                                         ("padded", "@backend(padding=...)")])
def test_a_mode_that_is_not_declared_is_unsupported(mode, words):
    report = ac.check(planted.right, SPEC, exec=mode)
    assert report.status == "unsupported" and words in report.detail, report.detail


def test_layers_and_narrow_caches_are_replayed_too():
    spec = {"config": {"variant": "attention_with_rope", "num_attention_heads": 4, "hidden_size": 64,
                       "num_key_value_heads": 2, "head_dim": 16, "dtype": "float32",
                       "mask": {"variant": "causal"}, "rope": {"theta": 10000.0},
                       "kv_cache": {"page_size": 4}}, "rows": [[5, 1], [9, 3]]}
    for mode in ("graph", "graph_replay", "padded"):
        report = ac.check(graphed.right, spec, 3, exec=mode)
        assert report.passed, str(report)

    def all_zero(problem):
        """lse too, in rows that nobody owns."""
        out, lse = planted.evaluate(problem)
        lse[problem.row_offsets[-1]:] = 0
        return out, lse

    anything = ac.Backend(all_zero, padding="zero")
    for granularity in ("tensor", "head", "token_head"):
        fp8 = ac.attention(4, 2, 16, dtype="bfloat16", kv_dtype="float8_e4m3fn", sinks=True,
                           scale_granularity=granularity, rows=[(2, 30), (1, 9)])
        assert ac.check(anything, fp8, exec="padded").passed
    assert ac.check(anything, ac.attention(2, 1, 8, mask="tensor", rows=[(2, 30), (3, 9)]),
                    exec="padded").passed


def test_a_wrong_word_is_refused():
    with pytest.raises(ac.Error, match='"grpah" is no mode; did you mean "graph"'):
        ac.check(graphed.right, SPEC, exec="grpah")
    with pytest.raises(ac.Error, match='padding="nan" is none; known are zero, finite'):
        ac.Backend(graphed.call, padding="nan")


def test_the_program_runs_the_modes():
    case = json.dumps(SPEC)
    for mode in ("graph", "graph_replay", "padded"):
        done = run("run", "--config", case, "--backend", f"py:{FILE}:right", "--exec", mode)
        assert done.returncode == 0, done.stdout + done.stderr
    done = run("run", "--config", case, "--backend", f"py:{FILE}:lengths_recorded", "--exec",
               "graph_replay", "--seed", 2)
    assert done.returncode == 1 and "first bad stage  lse" in done.stdout


def test_fuzz_finds_recorded_lengths():
    def fuzz(name, modes, *more):
        done = run("fuzz", "--backend", f"py:{FILE}:{name}", "--cases", 6, "--exec", modes,
                   "--relations", "none", "--no-shrink", *more)
        return done.returncode, done.stdout + done.stderr

    code, text = fuzz("lengths_recorded", "plain,graph,padded")
    assert code == 0, text
    code, text = fuzz("lengths_recorded", "plain,graph_replay", "--max-failures", 1)
    assert code == 1 and "--exec graph_replay" in text and "reproduce" in text, text
    code, text = fuzz("right", ",".join(MODES))
    assert code == 0 and "passed, 0 failed" in text, text


class Nothing:
    def wait_stream(self, other):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_a_torch_graph_replays_with_other_values(monkeypatch):
    """TorchGraph's copying, with stand-ins for what needs a device: a replay is a call of the function
    on the tensors that are there."""
    torch = pytest.importorskip("torch", reason="no torch here")
    recorded, calls = [], []

    class Graph:
        def replay(self):
            assert all(torch.isnan(result).all() for result in recorded[-1].results)
            for kept, new in zip(recorded[-1].results, recorded[-1].function(recorded[-1].tensors)):
                kept.copy_(new)

    class Recorder(ac.TorchGraph):
        def __init__(self, function, problem):
            recorded.append(self)
            self.function = function
            super().__init__(function, problem, "cpu")
            self.results, self.tensors = self._results, self._tensors

    for name, value in {"Stream": Nothing, "current_stream": Nothing, "CUDAGraph": Graph,
                        "stream": lambda s: Nothing(), "graph": lambda g: Nothing(),
                        "synchronize": lambda: None}.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def in_torch(reads_host):
        kept = []  # what a graph holds of the host: the lengths of the call that it recorded

        def f(problem):
            p = problem.to("torch", "cpu")
            calls.append(p.q.data_ptr())
            if not kept:
                kept.append(p.key_lengths.copy())
            seen = {name: getattr(p, name).numpy() for name in ("q", "k_cache", "v_cache")}
            seen |= {name: getattr(p, name) for name in ("config", "scale", "batch", "tokens")}
            seen["page_table"] = p.page_table_device.numpy()
            heads = (p.tokens, p.config.num_heads)
            out, lse = np.empty((*heads, p.config.head_dim_v), "float32"), np.empty(heads, "float32")
            lengths = kept[0] if reads_host else p.key_lengths_device.numpy()
            graphed.attend(types.SimpleNamespace(**seen), p.row_offsets_device.numpy(), lengths, 0.0,
                           out, lse)
            return torch.from_numpy(out), torch.from_numpy(lse)

        return ac.Backend(f, supports=graphed.supports, graph=Recorder)

    for mode in ("graph", "graph_replay"):
        report = ac.check(in_torch(False), SPEC, 1, exec=mode)
        assert report.passed, str(report)
        # An ordinary call, then warmed up, recorded and replayed on the same tensors; all that twice.
        assert len(calls) == 10 and len(set(calls[1:5])) == 1 and calls[0] != calls[1]
        calls.clear()
    assert ac.check(in_torch(True), SPEC, 1, exec="graph").passed
    assert ac.check(in_torch(True), SPEC, 1, exec="graph_replay").status == "failed"


def test_what_a_recorded_call_takes_from_the_host_is_refused():
    torch = pytest.importorskip("torch", reason="no torch here")

    def look(problem):
        held = problem.fixed().to("torch").fixed()
        assert held.to("torch", "cuda") is held and isinstance(held.q, torch.Tensor)
        with pytest.raises(RuntimeError, match="copied an array of the host"):
            next(held.sequences())
        return planted.evaluate(problem)

    assert ac.check(look, SPEC).passed
