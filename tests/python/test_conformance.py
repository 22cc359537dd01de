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

import conformance as conformance_module  # noqa: E402
import findings  # noqa: E402
import lanes  # noqa: E402
import tallies  # noqa: E402


def words(out, *more):
    count = [] if "--judged" in more else ["--cases", "8"]
    return [sys.executable, PEERS / "conformance.py", "--file", STANDINS, "--out", out, *count,
            "--jobs", "1", "--exec", "plain", *map(str, more)]


def conformance(out, *more):
    return subprocess.run(words(out, *more), capture_output=True, text=True,
                          timeout=1500 * SLOWER, cwd=SOURCE)


def kept(out, peer):
    (path,) = (out / "conformance").glob(f"{peer}-*.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    out = tmp_path_factory.mktemp("all")
    return out, conformance(out, "--all", "--budget", 2000, "--timeout", 6)


def test_all_peers_are_judged_in_one_run(everything):
    out, done = everything
    assert done.returncode == 1, done.stdout + done.stderr
    names = sorted(path.name for path in (out / "conformance").glob("*.json"))
    version = f"-{np.__version__}-cpu.json"
    assert names == [n + version for n in ("buggy", "compiled", "crashes", "good", "hangs", "raises", "refuses")]
    assert 'absent: NOT RUN: attn-compare ended with 2' in done.stdout
    for path in (out / "conformance").glob("*.json"):
        result = json.loads(path.read_text())
        assert sum(result[name] for name in tallies.OUTCOMES) == result["cases"] == 8
        assert result["version"] == np.__version__ and result["python"]
    for path in (p for p in out.rglob("*.*") if p.is_file()):
        assert str(SOURCE).encode() not in path.read_bytes(), f"{path} has a path of this machine"


def test_a_peer_has_as_many_processes_as_its_file_says():
    _, options = conformance_module.parse(["--jobs", "4", "--compiled-jobs", "3"])
    options.commit = "0"
    named = {"COMPILED": ["compiled"], "LIBRARIES": {}, "LISTED": {}, "JOBS": {"plans": 2, "compiled": 3}}
    jobs = {name: conformance_module.Peer(name, options, named, {}).jobs
            for name in ("plain", "plans", "compiled")}
    assert jobs == {"plain": 4, "plans": 8, "compiled": 9}


def test_a_right_peer_passes(everything):
    result = kept(everything[0], "good")
    assert result["complete"] and result["cases"] == 8 and not result["failures"]
    assert result["passed"] > 4 and not result["findings"] and not result["listed"]
    assert result["judged"] == result["passed"] and result["relations"] == "none"
    assert 0 < max(result["largest_error_over_bound"].values()) <= 1


def test_a_wrong_peer_ends_as_a_finding(everything):
    out, done = everything
    result = kept(out, "buggy")
    assert result["failed"] and result["failures"][0]["repro"].startswith("attn-compare run")
    assert result["findings"], done.stdout
    name = result["findings"][0]
    case = ac.Case.read(out / "findings" / f"{name}.h5")
    import standins

    assert case.check(standins.buggy).status == "failed"
    page = (out / "findings" / f"{name}.md").read_text()
    assert "ends as: undecided" in page and f"| numpy | {np.__version__} |" in page
    assert "attn-compare run --config" in page and result["commit"] in page
    assert "confirmed in float64: NO" not in page


def test_a_finding_is_confirmed_in_float64(tmp_path):
    backend = f"py:{STANDINS}:buggy"
    entry = {"spec": ac.attention(4, 2, 16, rows=[(3, 40)]), "seed": 3, "exec": "plain", "relation": "",
             "backend": backend, "stage": "lse"}
    worst = findings.worst_element([os.environ["ATTN_COMPARE_PROGRAM"]], backend, entry, None, 200)
    name = findings.write(tmp_path, "buggy", entry, backend, {"numpy": np.__version__}, worst)
    page = (tmp_path / f"{name}.md").read_text()
    assert "confirmed in float64: yes: numpy's float64 agrees with the reference" in page, page
    ratio = float(page.split("the peer ")[1].split(": ")[1].split("x the bound")[0])
    assert ratio == pytest.approx(float(worst["worst_ratio"]), rel=1e-2)
    (tmp_path / f"{name}.md").write_text("ends as: a finding\n")
    findings.write(tmp_path, "buggy", entry, backend, {}, worst)  # what a person wrote stays
    assert (tmp_path / f"{name}.md").read_text() == "ends as: a finding\n"


def test_what_is_refused_is_told_by_a_condition(everything):
    result = kept(everything[0], "refuses")
    assert not result["failures"] and result["unsupported"] and result["listed"] == ["a-page"]
    assert result["judged"] == result["passed"] < result["wanted_judged"] == 8
    (reason,) = [r for r in result["unsupported_reasons"] if r["reason"] == "there is no kernel for it"]
    assert sum(reason["when"].values()) == reason["cases"] > 0


def test_cases_are_fitted_to_what_only_a_run_refuses(tmp_path):
    done = conformance(tmp_path, "two_keys", "--cases", 60, "--exec", "plain,second_call", "--jobs", 2)
    result = kept(tmp_path, "two_keys")
    assert done.returncode == 0 and result["judged"] == 60, result["unsupported_reasons"]


def test_more_cases_are_judged_where_some_are_not(tmp_path):
    done = conformance(tmp_path, "refuses", "--judged", 20)
    result = kept(tmp_path, "refuses")
    assert done.returncode == 0 and result["complete"] and result["wanted_judged"] == 20, done.stdout
    assert result["unsupported"] > 1 and result["judged"] >= 20 and result["cases"] > 21
    (journal,) = (tmp_path / ".journals").glob("refuses-*")
    before = journal.read_text()
    again = conformance(tmp_path, "refuses", "--judged", 20, "--again")
    assert again.returncode == 0 and {**kept(tmp_path, "refuses"), "seconds": result["seconds"]} == result
    assert journal.read_text() == before  # of one journal, which a later run reads


def test_a_peer_that_takes_nothing_ends_and_says_why(tmp_path):
    done = conformance(tmp_path, "no_plan", "--judged", 5, "--until-whole")
    result = kept(tmp_path, "no_plan")
    assert not result["complete"] and result["judged"] == 0 and result["cases"] == 6
    assert [r["reason"] for r in result["unsupported_reasons"]] == ["no plan was found"]
    assert done.stdout.count("0 of 5 judged, not whole") == 1, done.stdout


def test_as_many_cases_are_drawn_as_should_judge_what_is_wanted():
    _, options = conformance_module.parse(["--judged", "2000"])
    options.commit = "0"
    peer = conformance_module.Peer("p", options, {"COMPILED": [], "LIBRARIES": {}, "LISTED": {}, "JOBS": {}}, {})
    rows = lambda **counts: [{"status": name, "detail": ""} for name, n in counts.items() for _ in range(n)]
    assert peer.cases_after([]) == peer.cases_after(rows(passed=100)) == 2100
    assert peer.cases_after(rows(passed=1816, unsupported=284)) == 2100 + 224
    assert peer.cases_after(rows(unsupported=2100)) == 2100
    assert peer.cases_after(rows(passed=2090, unsupported=10)) == 2100
    result = {"complete": False, "judged": 0, "cases": 2100}
    assert not peer.goes_on(result) and peer.goes_on({**result, "cases": 2000})  # it was cut
    assert peer.goes_on({**result, "judged": 1})


def test_crashes_and_hangs_are_counted(everything):
    out = everything[0]
    crashed = kept(out, "crashes")
    assert crashed["crashed"] and crashed["passed"] and not crashed["findings"]
    hung = kept(out, "hangs")
    assert hung["timed_out"] and hung["passed"]
    assert hung["failures"][0]["status"] == "timed_out"


def test_what_a_peer_raises_is_no_wrong_answer(everything):
    result = kept(everything[0], "raises")
    assert result["could_not_run"] and result["passed"] and not result["failed"] and not result["findings"]
    assert result["judged"] == result["passed"] == 8 - result["could_not_run"]
    (failure,) = result["failures"]
    assert failure["status"] == "could_not_run" and "no room for its tiles" in failure["detail"]


def test_what_is_whole_is_not_judged_again(everything):
    out = everything[0]
    assert "good: judged before" in conformance(out, "good", "--timeout", 9).stdout
    assert "judged before" not in conformance(out, "good", "--again").stdout


def test_a_killed_run_goes_on(tmp_path):
    child = subprocess.Popen(words(tmp_path, "good", "hangs"), start_new_session=True,
                             stdout=subprocess.DEVNULL, cwd=SOURCE)
    while not list(tmp_path.glob("conformance/good-*.json")):
        assert child.poll() is None
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert kept(tmp_path, "good")["complete"]
    assert "good: judged before" in conformance(tmp_path, "good").stdout


def end_after(out, rows):
    """Ends a run with `timeout`'s signal when its journal has as many rows; what it printed."""
    child = subprocess.Popen(words(out, "good", "--cases", 3000), stdout=subprocess.PIPE, text=True,
                             cwd=SOURCE)
    journals = out / ".journals"
    while child.poll() is None:
        kept_rows = [len(path.read_text().splitlines()) - 1 for path in journals.glob("good-*")]
        if kept_rows and kept_rows[0] >= rows:
            child.terminate()
            break
        time.sleep(0.05)
    return child.communicate()[0]


def test_a_peer_that_was_cut_goes_on_in_its_journal(tmp_path):
    assert ", cut" in end_after(tmp_path, 3)
    cut = kept(tmp_path, "good")
    assert not cut["complete"] and 3 <= cut["cases"] < 3000
    end_after(tmp_path, cut["cases"] + 3)
    assert kept(tmp_path, "good")["cases"] >= cut["cases"] + 3


def test_lanes_share_the_budget():
    queue = lanes.Queue(["a", "b", "c"], 2, 300, 180)
    name, seconds = queue.take()
    assert name == "a" and seconds == 180  # not 200, its share of two lanes' 600 s
    queue = lanes.Queue(["a", "b", "c"], 2, 90, 180)
    name, seconds = queue.take()
    assert name == "a" and seconds == pytest.approx(60, abs=1)
    queue.put(name)
    assert [queue.take()[0] for _ in range(3)] == ["b", "c", "a"] and queue.take() is None
    queue = lanes.Queue(["a", "b"], 2, 900, 180)
    queue.put("c")
    assert queue.take()[0] == "c"  # there is time for a whole turn of each
    queue = lanes.Queue([], 2, 90, 180)
    queue.put("b")
    assert queue.take()[1] == pytest.approx(90, abs=1)  # no more than there is


def test_peers_beside_each_other_are_recorded_as_one_after_the_other(tmp_path, everything):
    done = conformance(tmp_path, "good", "refuses", "--lanes", 2, "--until-whole", "--timeout", 6)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("good", "refuses"):
        one, other = kept(tmp_path, name), kept(everything[0], name)
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_a_peer_that_was_cut_goes_on_by_itself(monkeypatch, tmp_path):
    class CutTwice(conformance_module.Peer):
        turns = []

        def run(self, seconds):
            self.turns.append(self.name)
            result = {name: 0 for name in (*tallies.OUTCOMES, "cases", "seconds", "judged", "wanted_judged")}
            return {**result, "complete": self.turns.count(self.name) > 2, "failures": [], "findings": [],
                    "largest_error_over_bound": {}}, ""

    monkeypatch.setattr(conformance_module, "Peer", CutTwice)
    monkeypatch.setattr(conformance_module, "versions", dict)
    monkeypatch.setattr(conformance_module.Stop, "listen", lambda: None)  # pytest's handlers stay
    arguments = ["good", "refuses", "--file", str(STANDINS), "--out", str(tmp_path)]
    assert conformance_module.main([*arguments, "--until-whole"]) == 0
    assert CutTwice.turns == ["good"] * 3 + ["refuses"] * 3
    CutTwice.turns.clear()
    assert conformance_module.main(arguments) == 0 and CutTwice.turns == ["good", "refuses"]


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


def test_a_layer_is_tried_as_attention_alone():
    layer = {"variant": "attention_with_rope", "num_attention_heads": 4, "num_key_value_heads": 2,
             "head_dim": 16, "hidden_size": 32, "dtype": "bfloat16", "scale": -0.5, "mask": {"variant": "causal"},
             "kv_cache": {"dtype": "bfloat16", "page_size": 7, "scale_granularity": None}}
    entry = {"spec": {"config": layer, "rows": [[29, 3], [0, 4]], "profile": "needles"}, "seed": 5,
             "stage": "lse", "relation": "", "exec": "plain"}
    alone = tallies.alone(entry)
    assert alone["spec"]["rows"] == [[3, 32], [4, 4]] and alone["spec"]["config"]["scale"] == -0.5
    case = ac.Case(alone["spec"], 5)
    assert findings.confirm(case, 0, None).startswith("yes")
    assert tallies.alone(alone) is None and tallies.alone({**entry, "relation": "repeat"}) is None
    other = {**entry, "stage": "attn_out"}
    assert tallies.simplest([alone, entry, other]) == [alone, other]


def test_an_element_of_a_row_of_all_heads_is_found():
    assert findings.flat_index([2, 1, 3], (5, 32), 16) == findings.flat_index([2, 1, 3], (5, 2, 16), 16)
    assert findings.flat_index([2, 1, 3], (5, 32), 16) == 2 * 32 + 16 + 3


def test_what_is_not_installed_is_said(tmp_path):
    peers = tmp_path / "peers.py"
    peers.write_text('EAGER = ["flash_attn"]\nCOMPILED = []\nLIBRARIES = {"flash_attn": "flash_attn"}\n')
    done = conformance(tmp_path, "--file", peers, "--all")
    assert done.returncode == 4 and "flash_attn: NOT RUN: flash_attn is not installed" in done.stdout


def test_a_failure_is_an_entry_of_a_corpus():
    failure = {"stage": "lse", "repro": "attn-compare run --config '{\"rows\": [[1, 2]]}' --seed 7 "
                                        "--backend py:a.py:b --exec graph_replay"}
    assert tallies.entry_of(failure, "py:a.py:b") == {
        "spec": {"rows": [[1, 2]]}, "seed": 7, "exec": "graph_replay", "backend": "py:a.py:b",
        "stage": "lse", "relation": ""}
    broken = {"stage": None, "repro": "attn-compare invariance --config '{}' --seed 7 --relations repeat"}
    assert tallies.entry_of(broken, "x")["relation"] == "repeat"
    assert tallies.entry_of({"stage": None, "repro": ""}, "x") is None


def test_conditions_tell_cases_apart():
    def spec(dim, mask):
        return ac.attention(2, 1, dim, mask=mask, rows=[(2, 9)])

    taken = [spec(64, "causal"), spec(64, "tensor"), spec(128, "causal")]
    assert tallies.conditions([spec(128, "tensor"), spec(96, "tensor")], taken) == [
        ("head_dim > 64 && mask == tensor", 2)]
    assert tallies.conditions([spec(64, "causal")], taken) == [("", 1)]
    assert tallies.conditions([spec(256, "causal"), spec(256, "null")], taken)[0] == (
        "head_dim > 192", 2)
