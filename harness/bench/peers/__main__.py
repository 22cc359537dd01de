#!/usr/bin/env python3
"""Times the CUDA layers beside other implementations: PyTorch's attentions and products, JAX's.

One process on one device; captured CUDA graphs, contestants taking turns, buffers past the L2;
every output is judged against float64 before its time counts. Ours reads shuffled pages, the peers
contiguous caches. What is timed is what attn-bench has: `attn-bench --list`.

    python3 harness/bench/peers --library LIB.so --cases CASES.json --json FILE [--budget 100]
"""
import argparse
import gc
import json
import re
import subprocess
import sys
import time
import warnings

import torch

import attention
import layers
from report import Report, parameters_of
from timing import Calls, graph_of, time_graphs

# Compiling takes seconds each, so only where it tells most; --compile all does it everywhere.
COMPILED = ("prefill B1 S4096 32/8 causal", "prefill B1 S16384 32/8 W1024", "layer prefill 1x4096",
            "layer decode 1 x ctx 8191", "layer prefill 1x4096, qk-norm", "layer prefill 8x2048, qk-norm",
            "layer decode 64 x ctx 8191, qk-norm", "layer decode 1 x ctx 8191, qk-norm")
JAX = ("prefill B1 S4096 32/8 causal", "prefill B1 S16384 32/8 W1024")


def contestants_of(case, made, args):
    """{name: function that builds (functions, output, keep)}, ours first."""
    ours = {"cuda": "", **{"cuda:" + words: words for words in args.also}}
    compiled = args.compile == "all" or (args.compile == "some" and case["name"] in COMPILED)
    if isinstance(made, attention.AttentionCase):
        out = {who: lambda words=words: attention.ours(made, args.shim, args.layout == "hnd", words)
               for who, words in ours.items()}
        for name in attention.SDPA:
            out[name] = lambda name=name: attention.sdpa(made, name)
        out["varlen"] = lambda: attention.varlen(made)
        if compiled:
            out["flex"] = lambda: attention.flex(made)
        return out
    out = {who: lambda words=words: layers.ours(made, args.shim, args.layout == "hnd", words)
           for who, words in ours.items()}
    named = {"gptq": "int4 tinygemm", "float8_e4m3fn": "fp8 cuBLASLt"}.get(made.encoding)
    if named or made.stores_only or made.config["dtype"] == "float32":
        out[named or "torch"] = lambda: layers.peer(made)
    else:
        for name in ("flash", "cudnn"):
            out["torch " + name] = lambda name=name: layers.peer(made, name)
    if compiled:
        out["torch.compile"] = lambda: layers.peer(made, "", True)
    return out


def one_line(error):
    return str(error).strip().split("\n")[0][:160] or type(error).__name__


class Bench:
    def __init__(self, args, report):
        self.args, self.report = args, report
        self.begin = time.monotonic()
        self.failed = []

    def is_spent(self, who=""):
        """What compiles has less of the time, so that it takes none from those that do not."""
        share = 0.7 if who in ("flex", "torch.compile", "jax cudnn") else 1.0
        return time.monotonic() - self.begin > share * self.args.budget

    def prepare(self, case, made, who, build, parameters):
        """The graph of one contestant and its error/bound, or None with a row that says why."""
        try:
            functions, out, keep = build()
            torch.cuda.synchronize()
            fp8 = "prefill=fp8" in who
            worst = made.error_over_bound(out, fp8) if fp8 else made.error_over_bound(out)
            if not worst <= 1.0:
                raise ArithmeticError(f"wrong: error/bound {worst:.3g} against float64")
            return (Calls if self.args.eager else graph_of)(functions), worst, (keep, out)
        except Exception as error:  # whatever a peer refuses or breaks with is its row
            torch.cuda.synchronize()
            message = one_line(error)
            self.report.add_error(case["name"], who, message, parameters)
            if who == "cuda":
                self.failed.append(f"{case['name']}: {message}")
            elif isinstance(error, ArithmeticError):
                print(f"{case['name']} | {who}: {message}", file=sys.stderr)
            return None

    def run(self, case):
        kind = attention.AttentionCase if case["case"]["config"].get("entry_point") == "attention" else layers.LayerCase
        try:
            made = kind(case)
        except NotImplementedError as error:
            self.report.add_error(case["name"], "peers", one_line(error), parameters_of(case))
            return
        ready = {}
        for who, build in contestants_of(case, made, self.args).items():
            if not re.search(self.args.only, who):
                continue
            if self.is_spent(who) and who != "cuda":
                self.report.add_error(case["name"], who, "not run: the time is up", parameters_of(case))
                continue
            got = self.prepare(case, made, who, build, parameters_of(case, who == "cuda"))
            if got:
                ready[who] = got
        sets = getattr(made, "sets", 1)
        counters = {"TFLOP/s": made.operations / 1e6, "GB/s": made.bytes / 1e3}
        timed = time_graphs({who: r[0] for who, r in ready.items()}, sets, self.args.rounds) if ready else {}
        for who, (times, replays) in timed.items():
            how = "host" if self.args.eager else "graph"
            self.report.add(case["name"], who, times, replays, f"{how}, {sets} copies",
                            parameters_of(case, who == "cuda"),
                            {**counters, "error_bound": ready[who][1]})
        self.show(case["name"], timed, ready)
        if case["name"] in JAX and not self.is_spent("jax cudnn"):
            self.run_jax(case, made, counters)

    def run_jax(self, case, made, counters):
        try:
            import jax_peer
            times, out = jax_peer.time_jax(made, self.args.rounds)
            worst = made.error_over_bound(out)
            if not worst <= 1.0:
                raise ArithmeticError(f"wrong: error/bound {worst:.3g} against float64")
            self.report.add(case["name"], "jax cudnn", times, 4, "host, 1 copies", parameters_of(case),
                            {**counters, "error_bound": worst})
        except Exception as error:
            self.report.add_error(case["name"], "jax cudnn", one_line(error), parameters_of(case))

    def show(self, name, timed, ready):
        medians = {who: sorted(times)[len(times) // 2] for who, (times, _) in timed.items()}
        words = [f"{who} {us:.2f} us ({ready[who][1]:.2f})" for who, us in medians.items()]
        peers = [us for who, us in medians.items() if not who.startswith("cuda")]
        ratio = f"  best peer / ours {min(peers) / medians['cuda']:.3f}" if peers and "cuda" in medians else ""
        print(f"{time.monotonic() - self.begin:5.1f} s  {name}: " + ", ".join(words) + ratio, flush=True)


def context_of(args):
    def smi(field):
        command = ["nvidia-smi", "--query-gpu=" + field, "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip().split("\n")[0]
    properties = torch.cuda.get_device_properties(0)
    libraries = f"torch {torch.__version__}, cudnn {torch.backends.cudnn.version()}"
    return {"gpu": properties.name, "gpu_count": 1, "driver": smi("driver_version"),
            "cuda": torch.version.cuda, "clocks": f"SM at most {smi('clocks.max.sm')}",
            "libraries": libraries, "commit": args.commit, "subject": args.subject,
            "rounds": args.rounds, "layout": args.layout}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="libattn_layer_shim.so of a CUDA build")
    parser.add_argument("--cases", required=True, help="what attn-bench --list printed")
    parser.add_argument("--json", required=True, help="file for attn-compare history import")
    parser.add_argument("--budget", type=float, default=100.0, help="seconds after which only ours is timed")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--match", default="", help="only cases whose name has this")
    parser.add_argument("--only", default="", help="only contestants whose name has this")
    parser.add_argument("--compile", choices=("some", "all", "none"), default="some")
    parser.add_argument("--eager", action="store_true", help="call from the host in place of captured graphs")
    parser.add_argument("--page", type=int, help="slots of a page, instead of the case's own")
    parser.add_argument("--layout", choices=("nhd", "hnd"), default="nhd")
    parser.add_argument("--also", action="append", default=[], metavar="OPTIONS",
                        help="ours with these options of the backend cuda too: prefill=tiled")
    parser.add_argument("--commit", default="")
    parser.add_argument("--subject", default="")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # torch says at length why a backend refuses; a row says it
    torch.manual_seed(0)
    from shim import Library
    args.shim = Library(args.library)
    with open(args.cases, encoding="utf-8") as file:
        cases = [c for c in json.load(file) if re.search(args.match, c["name"])]
    for case in cases:
        cache = case["case"]["config"].setdefault("kv_cache", {})
        cache["page_size"] = args.page or cache.get("page_size", 128)
    # Compiling last: when the time is up, the plain ones are there.
    cases.sort(key=lambda c: c["name"] in COMPILED)
    bench = Bench(args, Report(context_of(args)))
    for case in cases:
        try:
            bench.run(case)
        except Exception as error:  # the other cases' times are wanted all the same
            bench.failed.append(f"{case['name']}: {one_line(error)}")
        bench.report.write(args.json)
        gc.collect()
        torch.cuda.empty_cache()
    for line in bench.failed:
        print("FAILED " + line, file=sys.stderr)
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
