"""What torch's known-good peers share, on the host: nothing that they are given is wrong or changed."""

import importlib.util
import os
import pathlib
import subprocess

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no torch here")
PEER = pathlib.Path(__file__).with_name("dense_peer.py")


def fuzz(name, *more):
    done = subprocess.run(
        [os.environ["ATTN_COMPARE_PROGRAM"], "fuzz", "--backend", f"py:{PEER}:{name}", "--cases", "60",
         "--jobs", "2", "--relations", "none", *more], capture_output=True, text=True, timeout=250,
        env={**os.environ, "ATTN_TORCH_DEVICE": "cpu"})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["heads_of_groups", "heads_repeated"])
def test_a_peer_is_given_what_the_case_holds(name):
    code, text = fuzz(name, "--exec", "plain,second_call,dirty_scratch,repeat")
    assert code == 0 and "60 passed, 0 failed" in text, text


def test_a_peer_that_forgets_the_mask_is_wrong():
    code, text = fuzz("mask_forgotten", "--max-failures", "1", "--no-shrink")
    assert code == 1 and "fails:" in text, text
