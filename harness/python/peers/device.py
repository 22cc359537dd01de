#!/usr/bin/env python3
"""What of the Python part needs a device, in one run: examples, DLPack, TorchGraph; then the peers.

    python3 harness/python/peers/device.py --budget 560 --out DIR [STEP...]

Steps: dlpack graph examples triton_bug peers (all, where none is named). Prints a line for each and writes
DIR/device.txt after each; what a step printed is in DIR/STEP.log. Needs the package attn_compare, as
conformance.py, which the last step runs with what is left of the budget. Exit code 1 when a step failed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
ROOT = HERE.parent.parent.parent
KERNELS = HERE / "device_kernels.py"
MODES = "plain,second_call,dirty_scratch,repeat,graph,graph_replay,padded"


def spec(dtype="float32", rows=((1, 20), (3, 40), (2, 7))):
    return json.dumps({
        "config": {"variant": "attention", "entry_point": "attention", "num_attention_heads": 4,
                   "num_key_value_heads": 2, "head_dim": 32, "dtype": dtype,
                   "mask": {"variant": "causal"}, "kv_cache": {"page_size": 8}},
        "rows": [list(row) for row in rows]})


class Steps:
    def __init__(self, program, environment, out, until):
        self.program, self.environment, self.out, self.until = program, environment, out, until

    def run(self, log, *words):
        """(exit code, stdout); 124 past the budget."""
        left = max(5.0, self.until - time.monotonic())
        log.write(f"$ attn-compare {' '.join(map(str, words))}\n")
        log.flush()
        try:
            done = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True,
                                  env=self.environment, timeout=left)
        except subprocess.TimeoutExpired:
            return 124, ""
        log.write(done.stdout + done.stderr + f"exit code {done.returncode}\n\n")
        log.flush()
        return done.returncode, done.stdout

    def expect(self, log, code, words, *command):
        """"" or what was otherwise than expected. 6: cases that show little have no neighbour that a
        decode kernel takes."""
        found, text = self.run(log, *command)
        flat = " ".join(text.split())
        if found not in (code if isinstance(code, tuple) else (code,)) or words not in flat:
            return f"exit code {found}, \"{words}\" {'there' if words in flat else 'missing'}: " + \
                " ".join(map(str, command))[:160]
        return ""

    def dlpack(self, log):
        return [self.expect(log, 0, "1 passed", "run", "--config", spec(dtype), "--seed", 3, "--backend",
                            f"py:{KERNELS}:narrow") for dtype in ("float32", "bfloat16", "float16")]

    def graph(self, log):
        case = ["--config", spec(), "--seed"]
        right, wrong = f"py:{KERNELS}:right", f"py:{KERNELS}:lengths_recorded"
        found = [self.expect(log, 0, "1 passed", "run", *case, seed, "--backend", right, "--exec", mode)
                 for mode in ("plain", "graph", "graph_replay", "padded") for seed in (1, 2)]
        found += [self.expect(log, 0, "1 passed", "run", *case, 1, "--backend", wrong, "--exec", mode)
                  for mode in ("plain", "graph", "padded")]
        found.append(self.expect(log, 1, "first bad stage lse", "run", *case, 2, "--backend", wrong,
                                 "--exec", "graph_replay"))
        found.append(self.expect(log, 0, "passed, 0 failed", "fuzz", "--backend", right, "--cases", 40,
                                 "--jobs", 2, "--exec", MODES, "--relations", "none"))
        return found

    def examples(self, log):
        found = []
        for name, backend, cases in (("torch_sdpa", "sdpa", 100), ("triton_decode", "decode", 60),
                                     ("torch_flex", "flex", 20), ("jax_attention", "attention", 40)):
            more = ["--max-compiles", 10] if name in ("torch_flex", "triton_decode") else []
            found.append(self.expect(
                log, (0, 6), "passed, 0 failed", "fuzz", "--backend",
                f"py:{ROOT}/examples/python/{name}.py:{backend}", "--cases", cases, "--jobs", 1,
                "--timeout", 90, *more))
        return found

    def triton_bug(self, log):
        start = time.monotonic()
        found = self.expect(
            log, 1, "reproduce attn-compare run", "fuzz", "--backend",
            f"py:{ROOT}/examples/python/triton_decode_bug.py:decode", "--max-failures", 1, "--jobs", 1)
        seconds = time.monotonic() - start
        log.write(f"{seconds:.1f} s\n")
        return [found, "" if seconds < 120 else f"took {seconds:.0f} s, wanted are 120"]

    def peers(self, log):
        words = [sys.executable, HERE / "conformance.py", "--all", "--budget",
                 str(max(10.0, self.until - time.monotonic())), "--out", self.out, "--program", self.program]
        done = subprocess.run(list(map(str, words)), stdout=log, stderr=subprocess.STDOUT,
                              env=self.environment)
        return ["" if done.returncode in (0, 1) else f"conformance.py ended with {done.returncode}"]


ALL = ["dlpack", "graph", "examples", "triton_bug", "peers"]


def main(arguments=None):
    import conformance

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", choices=[[], *ALL], metavar="STEP")
    parser.add_argument("--program")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--budget", type=float, default=560.0, help="seconds for all steps")
    options = parser.parse_args(arguments)
    program, environment = conformance.find_program(options.program)
    options.out.mkdir(parents=True, exist_ok=True)
    steps = Steps(program, environment, options.out, time.monotonic() + options.budget)
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
