#!/usr/bin/env python3
"""What of the Python part needs a device, in one run: examples, DLPack, TorchGraph; then the peers.

    python3 harness/python/peers/device.py --budget 560 --out DIR [STEP...]

Steps: dlpack graph examples findings triton_bug peers (all, where none is named). Prints a line for each
and writes DIR/device.txt after each; what a step printed is in DIR/STEP.log. Commands of a step run at the
same time (--together), since each spends most of its time on starting an interpreter; triton_bug is timed
alone. `findings` runs the golden files of data/findings on the peers that they are of. Needs the package
attn_compare, as conformance.py, which the last step runs with what is left of the budget. Exit code 1 when
a step failed.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
ROOT = HERE.parent.parent.parent
KERNELS, PEERS = HERE / "device_kernels.py", HERE / "peers.py"
MODES = "plain,second_call,dirty_scratch,repeat,graph,graph_replay,padded"


def spec(dtype="float32", rows=((1, 20), (3, 40), (2, 7))):
    return json.dumps({
        "config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,
                   "num_key_value_heads": 2, "head_dim": 32, "dtype": dtype,
                   "mask": {"variant": "causal"}, "kv_cache": {"page_size": 8}},
        "rows": [list(row) for row in rows]})


class Steps:
    def __init__(self, program, environment, out, until, together):
        self.program, self.environment, self.out, self.until = program, environment, out, until
        self.together = together

    def run(self, words, more):
        """(exit code, stdout, what goes into the log); 124 past the budget."""
        left = max(5.0, self.until - time.monotonic())
        start = time.monotonic()
        head = f"$ attn-compare {' '.join(map(str, words))}\n"
        try:
            done = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True,
                                  env={**self.environment, **more}, timeout=left, cwd=ROOT)
        except subprocess.TimeoutExpired as error:
            printed = b"".join(part for part in (error.stdout, error.stderr) if part)
            return 124, "", f"{head}{printed.decode(errors='replace')}no end after {left:.0f} s\n\n"
        seconds = time.monotonic() - start
        tail = f"exit code {done.returncode}, {seconds:.1f} s\n\n"
        return done.returncode, done.stdout, head + done.stdout + done.stderr + tail

    def expect(self, log, *expected):
        """What was otherwise than expected: of (exit code, words that are printed, command, more of the
        environment) each."""
        with concurrent.futures.ThreadPoolExecutor(self.together) as pool:
            ran = list(pool.map(lambda one: self.run(one[2], one[3] if len(one) > 3 else {}), expected))
        found = []
        for (code, words, command, *_), (got, text, account) in zip(expected, ran):
            log.write(account)
            flat = " ".join(text.split())
            if got != code or words not in flat:
                found.append(f"exit code {got}, \"{words}\" {'there' if words in flat else 'missing'}: "
                             + " ".join(map(str, command))[:160])
        log.flush()
        return found

    def dlpack(self, log):
        return self.expect(log, *((0, "1 passed", [
            "run", "--config", spec(dtype), "--seed", 3, "--backend", f"py:{KERNELS}:narrow"])
            for dtype in ("float32", "bfloat16", "float16")))

    def graph(self, log):
        def run(backend, seed, mode):
            return ["run", "--config", spec(), "--seed", seed, "--backend", f"py:{KERNELS}:{backend}",
                    "--exec", mode]

        return self.expect(
            log,
            *((0, "1 passed", run("right", seed, mode))
              for mode in ("plain", "graph", "graph_replay", "padded") for seed in (1, 2)),
            *((0, "1 passed", run("lengths_recorded", 1, mode)) for mode in ("plain", "graph", "padded")),
            (1, "first bad stage lse", run("lengths_recorded", 2, "graph_replay")),
            (0, "passed, 0 failed", ["fuzz", "--backend", f"py:{KERNELS}:right", "--cases", 40, "--jobs", 2,
                                     "--exec", MODES, "--relations", "none"]))

    def examples(self, log):
        def fuzz(name, cases, *more):
            return (0, "passed, 0 failed", ["fuzz", "--backend", f"py:examples/python/{name}", "--cases",
                                            cases, "--relations", "none", "--timeout", 90, *more])

        return self.expect(log, fuzz("torch_sdpa.py:sdpa", 60, "--jobs", 2),
                           fuzz("triton_decode.py:decode", 40, "--jobs", 2, "--max-compiles", 10),
                           fuzz("torch_flex.py:flex", 2, "--jobs", 1, "--max-compiles", 3),
                           fuzz("jax_attention.py:attention", 6, "--jobs", 1, "--max-compiles", 3))

    def findings(self, log):
        """The case of a page fails on the peers whose limitation it is; other peers are right on it."""
        import conformance

        named = conformance.named_in(HERE / "peers.py")
        pages = sorted({page for listed in named["LISTED"].values() for page in listed})
        wrong, right = (1, "0 passed, 1 failed"), (0, "1 passed, 0 failed")
        wanted = [(right, page, peer) for page in pages for peer in ("sdpa_math", "sdpa_efficient")]
        wanted += [(wrong, page, peer) for peer, listed in named["LISTED"].items() for page in listed]
        return self.expect(log, *(
            (*expected, ["verify", f"data/findings/{page}.h5", "--backend", f"py:{PEERS}:{peer}"],
             {"PEERS_WITHOUT_LIMITATIONS": "1"}) for expected, page, peer in wanted))

    def triton_bug(self, log):
        """The README's own command."""
        start = time.monotonic()
        found = self.expect(log, (1, "reproduce attn-compare run", [
            "fuzz", "--backend", "py:examples/python/triton_decode_bug.py:decode", "--max-failures", 1]))
        seconds = time.monotonic() - start
        return [*found, "" if seconds < 120 else f"took {seconds:.0f} s, wanted are 120"]

    def peers(self, log):
        words = [sys.executable, HERE / "conformance.py", "--all", "--budget",
                 str(max(10.0, self.until - time.monotonic())), "--out", self.out, "--program", self.program]
        done = subprocess.run(list(map(str, words)), stdout=log, stderr=subprocess.STDOUT,
                              env=self.environment)
        return ["" if done.returncode in (0, 1) else f"conformance.py ended with {done.returncode}"]


ALL = ["dlpack", "graph", "examples", "findings", "triton_bug", "peers"]


def main(arguments=None):
    import conformance

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", choices=[[], *ALL], metavar="STEP")
    parser.add_argument("--program")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--budget", type=float, default=560.0, help="seconds for all steps")
    parser.add_argument("--together", type=int, default=max(1, min(8, (os.cpu_count() or 2) // 2)),
                        help="commands at a time")
    options = parser.parse_args(arguments)
    program, environment = conformance.find_program(options.program)
    options.out.mkdir(parents=True, exist_ok=True)
    steps = Steps(program, environment, options.out, time.monotonic() + options.budget, options.together)
    failed = 0
    for name in options.steps or ALL:
        start = time.monotonic()
        with open(options.out / f"{name}.log", "w") as log:
            wrong = [line for line in getattr(steps, name)(log) if line]
        failed += bool(wrong)
        line = f"{name}: {'FAILED: ' + '; '.join(wrong) if wrong else 'passed'} ({time.monotonic() - start:.0f} s)"
        print(line, flush=True)
        with open(options.out / "device.txt", "a") as kept:
            kept.write(line + "\n")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
