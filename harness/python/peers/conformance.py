#!/usr/bin/env python3
"""Judges known-good kernels on generated cases, keeps the tallies and drafts what they get wrong.

    python3 harness/python/peers/conformance.py --all --budget 900 --out DIR

Each peer of peers.py (or --file FILE) runs `attn-compare fuzz`: eager ones until 2,000 cases are judged,
compiled ones 300 of at most 40 combinations of what they are compiled for, for at most three minutes and
its share of the budget; more cases are drawn where some are not judged. Relations between cases are left
out (--relations): each is another shape to compile. After each peer
DIR/conformance/PEER-VERSION-DEVICE.json is written, and for each kind of failure the shrunk case
DIR/findings/NAME.h5 and a draft NAME.md. A run that was killed, or whose budget ended, goes on when it is
started again: a peer whose file is whole and of the same commit is left out (but for --again), and one that
was cut goes on in its journal; --until-whole does so by itself while the budget lasts. --lanes N runs as
many peers beside each other, which share the device. Needs the package attn_compare (the wheel, or
PYTHONPATH=BUILD/python). Exit code: 1 when a peer failed a case, 4 when no peer is here, 2 when none is
named.
"""

import argparse
import concurrent.futures
import hashlib
import json
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import lanes  # noqa: E402
from installed import DISTRIBUTIONS, find_program, named_in, versions  # noqa: E402

EAGER_CASES, COMPILED_CASES, COMPILES = 2000, 300, 40
MORE = 1.05  # cases are drawn than are wanted: some are not judged
LEAST_SECONDS = 5.0  # for a run to begin
EAGER_EXEC, COMPILED_EXEC = "plain,second_call,dirty_scratch,repeat", "plain,second_call"
PEER_SECONDS = 180.0  # at most, everything included
DRAFTING = threading.Lock()  # one at a time: the library is called from this process
KINDS = 4  # of failures that are shrunk for a peer
SHRINK_SECONDS = 75.0  # at most, of those that the cases left of the above
RUN_SECONDS = 30.0  # of a single case: an interpreter and the device start first


class Stop:
    """Whether this run was asked to end, by an interrupt or by `timeout`."""

    asked = False

    @classmethod
    def listen(cls):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(cls, "asked", True))


def interrupt_after(child, seconds, limit):
    """Waits; at `seconds`, or when this run is to end, the child is asked to end, and some time later
    it is ended. Whether it was asked."""
    start = time.monotonic()
    while child.poll() is None and time.monotonic() - start < seconds and not Stop.asked:
        time.sleep(0.05)
    if child.poll() is not None:
        return False
    child.send_signal(signal.SIGINT)
    try:
        child.wait(8.0 if Stop.asked else max(1.0, limit - (time.monotonic() - start)))
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return True


def rows_of(journal):
    """The rows that a journal of `fuzz --resume` holds; its last line may be cut."""
    rows = []
    for line in journal.read_text().splitlines()[1:] if journal.is_file() else []:
        try:
            rows.append(json.loads(json.loads(line)["lines"][0]))
        except ValueError:
            break
    return rows


class Peer:
    """One peer's run of `attn-compare fuzz`."""

    def __init__(self, name, options, named, found):
        self.name, self.options, self.found = name, options, found
        self.compiled = name in (options.compiled or named["COMPILED"])
        self.library = named["LIBRARIES"].get(name, "torch")
        self.version = found.get(self.library, "none")
        self.listed = named["LISTED"].get(name, [])
        jobs = min(options.jobs, options.compiled_jobs) if self.compiled else options.jobs
        self.jobs = jobs * named["JOBS"].get(name, 1)
        self.wanted = options.cases or options.judged or (COMPILED_CASES if self.compiled else EAGER_CASES)
        self.cases = options.cases or math.ceil(MORE * self.wanted)
        words = f"{name}-{self.version}-{found.get('device', 'cpu')}"
        self.path = options.out / "conformance" / (re.sub(r"[^\w.+-]", "-", words) + ".json")
        file = pathlib.Path(options.file).resolve()
        here = pathlib.Path.cwd()  # what is recorded is to be run from the repository, wherever that is
        file = file.relative_to(here) if file.is_relative_to(here) else file
        self.backend = f"py:{file}:{name}"
        self.exec = options.exec or (COMPILED_EXEC if self.compiled else EAGER_EXEC)
        self.words = ["fuzz", "--backend", self.backend, "--exec", self.exec,
                      "--relations", options.relations, "--seed", str(options.seed), "--timeout",
                      str(options.timeout or (120 if self.compiled else 60)), "--max-failures",
                      str(KINDS), "--no-shrink"]
        if self.compiled:
            self.words += ["--max-compiles", str(COMPILES)]
        digest = hashlib.sha256(" ".join([options.commit, *self.words]).encode()).hexdigest()
        self.journal = options.out / ".journals" / f"{name}-{digest[:12]}"

    def judged_before(self):
        if self.options.again or not self.path.is_file():
            return False
        kept = json.loads(self.path.read_text())
        return kept["commit"] == self.options.commit and kept["complete"]

    def lacks(self, rows):
        """How many of the wanted cases are not judged yet; none where the number of cases was given."""
        from tallies import judged

        return 0 if self.options.cases else max(0, self.wanted - judged(rows))

    def cases_after(self, rows):
        """As many cases as should judge what is wanted, by what these rows are: those of the first."""
        lacking = self.lacks(rows)
        judged = self.wanted - lacking
        if len(rows) < self.cases or not self.lacks(rows[:self.cases]) or not judged:
            return self.cases
        return len(rows) + math.ceil(MORE * lacking * len(rows) / judged)

    def goes_on(self, result):
        """Whether more seconds would make it whole: not where the peer takes no case at all."""
        return not result["complete"] and (result["judged"] > 0 or result["cases"] < self.cases)

    def fuzz(self, folder, seconds):
        """The report, and what the program printed; (None, why) where nothing was judged. It goes on
        with more cases, in the same journal, until as many are judged as are wanted."""
        until = time.monotonic() + seconds
        data, text = self.fuzz_cases(self.cases_after(rows_of(self.journal)), folder, seconds)
        while data and not data["cut"] and 0 < self.lacks(data["rows"]) < self.wanted:
            left = until - time.monotonic()
            if left < LEAST_SECONDS or Stop.asked:
                return {**data, "cut": True}, text
            more, told = self.fuzz_cases(self.cases_after(data["rows"]), folder, left)
            if more is None:
                print(f"  {self.name}: more cases were wanted: {told}", flush=True)
                return {**data, "cut": True}, text
            data, text = more, told
        return data, text

    def fuzz_cases(self, cases, folder, seconds):
        """Nothing is shrunk here: that could take all the time that there is."""
        report = folder / "report.json"
        report.unlink(missing_ok=True)
        words = [*self.words, "--cases", str(cases), "--json", str(report), "--resume", str(self.journal),
                 "--jobs", str(self.jobs)]
        child, cut = self.start(words, folder, seconds)
        if report.is_file() and report.stat().st_size:
            return {**json.loads(report.read_text()), "cut": cut}, (folder / "out").read_text()
        rows = rows_of(self.journal)
        if cut and rows:  # a case that hangs does not end when it is asked to
            return {"rows": rows, "cut": True}, ""
        lines = (folder / "err").read_text().strip().splitlines() or ["it printed nothing"]
        return None, f"attn-compare ended with {child.returncode}: {lines[-1]}"

    def start(self, words, folder, seconds):
        with open(folder / "out", "w") as out, open(folder / "err", "w") as err:
            child = subprocess.Popen([self.options.program, *words], stdout=out, stderr=err,
                                     env=self.options.environment, start_new_session=True)
            return child, interrupt_after(child, seconds - min(12.0, 0.2 * seconds), seconds)

    def shrink(self, failures, folder, seconds):
        """One failure of each kind that has an answer, as small as there is time for, and attention
        alone where that fails too. (entries of a corpus, what was printed)"""
        from tallies import alone, entry_of, simplest

        found = [entry for failure in failures if failure["status"] == "failed"
                 if (entry := entry_of(failure, self.backend))][:KINDS]
        entries = [one for entry in found for one in (alone(entry), entry) if one]
        if not entries or seconds < 2 or Stop.asked:
            return ([] if Stop.asked else found), ""
        corpus = folder / "corpus"
        corpus.mkdir()
        known = {f"{number}.json": entry for number, entry in enumerate(entries)}
        for name, entry in known.items():
            (corpus / name).write_text(json.dumps(entry))
        words = ["fuzz", "--backend", self.backend, "--cases", str(len(entries)), "--seed",
                 str(self.options.seed), "--corpus", str(corpus), "--jobs", "1", "--relations", "none"]
        self.start(words, folder, seconds)
        new = [json.loads(p.read_text()) for p in sorted(corpus.glob("*.json")) if p.name not in known]
        return simplest(new) or found, (folder / "out").read_text()

    def run(self, seconds):
        """The tally, written to its file; None where the peer is not here. (tally or None, text)"""
        from tallies import tally

        self.journal.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            left = lambda: PEER_SECONDS - (time.monotonic() - start)
            data, text = self.fuzz(folder, seconds)
            if data is None:
                return None, text
            told = tally(data)
            corpus, account = self.shrink(told["failures"], folder,
                                          min(SHRINK_SECONDS, 0.75 * left()))
        o = self.options
        result = {
            "schema_version": 1, "peer": self.name, "version": self.version,
            **{"device": "cpu", **self.found}, "commit": o.commit, "exec": self.exec,
            "relations": o.relations, "seed": o.seed, "wanted_judged": self.wanted,
            "complete": not data["cut"] and not self.lacks(data["rows"]), "listed": self.listed,
            "seconds": round(time.monotonic() - start, 1), **told}
        self.save({**result, "findings": []})  # before anything else can go wrong
        with DRAFTING:
            result["findings"] = self.draft(corpus, result, left())
        self.save(result)
        text = account or text
        shown = text.find("fails:")
        return result, text[shown:] if shown >= 0 else ""

    def save(self, result):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(result, indent=1) + "\n")
        part.replace(self.path)  # whole or not at all

    def draft(self, corpus, result, seconds):
        """The names of the findings of failures above their bound; what crashed has no answer to keep."""
        import findings

        names = []
        for entry in corpus:
            worst = None
            if not entry.get("relation"):
                worst = findings.worst_element(
                    [self.options.program], self.backend, entry, self.options.environment,
                    max(RUN_SECONDS, seconds / len(corpus)))
            made_of = {key: result[key] for key in ("version", "commit", *self.found) if key in result}
            try:
                names.append(findings.write(self.options.out / "findings", self.name, entry,
                                            self.backend, made_of, worst))
            except Exception as error:  # its case is in the account, which is printed
                print(f"  a failure of {self.name} could not be drafted: {error}", flush=True)
        return names


def line_of(peer, result):
    worst = max(result["largest_error_over_bound"].values(), default=0.0)
    return (f"{peer}: {result['passed']} passed, {result['failed']} failed, {result['could_not_run']} could not run, {result['unsupported']} "
            f"unsupported, {result['mistrusted']} mistrusted, {result['crashed']} crashed, "
            f"{result['timed_out']} timed out; largest error/bound {worst:.3g}; {result['seconds']} s"
            + f"; {result['judged']} of {result['wanted_judged']} judged"
            + ("" if result["complete"] else ", cut" if result["judged"] else ", not whole"))


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*")
    parser.add_argument("--all", action="store_true", help="every peer of --file, eager ones first")
    parser.add_argument("--file", default=str(HERE / "peers.py"))
    parser.add_argument("--program", help="attn-compare (that of the package)")
    parser.add_argument("--out", default="data", type=pathlib.Path)
    parser.add_argument("--budget", type=float, default=1800.0, help="seconds for all peers together")
    parser.add_argument("--judged", type=int, help=f"go on until as many cases are judged ({EAGER_CASES}, of "
                        f"compiled peers {COMPILED_CASES})")
    parser.add_argument("--cases", type=int, help="as many in place of that, judged or not")
    parser.add_argument("--jobs", type=int, default=max(1, min(12, (os.cpu_count() or 2) - 2)),
                        help="processes of an eager peer")
    parser.add_argument("--compiled-jobs", type=int, default=3,
                        help="processes of a compiled peer: each compiles, what is on disk is shared")
    parser.add_argument("--relations", default="none", help="as attn-compare fuzz takes them")
    parser.add_argument("--timeout", type=float, help="seconds for a case, and to load a peer: 60, of compiled "
                        "ones 120")
    parser.add_argument("--exec", help=f"{EAGER_EXEC}, of compiled peers {COMPILED_EXEC}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compiled", type=lambda text: text.split(","), help="else what --file says")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--lanes", type=int, default=1, help="peers beside each other, each with --jobs processes")
    parser.add_argument("--until-whole", action="store_true",
                        help="go on with peers that were cut, while the budget lasts")
    return parser, parser.parse_args(arguments)


def lane(queue, options, named, found):
    """Runs peers of the queue, one after the other: the names of (those that failed a case, the judged)."""
    bad, judged = set(), set()
    while turn := queue.take():
        name, seconds = turn
        peer = Peer(name, options, named, found)
        if peer.library in DISTRIBUTIONS and peer.library not in found:
            print(f"{name}: NOT RUN: {peer.library} is not installed", flush=True)
            continue
        if peer.judged_before():
            print(f"{name}: judged before at {options.commit}", flush=True)
            judged.add(name)
            continue
        if Stop.asked:
            print("ended as asked; start again with the same --out to go on", flush=True)
            break
        if seconds < LEAST_SECONDS:
            print(f"{name}: no time left; start again with the same --out to go on", flush=True)
            continue
        result, text = peer.run(seconds)
        if result is None:
            print(f"{name}: NOT RUN: {text}", flush=True)
            continue
        judged.add(name)
        bad |= {name} if result["failures"] else set()
        found_in = [f"  {options.out / 'findings' / entry}.md" for entry in result["findings"]]
        print("\n".join([line_of(name, result), *found_in, *([text] if text else [])]), flush=True)
        if options.until_whole and peer.goes_on(result) and not Stop.asked:
            queue.put(name)
    return bad, judged


def main(arguments=None):
    parser, options = parse(arguments)
    started = time.monotonic()
    named = named_in(options.file)
    if options.all:
        options.peers = named["EAGER"] + named["COMPILED"]
    if not options.peers:
        parser.error(f"name peers of {options.file}, or --all: "
                     f"{', '.join(named['EAGER'] + named['COMPILED'])}")
    try:
        options.program, options.environment = find_program(options.program)
        told = subprocess.run([options.program, "--version"], capture_output=True, text=True,
                              env=options.environment)
        options.commit = re.search(r"commit\s+(\S+)", told.stdout).group(1)
    except ImportError as error:
        parser.error(f"{error}; install the wheel, or put BUILD/python on PYTHONPATH")
    except OSError as error:
        parser.error(f"{options.program}: {error.strerror}; give --program")
    except AttributeError:
        parser.error(f"{options.program} --version: {(told.stderr or told.stdout).strip()[-200:]}")
    Stop.listen()
    found = versions()
    print(", ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    left = options.budget - (time.monotonic() - started)
    queue = lanes.Queue(options.peers, options.lanes, left, PEER_SECONDS)
    with concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
        done = list(pool.map(lambda _: lane(queue, options, named, found), range(options.lanes)))
    bad, judged = {name for one in done for name in one[0]}, {name for one in done for name in one[1]}
    return 1 if bad else 0 if judged else 4


if __name__ == "__main__":
    sys.exit(main())
