"""A wheel installs without network and works away from the tree."""

import os
import pathlib
import subprocess
import sys

import pytest

BUILD = pathlib.Path(os.environ["ATTN_COMPARE_PROGRAM"]).parent.parent
SOURCE = pathlib.Path(os.environ["ATTN_SOURCE_DIR"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    made = subprocess.run([SOURCE / "scripts/make-wheel.sh", BUILD, folder], capture_output=True,
                          text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    wheel = made.stdout.strip().splitlines()[-1]
    target = folder / "site"
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps",
                           "--target", target, wheel], capture_output=True, text=True)
    if "No module named pip" in done.stderr:
        pytest.skip("no pip here")
    assert done.returncode == 0, done.stderr
    return target


def clean_environment(target):
    keep = {key: value for key, value in os.environ.items()
            if not key.startswith("ATTN_") and key != "PYTHONPATH"}
    return {**keep, "PYTHONPATH": str(target)}


def test_the_package_works(installed, tmp_path):
    code = ("import attn_compare as ac, numpy as np\n"
            "r = ac.check(lambda p: np.zeros((p.tokens, 8, 64), 'float32'), ac.attention())\n"
            "assert 'returned no lse' in r.detail, r.detail\n"
            "print(ac.__file__)\n")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            env=clean_environment(installed), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert str(installed) in result.stdout


def test_the_program_works(installed, tmp_path):
    backend = pathlib.Path(__file__).with_name("planted.py")
    case = SOURCE / "data/golden/core-decode.h5"
    result = subprocess.run([sys.executable, "-m", "attn_compare.program", "verify", case,
                             "--backend", f"py:{backend}:right", "--backend", "cpu"],
                            capture_output=True, text=True, env=clean_environment(installed),
                            cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed, 0 failed" in result.stdout
