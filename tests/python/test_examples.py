import ast
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

import attn_compare as ac

import triton_in_numpy

FOLDER = pathlib.Path(os.environ["ATTN_SOURCE_DIR"]) / "examples/python"
FILES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_has_at_most_25_lines(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 25
    assert max(map(len, text.splitlines())) <= 115
    # No statement beside another one, which would be lines under another name.
    lines = [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)]
    assert len(lines) == len(set(lines)), "two statements in a line"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_first_line_names_its_backend(path):
    text = path.read_text()
    if "py:" not in text.splitlines()[0]:
        return
    named = text.split("py:examples/python/", 1)[1].splitlines()[0].rstrip('"')
    file, name = named.split(":")
    assert file == path.name
    assert any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(ast.parse(text)))


def test_numpy():
    done = subprocess.run(
        [os.environ["ATTN_COMPARE_PROGRAM"], "fuzz", "--backend", f"py:{FOLDER}/numpy_attention.py:attention",
         "--cases", "40"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and ", 0 failed" in done.stdout, done.stdout + done.stderr


@pytest.fixture(scope="module")
def triton_examples():
    before = {name: sys.modules.get(name) for name in ("triton", "triton.language")}
    triton_in_numpy.install()
    sys.path.insert(0, str(FOLDER))
    found = {}
    for name in ("triton_decode", "triton_decode_bug"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        sys.modules[name] = found[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield {name: in_numpy(module.decode) for name, module in found.items()}
    sys.path.remove(str(FOLDER))
    for name, module in before.items():
        sys.modules.pop(name) if module is None else sys.modules.update({name: module})


def in_numpy(example):
    def run(problem):
        return example.function(triton_in_numpy.Tensors(problem)).array

    return ac.Backend(run, supports=example.supports, arithmetic=example.arithmetic, lse=False,
                      queries=example.queries)


DECODES = [
    ac.attention(8, 2, 64, rows=[(1, 33), (1, 1), (1, 80)], page_size=16, dtype="bfloat16"),
    ac.attention(4, 4, 32, rows=[(1, 7), (1, 0), (1, 8)], page_size=4, mask="null"),
    ac.attention(6, 2, 16, rows=[(1, 100)], page_size=8, dtype="float16", scale=0.5),
    ac.attention(4, 1, 128, rows=[(1, 31), (1, 64)], page_size=32, profile="needles"),
]


@pytest.mark.parametrize("number", range(len(DECODES)))
def test_the_arithmetic_of_the_triton_example(triton_examples, number):
    for seed in (1, 2):
        report = ac.check(triton_examples["triton_decode"], DECODES[number], seed)
        assert report.passed, str(report)


def test_the_bug_of_the_triton_example_is_found(triton_examples):
    failed = [ac.check(triton_examples["triton_decode_bug"], spec) for spec in DECODES]
    assert [report.status for report in failed] == ["failed"] * len(DECODES)
    # Every page full: there is no slot more to read.
    full = ac.attention(8, 2, 64, rows=[(1, 32)], page_size=16)
    assert ac.check(triton_examples["triton_decode_bug"], full).passed


def test_the_triton_example_takes_decodes_of_plain_attention(triton_examples):
    def reason(**more):
        return ac.check(triton_examples["triton_decode"], ac.attention(
            **{"num_heads": 4, "num_kv_heads": 2, "head_dim": 16, "rows": [(1, 9)], **more})).detail

    assert reason(rows=[(2, 9)]) == "only one query row in every sequence"
    assert reason(head_dim=24) == "sizes are no powers of 2"
    assert reason(mask="sliding_window_causal", window_size=3) == "sliding_window_causal"
    assert reason(sinks=True) == "sinks" and reason(logit_softcap=5.0) == "softcap"
    assert reason(head_dim_v=8) == "head_dim_v"
    assert reason(dtype="bfloat16", kv_dtype="float8_e4m3fn", scale_granularity="head") == \
        "scale_granularity"
