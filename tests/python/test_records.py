"""What is recorded of peers: the README's table equals the files, and no row is without an explanation."""

import json
import os
import pathlib
import re
import sys

import pytest

SOURCE = pathlib.Path(os.environ["ATTN_SOURCE_DIR"])
PEERS = SOURCE / "harness/python/peers/peers.py"
sys.path.insert(0, str(PEERS.parent))

import conformance  # noqa: E402
import table  # noqa: E402
import tallies  # noqa: E402

ENDS = {"declared arithmetic corrected", "a listed limitation", "a finding"}


def complaints(data):
    """What is wrong with the records of a folder."""
    found = []
    named = {path.stem for path in (data / "findings").glob("*.md")}
    used = {page for pages in conformance.named_in(PEERS)["LISTED"].values() for page in pages}
    for path in sorted((data / "conformance").glob("*.json")):
        result = json.loads(path.read_text())
        used |= {*result["findings"], *result["listed"]}
        if sum(result[name] for name in tallies.OUTCOMES) != result["cases"]:
            found.append(f"{path.name}: the outcomes do not add up")
        if result["complete"] and result["judged"] < result["wanted_judged"]:
            found.append(f"{path.name}: judged {result['judged']} of {result['wanted_judged']}, and called complete")
        above = {stage for stage, ratio in result["largest_error_over_bound"].items() if ratio > 1}
        if bool(above) > bool(result["findings"]):
            found.append(f"{path.name}: {', '.join(sorted(above))} above 1.0 and no finding")
        for failure in result["failures"]:
            if failure["status"] != "failed" and not failure.get("ends_as"):
                found.append(f"{path.name}: {failure['status']} without \"ends_as\"")
        for name in [*result["findings"], *result["listed"]]:
            if not (data / "findings" / f"{name}.h5").is_file():
                found.append(f"{path.name}: {name}.h5 is missing")
            if table.ends_as(data, name) not in ENDS:
                found.append(f"{path.name}: {name} ends as \"{table.ends_as(data, name)}\"")
    return found + [f"findings/{name}.md belongs to no record" for name in sorted(named - used)]


def test_the_readme_has_the_table_of_the_files():
    text = (SOURCE / "README.md").read_text()
    assert table.with_table(text, SOURCE / "data") == text, "run harness/python/peers/table.py"


def test_no_recorded_row_is_without_an_explanation():
    assert complaints(SOURCE / "data") == []


@pytest.fixture
def recorded(tmp_path):
    result = {"peer": "kernel", "version": "1.2", "device": "H200", "cases": 2000, "wanted_judged": 2000,
              "judged": 1890, "listed": [],
              "complete": False, "passed": 1889, "failed": 1, "could_not_run": 0, "unsupported": 100, "mistrusted": 10,
              "crashed": 0, "timed_out": 0, "largest_error_over_bound": {"attn_out": 1.25},
              "findings": ["kernel-attn-out-1"],
              "failures": [{"status": "failed", "cases": 1, "detail": ""}]}
    for folder in ("conformance", "findings"):
        (tmp_path / folder).mkdir()
    (tmp_path / "conformance/kernel-1.2-H200.json").write_text(json.dumps(result))
    (tmp_path / "findings/kernel-attn-out-1.h5").write_text("")
    page = tmp_path / "findings/kernel-attn-out-1.md"
    page.write_text("# kernel\n\nends as: a listed limitation (head_dim above 128)\n")
    return tmp_path, page, result


def test_a_row_is_as_recorded(recorded):
    data, _, _ = recorded
    assert table.table(data).splitlines()[-1] == (
        "| kernel 1.2 | H200 | 1,890 of 2,000 | 1,889 | 100 | 1 | 0 | 0 | 1.25 | "
        "[a listed limitation](data/findings/kernel-attn-out-1.md) |")
    text = f"a\n{table.BEGIN}\nold\n{table.END}\nb\n"
    assert re.fullmatch(r"a\n<!-- peers -->\n\| peer .*\n<!-- /peers -->\nb\n",
                        table.with_table(text, data), re.S)


def test_what_is_missing_in_a_record_is_told(recorded):
    data, page, result = recorded
    assert complaints(data) == []
    page.write_text("# kernel\n\nends as: undecided (...)\n")
    assert complaints(data) == ['kernel-1.2-H200.json: kernel-attn-out-1 ends as "undecided"']
    page.unlink()
    assert len(complaints(data)) == 1
    path = data / "conformance/kernel-1.2-H200.json"
    path.write_text(json.dumps({**result, "findings": [], "passed": 3}))
    assert complaints(data) == ["kernel-1.2-H200.json: the outcomes do not add up",
                                "kernel-1.2-H200.json: attn_out above 1.0 and no finding"]


def test_a_record_that_was_cut_says_so(recorded):
    data, _, result = recorded
    path = data / "conformance/kernel-1.2-H200.json"
    path.write_text(json.dumps({**result, "complete": True}))
    assert complaints(data) == ["kernel-1.2-H200.json: judged 1890 of 2000, and called complete"]
    path.write_text(json.dumps({**result, "complete": True, "judged": 2000}))
    assert complaints(data) == []


def test_what_could_not_run_is_explained_too(recorded):
    data, _, result = recorded
    path = data / "conformance/kernel-1.2-H200.json"
    raised = {"status": "could_not_run", "cases": 1, "detail": "run() reported an error: KernelError"}
    result = {**result, "failed": 0, "could_not_run": 1, "findings": [], "failures": [raised],
              "largest_error_over_bound": {}}
    (data / "findings/kernel-attn-out-1.md").unlink()
    path.write_text(json.dumps(result))
    assert complaints(data) == ['kernel-1.2-H200.json: could_not_run without "ends_as"']
    path.write_text(json.dumps({**result, "failures": [{**raised, "ends_as": "mended"}]}))
    assert complaints(data) == []
    assert "| 1,889 | 100 | 0 | 1 | 0 |" in table.table(data)
