"""Shrunk failures as findings: a golden file, a draft of the page, and what a plain evaluation says."""

import hashlib
import json
import math
import shlex
import subprocess

import numpy as np

import attn_compare as ac


def plain(case, layer=0):
    """lse [tokens, heads] and attn_out [tokens, heads, dim] of a case that starts at attention: the
    formula in numpy's float64, by loops over sequences and heads. Shares no code with the library."""
    c = case.config
    names = case.tensor_names
    get = lambda name: case.tensor(name).astype(np.float64) if name in names else None
    q, mask, sinks = get("q"), get("mask"), get("weights.sinks")
    table, lengths = case.tensor("cache.page_table"), case.tensor("cache_lengths").astype(int)
    offsets, size = case.tensor("input_row_offsets").astype(int), c["kv_cache"]["page_size"]
    heads, group = c["num_attention_heads"], c["num_attention_heads"] // c["num_key_value_heads"]
    scale = c["scale"] if c.get("scale") is not None else 1 / math.sqrt(c["head_dim"])
    pools = []
    for which in "kv":
        pool, factor = get(f"cache.{which}")[:, layer], get(f"cache.{which}_scale")
        if factor is not None:
            factor = factor[:, layer] if factor.ndim == 4 else factor
            pool = pool * factor[..., None] if factor.ndim else pool * factor
        pools.append(pool.reshape(-1, *pool.shape[2:]))
    lse = np.full((len(q), heads), -np.inf)
    out = np.zeros((len(q), heads, pools[1].shape[2]))
    for b, n in enumerate(lengths):
        at = np.arange(n)
        slots = table[b, at // size].astype(int) * size + at % size
        for row in range(offsets[b], offsets[b + 1]):
            i, rows = row - offsets[b], offsets[b + 1] - offsets[b]
            sees = visible(c["mask"], at, i if c["mask"].get("align") == "top_left" else n - rows + i)
            for h in range(heads):
                score = scale * (pools[0][slots, h // group] @ q[row, h])
                if c.get("logit_softcap"):
                    score = c["logit_softcap"] * np.tanh(score / c["logit_softcap"])
                if mask is not None:
                    score = score + mask[row, :n]
                score = np.where(sees, score, -np.inf)
                every = score if sinks is None else np.append(score, sinks[h])
                top = every.max(initial=-np.inf)
                if top == -np.inf:
                    continue
                lse[row, h] = top + np.log(np.exp(every - top).sum())
                weights = np.exp(score - lse[row, h])
                seen = weights > 0
                out[row, h] = weights[seen] @ pools[1][slots[seen], h // group]
    return lse, out


def visible(mask, k, q):
    """Which keys at positions k a query at position q sees."""
    variant = mask["variant"]
    if variant == "causal":
        return k <= q
    if variant == "chunked_causal":
        return (k <= q) & (k // mask["chunk_size"] == q // mask["chunk_size"])
    if variant == "sliding_window_causal":
        return (k <= q) & (q - k < mask["window_size"])
    if variant == "sliding_window_noncausal":
        return k + mask["window_size"] > q
    return np.ones(k.shape, bool)


def confirm(case, layer, stage):
    """One line: whether a plain float64 evaluation agrees with the reference that the peer was judged
    by. `stage`: the worst element of a report's row, None where nothing was compared."""
    if case.config.get("entry_point") != "attention":
        return "no: the case is a whole layer; reduce it to attention first"
    lse, out = plain(case, layer)
    exact = case.reference()
    worst = 0.0
    for own, name in ((lse, "lse"), (out, "attn_out")):
        want = exact[name].reshape(own.shape)
        both = np.isfinite(own) & np.isfinite(want)
        if not np.array_equal(own[~both], want[~both], equal_nan=True):
            return f"NO: {name} of a plain evaluation has other infinities than the reference"
        worst = max(worst, np.abs(own[both] - want[both]).max(initial=0.0))
    if worst > 1e-11 * max(1.0, np.abs(out).max(initial=0.0)):
        return f"NO: a plain evaluation is {worst:.2g} away from the reference; look at the reference"
    text = f"yes: numpy's float64 agrees with the reference within {worst:.2g} in every element"
    if stage is None or stage["stage"] not in ("lse", "attn_out"):
        return text
    value = (lse if stage["stage"] == "lse" else out).ravel()[stage["flat"]]
    got, bound = float(stage["got"]), float(stage["bound"])
    return text + (f"; at the worst element it gives {value:.9g}, the peer {got:.9g}: "
                   f"{abs(got - value) / bound if bound else math.inf:.3g}x the bound of {bound:.3g}")


def worst_element(program, backend, entry, environment, seconds):
    """The first bad stage of a run of the shrunk case, with the flat index of its worst element."""
    words = [*program, "run", "--config", json.dumps(entry["spec"]), "--seed", str(entry["seed"]),
             "--backend", backend, "--exec", entry.get("exec") or "plain", "--json", "-"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=seconds)
        row = json.loads(done.stdout[done.stdout.index("{"):])["rows"][0]
    except (ValueError, IndexError, subprocess.TimeoutExpired):
        return None
    for stage in row["stages"]:
        if stage["stage"] == row["first_bad_stage"] and stage["worst_index"] is not None:
            return {**stage, "worst_ratio": row["worst_ratio"], "where": stage["worst_where"]}
    return None


def flat_index(index, shape, dim):
    """Of an element that is named by row, head and channel, in a tensor of `shape`, which may have heads
    of `dim` channels in one dimension."""
    index = index if isinstance(index, list) else [index]
    if len(index) == len(shape) + 1:
        index = [*index[:-2], index[-2] * dim + index[-1]]
    return int(np.ravel_multi_index(index, shape))


def name_of(peer, entry):
    digest = hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
    return f"{peer}-{(entry.get('stage') or entry.get('relation') or 'run').replace('_', '-')}-{digest[:8]}"


def write(folder, peer, entry, backend, found, worst):
    """FOLDER/NAME.h5 and a draft of FOLDER/NAME.md; returns the name."""
    name = name_of(peer, entry)
    folder.mkdir(parents=True, exist_ok=True)
    case = ac.Case(entry["spec"], entry["seed"])
    line = (f"attn-compare run --config {shlex.quote(json.dumps(entry['spec'], separators=(',', ':')))} "
            f"--seed {entry['seed']} --backend {backend}")
    if entry.get("exec", "plain") != "plain":
        line += f" --exec {entry['exec']}"
    case.write(folder / f"{name}.h5", force=True, generator="conformance.py", command_line=line)
    if worst is not None:
        stage = case.reference().get(worst["stage"])
        shape = stage.shape if stage is not None else ()
        worst["flat"] = flat_index(
            worst["worst_index"], shape, case.config.get("head_dim_v") or case.config["head_dim"])
    confirmed = confirm(case, entry["spec"].get("layer", 0), worst)
    page = folder / f"{name}.md"
    if page.is_file() and "ends as: undecided" not in page.read_text():
        return name  # a person wrote there
    versions = "\n".join(f"| {key} | {value} |" for key, value in sorted(found.items()))
    element = "not seen again when the shrunk case was run by itself" if worst is None else (
        f"stage {worst['stage']}, {worst['where']}: got {worst['got']}, exact {worst['want']}, "
        f"allowed {worst['bound']} ({worst['worst_ratio']}x)")
    page.write_text(f"""# {name}

ends as: undecided (declared arithmetic corrected, with the reason; a listed limitation; or a finding)

- peer: {peer} ({backend.split(":")[1]})
- what: {entry.get('relation') and 'relation ' + entry['relation'] + ' is broken' or element}
- confirmed in float64: {confirmed}
- nearest known report: not searched yet

Reproduce:
```
{line}
```
`attn-compare verify {name}.h5 --backend {backend}` does the same from the golden file beside this page.

| | |
|---|---|
{versions}
""")
    return name
