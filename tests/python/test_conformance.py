import json
import os
import pathlib
import subprocess
import sys

SOURCE = pathlib.Path(os.environ["ATTN_SOURCE_DIR"])
PLANTED = pathlib.Path(__file__).with_name("planted.py")


def conformance(folder, *words):
    return subprocess.run(
        [sys.executable, SOURCE / "harness/python/peers/conformance.py", "--file", PLANTED,
         "--program", os.environ["ATTN_COMPARE_PROGRAM"], "--output", folder, "--cases", "25",
         "--jobs", "1", "--exec", "plain", "--compiled", "none", *words],
        capture_output=True, text=True, timeout=200)


def test_a_right_peer_is_tallied_once(tmp_path):
    done = conformance(tmp_path, "right")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.json")
    kept = json.loads(path.read_text())
    assert kept["peer"] == "right" and kept["cases"] == 25 and not kept["failures"]
    assert kept["passed"] + kept["unsupported"] + kept["mistrusted"] == 25 and kept["passed"] > 15
    assert 0 < max(kept["largest_error_over_bound"].values()) <= 1
    assert "judged before" in conformance(tmp_path, "right").stdout


def test_a_wrong_peer_is_told(tmp_path):
    done = conformance(tmp_path, "scale_wrong")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "fails:" in done.stdout and "reproduce" in done.stdout
    (path,) = tmp_path.glob("*.json")
    failures = json.loads(path.read_text())["failures"]
    assert failures and failures[0]["repro"].startswith("attn-compare run")
