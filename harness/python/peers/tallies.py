"""What a fuzz report (docs/cli.md, Reports) says of a peer, and of which cases it does not take."""

import collections
import itertools
import json
import re
import shlex

OUTCOMES = ("passed", "failed", "could_not_run", "unsupported", "mistrusted", "crashed", "timed_out")
BAD = ("failed", "could_not_run", "crashed", "timed_out")
JUDGED = ("passed", "failed", "crashed", "timed_out")
RAISED = "run() reported an error: "  # before the name of what a function raised


def outcome_of(row):
    """A run that ended with an exception of the peer is no wrong answer: there is none."""
    if row["status"] == "failed" and row["detail"].startswith(RAISED):
        return "could_not_run"
    return row["status"].replace(" ", "_")


def judged(rows):
    """How many of the rows are."""
    return sum(outcome_of(row) in JUDGED for row in rows)


def spec_of(row):
    """The spec in the words that make the row's case again, None where there are none."""
    words = shlex.split(row.get("repro") or "")
    for flag, value in zip(words, words[1:]):
        if flag == "--config":
            return json.loads(value)
    return None


def entry_of(failure, backend):
    """A failure as an entry of fuzz's corpus, from the words that make it again; None where these do
    not say."""
    words = shlex.split(failure["repro"] or "")
    said = dict(zip(words, words[1:]))
    if "--config" not in said or "--seed" not in said:
        return None
    return {"spec": json.loads(said["--config"]), "seed": int(said["--seed"]),
            "exec": said.get("--exec", "plain"), "backend": backend, "stage": failure["stage"] or "",
            "relation": said.get("--relations", "")}


def alone(entry):
    """The attention of a failing layer as a case of its own, None where it is one or a relation broke."""
    config = entry["spec"]["config"]
    if config.get("entry_point", "forward") != "forward" or entry["relation"]:
        return None
    kept = ("num_attention_heads", "num_key_value_heads", "head_dim", "dtype", "scale", "logit_softcap",
            "mask", "kv_cache")
    return {**entry, "spec": {
        **entry["spec"], "rows": [[new, cached + new] for cached, new in entry["spec"]["rows"]],
        "config": {"variant": "attention", "entry_point": "attention", "head_dim_v": config["head_dim"],
                   **{name: config[name] for name in kept if config.get(name) is not None}}}}


def simplest(entries):
    """Entries without those layers whose stage fails in attention alone as well."""
    def is_alone(entry):
        return entry["spec"]["config"].get("entry_point") == "attention"

    explained = {entry.get("stage") for entry in entries if is_alone(entry) and not entry.get("relation")}
    return [entry for entry in entries
            if is_alone(entry) or entry.get("relation") or entry.get("stage") not in explained]


def facts(spec):
    """Conditions that hold for a case, in the words of waivers where these have one."""
    c = spec["config"]
    attention = c.get("entry_point") == "attention"
    queries = [row[0] if attention else row[1] for row in spec["rows"]]
    keys = [row[1] if attention else row[0] + row[1] for row in spec["rows"]]
    cache = c.get("kv_cache") or {}
    mask = c.get("mask") or {}
    mask = mask if isinstance(mask, dict) else {"variant": mask}
    dim, dim_v = c["head_dim"], c.get("head_dim_v") or c["head_dim"]
    found = {
        f"entry_point == {c.get('entry_point', 'forward')}", f"dtype == {c['dtype']}",
        f"kv_cache.dtype == {cache.get('dtype') or c['dtype']}",
        f"mask == {mask.get('variant', 'causal')}", f"mask.align == {mask.get('align')}",
    }
    group = c["num_attention_heads"] // c["num_key_value_heads"]
    found |= {word for word, holds in {
        "group_size > 1": group > 1, "group_size == 1": group == 1,
        "head_dim != head_dim_v": dim != dim_v, "head_dim % 8 != 0": dim % 8 or dim_v % 8,
        "sinks == true": spec.get("sinks"), "logit_softcap != null": c.get("logit_softcap"),
        "queries == 1": max(queries, default=0) == 1, "queries > 1": max(queries, default=0) > 1,
        "queries < keys": any(q < k for q, k in zip(queries, keys)),
        "queries > keys": any(q > k for q, k in zip(queries, keys)),
        "batch > 1": len(queries) > 1,
    }.items() if holds}
    found |= {f"head_dim > {n}" for n in (8, 16, 32, 64, 96, 128, 192, 256) if max(dim, dim_v) > n}
    found |= {f"head_dim < {n}" for n in (8, 16, 32, 64) if min(dim, dim_v) < n}
    return found


def conditions(refused, taken):
    """[(condition, cases)] that hold for refused cases and for none that was taken, the most telling
    first: one fact, else two. Cases that no such condition tells apart are counted under ""."""
    left, found = [facts(spec) for spec in refused], []
    held = [facts(spec) for spec in taken]
    for size in (1, 2):
        while left:
            counts = collections.Counter(
                pair for case in left for pair in itertools.combinations(sorted(case), size))
            told = [(n, pair) for pair, n in counts.items()
                    if not any(set(pair) <= case for case in held)]
            if not told:
                break
            n, pair = max(told, key=lambda entry: (entry[0], entry[1]))
            found.append((" && ".join(pair), n))
            left = [case for case in left if not set(pair) <= case]
    return found + [("", len(left))] * bool(left)


def tally(report):
    """The counts, the largest error/bound, what was refused and when, and one entry for each kind of
    failure."""
    rows = [{**row, "status": outcome_of(row)} for row in report["rows"]]
    counts = collections.Counter(row["status"] for row in rows)
    taken = [spec for row in rows if row["status"] in ("passed", "failed", "mistrusted")
             if (spec := spec_of(row))]
    largest, failures = {}, {}
    refused = collections.defaultdict(list)
    for row in rows:
        if row["status"] == "unsupported":
            refused[row["detail"]].append(row)
        for stage in row["stages"] if row["status"] in ("passed", "failed") else []:
            ratio = float(stage["worst_ratio"])
            largest[stage["stage"]] = max(largest.get(stage["stage"], 0.0), ratio)
        if row["status"] in BAD:
            kind = (row["status"], row["first_bad_stage"], re.sub(r"\d+", "N", row["detail"])[:120])
            first = failures.setdefault(kind, {
                "status": row["status"], "stage": row["first_bad_stage"], "cases": 0,
                "worst_ratio": row["worst_ratio"], "detail": row["detail"], "repro": row["repro"]})
            first["cases"] += 1
    reasons = [{"reason": reason, "cases": len(found),
                "when": dict(conditions([s for row in found if (s := spec_of(row))], taken))}
               for reason, found in sorted(refused.items(), key=lambda entry: -len(entry[1]))]
    return {
        "cases": len(rows), "judged": sum(counts.get(name, 0) for name in JUDGED),
        **{name: counts.get(name, 0) for name in OUTCOMES},
        "largest_error_over_bound": largest, "unsupported_reasons": reasons,
        "failures": list(failures.values()),
    }
