import json
import os
import pathlib

import h5py
import numpy as np
import pytest

import attn_compare as ac
from attn_compare import _types

import planted

SOURCE = pathlib.Path(os.environ["ATTN_SOURCE_DIR"])
SPEC = ac.attention(num_heads=4, num_kv_heads=2, head_dim=16, page_size=4, sinks=True,
                    rows=[(3, 40), (1, 7), (2, 0), (0, 5)])


def test_a_right_backend_passes():
    report = ac.check(planted.right, SPEC, seed=3)
    assert report.passed and report.stage is None and 0 < report.ratio <= 1, str(report)


def test_a_plain_function_is_a_backend():
    assert ac.check(planted.evaluate, SPEC)


@pytest.mark.parametrize("mistake", planted.MISTAKES, ids=lambda b: b.name)
def test_a_mistake_is_found(mistake):
    spec = ac.attention(num_heads=4, num_kv_heads=2, head_dim=16, page_size=4, rows=[(5, 40)],
                        mask="sliding_window_causal", window_size=6, sinks=True)
    report = ac.check(mistake, spec, seed=3)
    assert report.status == "failed" and report.ratio > 1
    assert report.stage == ("attn_out" if mistake.name == "last_row_stale" else "lse")
    assert "row" in report.where and report.stage in str(report)
    with pytest.raises(AssertionError, match="beyond their bound"):
        report.assert_passed()


def test_the_reference_is_the_formula():
    case = ac.Case(SPEC, 3)
    stages = case.reference()
    assert set(stages) == {"lse", "attn_out"} and stages["lse"].dtype == np.float64
    q, table = case.tensor("q"), case.tensor("cache.page_table")
    k = case.tensor("cache.k")[:, 0]
    row, head = 2, 3  # the last row of the first sequence sees all 40 keys
    keys = np.stack([k[table[0, p // 4], p % 4, head // 2] for p in range(40)]).astype(float)
    score = keys @ q[row, head].astype(float) / 4.0
    sink = float(case.tensor("weights.sinks")[head])
    want = np.log(np.exp(score).sum() + np.exp(sink))
    assert stages["lse"][row, head] == pytest.approx(want, rel=1e-12)


def test_given_tensors_give_the_reference_of_generated_ones():
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((n, h, 8), np.float32) for n, h in ((2, 2), (9, 1), (9, 1)))
    config = ac.attention(2, 1, 8)["config"]
    stages = ac.reference(config, {"q": q, "k": k, "v": v, "row_offsets": [0, 2],
                                   "kv_lengths": [9]})
    score = np.einsum("qhd,kd->hqk", q.astype(float), k[:, 0].astype(float)) / np.sqrt(8)
    score[:, 0, 8:] = -np.inf
    p = np.exp(score)
    want = np.einsum("hqk,kd->qhd", p / p.sum(-1, keepdims=True), v[:, 0].astype(float))
    assert np.allclose(stages["attn_out"].reshape(want.shape), want, rtol=0, atol=1e-14)


def test_given_tensors_of_another_type_are_refused():
    config = ac.attention(1, 1, 4, dtype="bfloat16")["config"]
    q = np.full((1, 1, 4), 1.001, np.float32)  # no bfloat16
    with pytest.raises(ac.Error, match="inputs/q: has type float32; its values are no bfloat16"):
        ac.Case.given(config, {"q": q, "k": q, "v": q, "row_offsets": [0, 1], "kv_lengths": [1]})


def test_golden_files_are_read_and_written(tmp_path):
    path = SOURCE / "data/golden/core-fp8kv-token-head.h5"
    case = ac.Case.read(path)
    with h5py.File(path) as file:
        want = file["expected/attn_out"][...]
    assert np.allclose(case.reference()["attn_out"], want, rtol=0, atol=1e-12)
    assert case.check(planted.right).passed
    copy = tmp_path / "copy.h5"
    case.write(copy, generator="a test", more={"why": "to see"})
    with h5py.File(copy) as file:
        assert np.allclose(file["expected/attn_out"][...], want, rtol=0, atol=1e-12)
        assert "content_sha256" in file.attrs
        assert json.loads(file.attrs["provenance"])["why"] == "to see"
    with pytest.raises(ac.Error, match="exists"):
        case.write(copy)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "bfloat16"])
def test_codes_decode_as_the_library_decodes_them(name):
    def own(code):
        codes = np.array([code], _types.code_type(name))
        return float(_types.decode(codes, name)[0])

    values = {"float8_e4m3fn": {0x01: 2**-9, 0x38: 1.0, 0x7E: 448.0, 0xFE: -448.0},
              "float8_e5m2": {0x01: 2**-16, 0x3C: 1.0, 0x7B: 57344.0, 0xFC: -np.inf},
              "float8_e4m3fnuz": {0x01: 2**-10, 0x40: 1.0, 0x7F: 240.0, 0xFF: -240.0},
              "bfloat16": {0x3F80: 1.0, 0xC000: -2.0, 0x0001: 2.0**-133}}[name]
    for code, value in values.items():
        assert own(code) == value, hex(code)
    assert np.isnan(own({"float8_e4m3fn": 0x7F, "float8_e5m2": 0x7D, "float8_e4m3fnuz": 0x80,
                         "bfloat16": 0x7FC0}[name]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_types_are_given_exactly(dtype):
    spec = ac.attention(4, 2, 16, dtype=dtype, rows=[(2, 30)])
    assert ac.check(planted.right, spec).passed
    seen = {}

    def look(problem):
        seen["q"], seen["codes"] = problem.q, problem.codes("q")
        seen["type"] = problem.element_type("q")
        return planted.evaluate(problem)

    ac.check(look, spec)
    assert seen["type"] == dtype
    assert seen["q"].dtype == (np.float32 if dtype == "bfloat16" else np.float16)
    assert seen["codes"].itemsize == 2


def test_fp8_caches_come_with_scales():
    for granularity in ("tensor", "head", "token_head"):
        spec = ac.attention(4, 2, 16, dtype="bfloat16", kv_dtype="float8_e4m3fn",
                            scale_granularity=granularity, rows=[(2, 30), (1, 9)])
        report = ac.check(planted.right, spec)
        assert report.passed, str(report)

        def by_sequences(problem):
            s = next(iter(problem.sequences()))
            k = s.k.astype(np.float64)
            assert k.shape == (30, 2, 16) and np.isfinite(k).all()
            return planted.evaluate(problem)

        assert ac.check(by_sequences, spec).passed


def test_what_is_not_declared_is_not_allowed():
    report = ac.check(planted.wrong_type, SPEC)
    assert report.status == "failed"
    assert 'returned out in float16, declared is float32: say Arithmetic(out="float16")' in \
        report.detail
    assert "of shape [6, 4, 15], wanted is [6, 4, 16]" in ac.check(planted.wrong_shape, SPEC).detail
    assert "returned no lse" in ac.check(lambda p: planted.evaluate(p)[0], SPEC).detail
    assert ac.check(planted.no_lse, SPEC).passed
    assert ac.check(planted.base_2_declared, SPEC).passed
    assert ac.check(planted.lse_base_2, SPEC).stage == "lse"


def test_declared_storage_widens_the_bound():
    spec = ac.attention(4, 2, 16, dtype="bfloat16", rows=[(4, 60)])

    def rounded(problem):  # the output through bfloat16, by cutting: off by up to a whole unit
        out, lse = planted.evaluate(problem)
        bits = out.view(np.uint32) + np.uint32(0x8000)
        return (bits & np.uint32(0xFFFF0000)).view(np.float32), lse

    assert ac.check(rounded, spec).stage == "attn_out"


def test_errors_and_refusals_are_said():
    assert "ValueError: no such luck" in ac.check(planted.raises, SPEC).detail
    assert ac.check(planted.picky, ac.attention(2, 1, 32)).status == "unsupported"
    assert ac.check(planted.picky, ac.attention(2, 1, 16, rows=[(9, 9)])).detail == "more than 8 rows"
    with pytest.raises(ac.Error, match="num_key_value_heads"):
        ac.check(planted.right, ac.attention(3, 2, 16))
    with pytest.raises(ac.Error, match="no element type"):
        ac.Arithmetic(out="float31").fill(ac._abi.Capability(), "float32")


def test_a_decorator_without_parentheses_makes_a_backend():
    assert ac.check(ac.backend(planted.evaluate), SPEC).passed


def test_an_interrupt_is_passed_on():
    def interrupted(problem):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ac.check(interrupted, SPEC)


def test_every_configuration_is_judged():
    spec = ac.attention(2, 1, 16, rows=[(3, 9)])
    report = ac.check(planted.tuned, spec)
    assert not report.passed and report.stage == "attn_out"
    good = ac.Backend(planted.tuned.function, "good", configs=["good", "good"])
    assert ac.check(good, spec).passed
