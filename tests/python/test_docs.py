"""What the README and docs/python.md tell a reader to type does what they say."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

import attn_compare as ac

SOURCE = pathlib.Path(os.environ["ATTN_SOURCE_DIR"])
README, GUIDE = SOURCE / "README.md", SOURCE / "docs/python.md"


def first_block(path, language="python"):
    return re.search(rf"```{language}\n(.*?)```", path.read_text(), re.S).group(1)


@pytest.mark.parametrize("path, needs", [(README, "numpy"), (GUIDE, "torch")], ids=["README", "guide"])
def test_the_first_example_is_a_backend_that_passes(path, needs, tmp_path):
    pytest.importorskip(needs, reason=f"no {needs} here")
    (tmp_path / "kernel.py").write_text(first_block(path))
    done = subprocess.run([sys.executable, "kernel.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed, 0 failed" in done.stdout, done.stdout + done.stderr
    done = subprocess.run([os.environ["ATTN_COMPARE_PROGRAM"], "fuzz", "--backend", "py:kernel.py:mine",
                           "--cases", "30"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and ", 0 failed" in done.stdout, done.stdout + done.stderr


def test_every_name_of_the_package_that_is_written_exists():
    for path in (README, GUIDE, *(SOURCE / "examples/python").glob("*.py")):
        for name in set(re.findall(r"\bac\.(\w+)", path.read_text())):
            assert hasattr(ac, name), f"{path.name} writes ac.{name}"


def test_every_keyword_of_the_decorator_is_explained():
    import inspect

    for name in inspect.signature(ac.backend).parameters:
        if name != "name":
            assert re.search(rf"`{name}\b|\b{name}=", GUIDE.read_text()), name
            assert re.search(rf"^\s+{name}:", ac.backend.__doc__, re.M) or name == "lse", name
    assert "lse:" in ac.backend.__doc__


def test_the_case_words_of_the_guide_are_known():
    text = GUIDE.read_text().split("Words of `cases` and `generate`:", 1)[1].split(";", 1)[0]
    words = re.findall(r"\w+", text)
    assert len(words) > 15 and ac.generate(" or ".join([*words, "any"]), n=1)
