#!/usr/bin/env python3
"""The README's table of what known-good kernels did, from data/conformance/*.json and data/findings/*.md.

    python3 harness/python/peers/table.py [--check] [--data data] [--readme README.md]

Writes it between <!-- peers --> and <!-- /peers -->; --check: exit code 1 when it is not what is there.
"""

import argparse
import json
import pathlib
import re
import sys

BEGIN, END = "<!-- peers -->", "<!-- /peers -->"
NOTHING = ("No run on a device is recorded in data/conformance yet; "
           "`python3 harness/python/peers/conformance.py --all` makes one.")


def read(data):
    return [json.loads(path.read_text()) for path in sorted((data / "conformance").glob("*.json"))]


def ends_as(data, name):
    """What the page of a finding says that it ended as: its first words after "ends as:"."""
    page = data / "findings" / f"{name}.md"
    found = re.search(r"^ends as: ([^(;,.\n]*)", page.read_text(), re.M) if page.is_file() else None
    return found.group(1).strip() if found else "undecided"


def row(data, result):
    worst = max(result["largest_error_over_bound"].values(), default=0.0)
    count = f"{result['judged']:,}"
    if result["judged"] < result["wanted_judged"]:
        count += f" of {result['wanted_judged']:,}"
    above = ", ".join(f"[{ends_as(data, name)}](data/findings/{name}.md)"
                      for name in [*result["findings"], *result["listed"]])
    broke = result["crashed"] + result["timed_out"]
    return (f"| {result['peer']} {result['version']} | {result['device']} | {count} | {result['passed']:,} | "
            f"{result['unsupported']:,} | {result['failed']:,} | {result['could_not_run']:,} | {broke:,} | {worst:.3g} | {above or 'none'} |")


def table(data):
    results = read(data)
    if not results:
        return NOTHING
    return "\n".join([
        "| peer | device | judged | passed | unsupported | failed | could not run | crashed, timed out | "
        "largest error/bound | rows above 1.0, now or before |",
        "|---|---|---|---|---|---|---|---|---|---|", *(row(data, result) for result in results)])


def with_table(text, data):
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{BEGIN} and {END} are wanted once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(data)}\n{END}{rest.split(END)[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--data", default="data", type=pathlib.Path)
    parser.add_argument("--readme", default="README.md", type=pathlib.Path)
    options = parser.parse_args()
    text = options.readme.read_text()
    wanted = with_table(text, options.data)
    if options.check:
        return int(text != wanted)
    options.readme.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
