#!/usr/bin/env python3
"""Judges known-good kernels on generated cases and keeps the tallies.

    harness/python/peers/conformance.py [PEER...] [--program attn-compare] [--output data/conformance]

Each peer of peers.py (or --file FILE) runs `attn-compare fuzz`: eager ones 2,000 cases, compiled ones
300 of at most 40 combinations of what they are compiled for, at most --time seconds each. A file
PEER-VERSION-DEVICE.json each. A peer whose file is of the same commit is not repeated, unless --again.
Exit code 1 when a peer failed a case.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
EAGER_CASES, COMPILED_CASES, COMPILES = 2000, 300, 40


def versions():
    """What the peers are made of, and the device."""
    found = {}
    try:
        import torch

        found["torch"] = torch.__version__
        if torch.cuda.is_available():
            found["device"] = torch.cuda.get_device_name()
            found["cuda"] = torch.version.cuda
            found["cudnn"] = str(torch.backends.cudnn.version())
    except ImportError:
        pass
    try:
        import jax

        found["jax"] = jax.__version__
    except ImportError:
        pass
    return found


def tally(report):
    """The counts and the largest error/bound of a fuzz report (docs/cli.md, Reports)."""
    rows = report["rows"]
    counts = collections.Counter(row["status"] for row in rows)
    largest, reasons, failures = {}, collections.Counter(), {}
    for row in rows:
        if row["status"] == "unsupported":
            reasons[row["detail"]] += 1
        for stage in row["stages"] if row["status"] in ("passed", "failed") else []:
            ratio = float(stage["worst_ratio"])
            largest[stage["stage"]] = max(largest.get(stage["stage"], 0.0), ratio)
        if row["status"] in ("failed", "crashed", "timed_out"):
            kind = (row["status"], row["first_bad_stage"], re.sub(r"\d+", "N", row["detail"])[:120])
            first = failures.setdefault(kind, {
                "status": row["status"], "stage": row["first_bad_stage"], "cases": 0,
                "worst_ratio": row["worst_ratio"], "detail": row["detail"], "repro": row["repro"]})
            first["cases"] += 1
    return {
        "cases": len(rows),
        **{name: counts.get(name, 0) for name in ("passed", "failed", "unsupported", "mistrusted",
                                                  "crashed", "timed_out")},
        "largest_error_over_bound": largest,
        "unsupported_reasons": dict(reasons.most_common()),
        "failures": list(failures.values()),
    }


def run(peer, options, found):
    compiled = peer in options.compiled
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        words = [options.program, "fuzz", "--backend", f"py:{options.file}:{peer}", "--cases",
                 str(options.cases or (COMPILED_CASES if compiled else EAGER_CASES)), "--exec",
                 options.exec, "--time", str(options.time), "--jobs", str(1 if compiled else options.jobs),
                 "--seed", str(options.seed), "--json", str(report)]
        if compiled:
            words += ["--max-compiles", str(COMPILES)]
        done = subprocess.run(words, capture_output=True, text=True)
        if not report.is_file():
            sys.exit(f"{peer}: attn-compare ended with {done.returncode}: {done.stderr[-500:]}")
        data = json.loads(report.read_text())
    shown = done.stdout.rfind("fails:")
    result = {"schema_version": 1, "peer": peer, **found, "commit": data["tool"]["commit"],
              "exec": options.exec, "seed": options.seed, "seconds": round(data["seconds"], 1),
              **tally(data)}
    return result, done.stdout[shown:] if shown >= 0 else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", help="none: all that --file has")
    parser.add_argument("--file", default=str(HERE / "peers.py"))
    parser.add_argument("--program", default="attn-compare")
    parser.add_argument("--output", default="data/conformance")
    parser.add_argument("--cases", type=int, help="2000, of compiled peers 300")
    parser.add_argument("--time", type=float, default=170.0, help="seconds for each peer")
    parser.add_argument("--jobs", type=int, default=4, help="processes of an eager peer")
    parser.add_argument("--exec", default="plain,second_call,repeat")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compiled", default="flex,jax_cudnn", type=lambda text: text.split(","))
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    found = versions()
    if not options.peers:
        sys.path.insert(0, str(HERE))
        text = pathlib.Path(options.file).read_text()
        options.peers = re.findall(r"^@ac\.backend.*?^def (\w+)", text, re.M | re.S)
    commit = subprocess.run([options.program, "--version"], capture_output=True, text=True).stdout
    commit = re.search(r"commit\s+(\S+)", commit).group(1)
    folder = pathlib.Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    bad = 0
    for peer in options.peers:
        library = "jax" if peer.startswith("jax") else "torch"
        name = f"{peer}-{found.get(library, 'none')}-{found.get('device', 'cpu')}"
        path = folder / (re.sub(r"[^\w.+-]", "-", name) + ".json")
        if path.is_file() and not options.again and json.loads(path.read_text())["commit"] == commit:
            print(f"{peer}: judged before at {commit}")
            continue
        result, account = run(peer, options, found)
        path.write_text(json.dumps(result, indent=1) + "\n")
        worst = max(result["largest_error_over_bound"].values(), default=0.0)
        print(f"{peer}: {result['passed']} passed, {result['failed']} failed, "
              f"{result['unsupported']} unsupported, {result['crashed'] + result['timed_out']} "
              f"crashed or timed out; largest error/bound {worst:.3g}; {result['seconds']} s",
              flush=True)
        print(account, flush=True) if account else None
        bad += bool(result["failures"])
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
