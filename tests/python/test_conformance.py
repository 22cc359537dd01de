"""The whole way of a peer, with stand-ins in numpy: tallies, findings, budget, going on."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import attn_compare as ac

SOURCE = pathlib.Path(os.environ["ATTN_SOURCE_DIR"])
PEERS = SOURCE / "harness/python/peers"
STANDINS = pathlib.Path(__file__).with_name("standins.py")
SLOWER = float(os.environ.get("ATTN_TEST_TIMEOUT_FACTOR", 1))  # than a build without sanitizers
sys.path.insert(0, str(PEERS))

import findings  # noqa: E402
import tallies  # noqa: E402


def words(out, *more):
    return [sys.executable, PEERS / "conformance.py", "--file", STANDINS, "--out", out, "--cases", "12",
            "--jobs", "1", "--exec", "plain", *map(str, more)]


def conformance(out, *more):
    return subprocess.run(words(out, *more), capture_output=True, text=True,
                          timeout=200 * SLOWER, cwd=SOURCE)


def kept(out, peer):
    (path,) = (out / "conformance").glob(f"{peer}-*.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    out = tmp_path_factory.mktemp("all")
    start = time.monotonic()
    done = conformance(out, "--all", "--budget", 200, "--timeout", 1)
    return out, done, time.monotonic() - start


def test_all_peers_are_judged_in_one_run(everything):
    out, done, seconds = everything
    assert done.returncode == 1, done.stdout + done.stderr
    assert seconds < 210
    names = sorted(path.name for path in (out / "conformance").glob("*.json"))
    version = f"-{np.__version__}-cpu.json"
    assert names == [n + version for n in ("buggy", "compiled", "crashes", "good", "hangs", "refuses")]
    assert 'absent: NOT RUN: attn-compare ended with 2' in done.stdout
    for path in (out / "conformance").glob("*.json"):
        result = json.loads(path.read_text())
        assert sum(result[name] for name in tallies.OUTCOMES) == result["cases"] <= 12
        assert result["version"] == np.__version__ and result["python"]
    for path in out.rglob("*.*"):
        assert str(SOURCE).encode() not in path.read_bytes(), f"{path} has a path of this machine"


def test_a_right_peer_passes(everything):
    result = kept(everything[0], "good")
    assert result["complete"] and result["cases"] == 12 and not result["failures"]
    assert result["passed"] > 6 and not result["findings"]
    assert 0 < max(result["largest_error_over_bound"].values()) <= 1


def test_a_wrong_peer_ends_as_a_finding(everything):
    out, done, _ = everything
    result = kept(out, "buggy")
    assert result["failed"] and result["failures"][0]["repro"].startswith("attn-compare run")
    assert result["findings"], done.stdout
    name = result["findings"][0]
    case = ac.Case.read(out / "findings" / f"{name}.h5")
    import standins

    assert case.check(standins.buggy).status == "failed"
    page = (out / "findings" / f"{name}.md").read_text()
    assert "ends as: undecided" in page and f"| numpy | {np.__version__} |" in page
    assert "confirmed in float64: yes: numpy's float64 agrees with the reference" in page
    assert "x the bound of" in page and "attn-compare run --config" in page
    assert result["commit"] in page


def test_what_is_refused_is_told_by_a_condition(everything):
    result = kept(everything[0], "refuses")
    assert not result["failures"] and result["unsupported"]
    (reason,) = [r for r in result["unsupported_reasons"] if r["reason"] == "there is no kernel for it"]
    assert "" not in reason["when"] and sum(reason["when"].values()) == reason["cases"] > 0


def test_crashes_and_hangs_are_counted(everything):
    out = everything[0]
    crashed = kept(out, "crashes")
    assert crashed["crashed"] and crashed["passed"] and not crashed["findings"]
    hung = kept(out, "hangs")
    assert hung["timed_out"] and not hung["passed"]
    assert hung["failures"][0]["status"] == "timed_out"


def test_what_is_whole_is_not_judged_again(everything):
    out = everything[0]
    assert "good: judged before" in conformance(out, "good", "--timeout", 9).stdout
    assert "good: 1" in conformance(out, "good", "--again").stdout


def test_a_killed_run_goes_on(tmp_path):
    child = subprocess.Popen(words(tmp_path, "good", "hangs"), start_new_session=True,
                             stdout=subprocess.DEVNULL, cwd=SOURCE)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("conformance/good-*.json")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert kept(tmp_path, "good")["complete"]
    assert "good: judged before" in conformance(tmp_path, "good").stdout


def test_a_peer_that_was_cut_goes_on_in_its_journal(tmp_path):
    first = conformance(tmp_path, "good", "--cases", 3000, "--budget", 8)
    cut = kept(tmp_path, "good")
    assert not cut["complete"] and 0 < cut["cases"] < 3000, first.stdout
    assert "cut at" in first.stdout
    conformance(tmp_path, "good", "--cases", 3000, "--budget", 8)
    assert kept(tmp_path, "good")["cases"] > cut["cases"]


def test_nothing_here_is_told():
    done = subprocess.run([sys.executable, PEERS / "conformance.py"], capture_output=True, text=True)
    assert done.returncode == 2 and "sdpa_math" in done.stderr and "flex" in done.stderr


@pytest.mark.parametrize("more, words", [
    (["good", "--program", "/no/such"], "/no/such: No such file or directory; give --program"),
    (["good", "--program", "/bin/true"], "/bin/true --version: "),
])
def test_a_wrong_program_is_one_line(tmp_path, more, words):
    done = conformance(tmp_path, *more)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_the_package_is_asked_for(tmp_path):
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(words(tmp_path, "good"), capture_output=True, text=True, env=bare)
    assert done.returncode == 2 and "install the wheel" in done.stderr, done.stderr


def test_an_absent_peer_fails_nothing(tmp_path):
    done = conformance(tmp_path, "absent")
    assert done.returncode == 4 and "NOT RUN" in done.stdout


@pytest.mark.parametrize("spec, seed, name", ac.generate("attention", 25, seed=3),
                         ids=lambda value: value if isinstance(value, str) else "")
def test_the_plain_evaluation_agrees_with_the_reference(spec, seed, name):
    said = findings.confirm(ac.Case(spec, seed), spec.get("layer", 0), None)
    assert said.startswith("yes"), said


def test_a_wrong_reference_would_be_told(monkeypatch):
    case = ac.Case(ac.attention(2, 1, 8, rows=[(2, 9)]))
    exact = case.reference()
    exact["attn_out"][1] *= 1.001
    monkeypatch.setattr(case, "reference", lambda: exact)
    assert findings.confirm(case, 0, None).startswith("NO: a plain evaluation is")


def test_conditions_tell_cases_apart():
    def spec(dim, mask):
        return ac.attention(2, 1, dim, mask=mask, rows=[(2, 9)])

    taken = [spec(64, "causal"), spec(64, "tensor"), spec(128, "causal")]
    assert tallies.conditions([spec(128, "tensor"), spec(96, "tensor")], taken) == [
        ("head_dim > 64 && mask == tensor", 2)]
    assert tallies.conditions([spec(64, "causal")], taken) == [("", 1)]
    assert tallies.conditions([spec(256, "causal"), spec(256, "null")], taken)[0] == (
        "head_dim > 192", 2)
