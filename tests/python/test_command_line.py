"""py:FILE:NAME in the verbs of the program, as a user types them."""

import json
import os
import pathlib
import re
import subprocess

import pytest

PROGRAM = os.environ["ATTN_COMPARE_PROGRAM"]
PLANTED = str(pathlib.Path(__file__).with_name("planted.py"))
SOURCE = pathlib.Path(os.environ["ATTN_SOURCE_DIR"])
SLOWER = float(os.environ.get("ATTN_TEST_TIMEOUT_FACTOR", 1))  # than a build without sanitizers
CASE = json.dumps({"config": {"variant": "attention", "entry_point": "attention",
                              "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                              "dtype": "float32", "mask": {"variant": "causal"},
                              "kv_cache": {"page_size": 4}}, "rows": [[3, 20]]})


def run(*words, **more):
    return subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True,
                          timeout=120 * SLOWER, **more)


def one_case(name, *words):
    return run("run", "--config", CASE, "--backend", f"py:{PLANTED}:{name}", *words)


def test_run_passes_a_right_backend():
    result = one_case("right")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed, 0 failed" in result.stdout


@pytest.mark.parametrize("name, stage", [("kv_head_modulo", "lse"), ("last_row_stale", "attn_out")])
def test_run_names_the_stage(name, stage):
    result = one_case(name)
    assert result.returncode == 1
    assert f"first bad stage  {stage}" in result.stdout


def test_a_layer_is_fed_to_an_attention_kernel():
    result = run("verify", SOURCE / "data/golden/qk-norm.h5", SOURCE / "data/golden/gqa-odd-group.h5",
                 "--backend", f"py:{PLANTED}:right")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed, 0 failed" in result.stdout


@pytest.mark.parametrize("name, code, words", [
    ("raises", 1, "ValueError: no such luck"),
    ("exits", 5, "exit code 3"),
    ("hangs", 5, "ran for longer than 2 s"),
    ("loses_the_device", 5, "illegal memory access"),
    ("writes_input", 1, "changed its input q, element 0"),
    ("wrong_type", 1, "returned out in float16, declared is float32"),
    ("wrong_shape", 1, "returned out of shape [3, 4, 15], wanted is [3, 4, 16]"),
    ("leaves", 1, "leaves called sys.exit('enough')"),
    ("not_a_number", 1, "row 0 (sequence 0, position 17), head 0, channel 3"),
    ("nothing", 1, "nothing returned None; wanted is out or (out, lse)"),
    ("three", 1, "three returned a tuple of 3; wanted is out or (out, lse)"),
    ("a_number", 1, "returned out as a value of type float; wanted is an array of shape [3, 4, 16]"),
    ("prints", 0, "1 passed, 0 failed"),
])
def test_what_goes_wrong_is_named_and_the_run_ends(name, code, words):
    result = one_case(name, "--timeout", 2 if name == "hangs" else 60)
    assert result.returncode == code, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    assert words in text, result.stdout


def test_the_worker_is_replaced_after_a_crash():
    files = [SOURCE / "data/golden" / f for f in ("core-decode.h5", "core-window.h5")]
    result = run("verify", *files, "--backend", f"py:{PLANTED}:exits", "--backend",
                 f"py:{PLANTED}:right")
    assert result.returncode == 5
    assert "2 passed, 0 failed, 2 crashed" in result.stdout


@pytest.mark.parametrize("spec, words", [
    (f"py:{PLANTED}:naught", 'has no "naught"; backends in it: right, kv_head_modulo'),
    (f"py:{PLANTED}:MISTAKES", "a backend is a function of a problem, not a list of 7"),
    (f"py:{PLANTED}", "write py:FILE:NAME"),
    ("py:missing.py:x", "there is no file missing.py"),
    (f"py:{PLANTED}:tuned:config=7", "the only option is config=0 to config=1"),
])
def test_a_wrong_spec_is_one_line(spec, words):
    result = run("run", "--config", CASE, "--backend", spec)
    assert result.returncode == 2, result.stdout + result.stderr
    assert words in result.stderr and len(result.stderr.strip().splitlines()) <= 2, result.stderr


def test_a_syntax_error_is_told(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    result = run("run", "--config", CASE, "--backend", f"py:{broken}:f")
    assert result.returncode == 2 and "SyntaxError" in result.stderr


def test_one_configuration_is_chosen():
    assert one_case("tuned:config=0").returncode == 0
    assert one_case("tuned:config=1").returncode == 1


def test_fuzz_explains_a_planted_mistake(tmp_path):
    result = run("fuzz", "--backend", f"py:{PLANTED}:kv_head_modulo", "--cases", 40,
                 "--max-failures", 1, "--corpus", tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    text = " ".join(result.stdout.split())
    assert "looks like: query head mapped to kv head by modulo" in text, result.stdout
    assert "reproduce attn-compare run --config" in text


def test_nan_throughout_is_no_exact_likeness():
    """Many planted mistakes make everything NaN too: that is no reason to name one of them."""
    done = run("fuzz", "--backend", f"py:{PLANTED}:nan_throughout", "--cases", 12, "--max-failures", 1)
    text = " ".join(done.stdout.split())
    assert done.returncode == 1 and "got nan" in text, done.stdout + done.stderr
    assert "(exactly)" not in text, done.stdout
    assert "looks like" not in text or "(NaN throughout as well, which says little)" in text


def test_invariance_finds_a_broken_relation():
    result = run("invariance", "--backend", f"py:{PLANTED}:pages_ignored", "--config", CASE)
    assert result.returncode == 1 and "page" in result.stdout, result.stdout + result.stderr


def test_workers_share_the_cores():
    def said(jobs, **given):
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        done = run("fuzz", "--backend", f"py:{PLANTED}:says_its_threads", "--cases", 2, "--max-failures", 1,
                   "--no-shrink", "--jobs", jobs, "--json", "-", env={**environment, **given})
        return re.search(r"OMP_NUM_THREADS is (\w+)", done.stdout + done.stderr).group(1)

    assert said(1) == "None"
    assert said(2) == str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert said(2, OMP_NUM_THREADS="7") == "7"
