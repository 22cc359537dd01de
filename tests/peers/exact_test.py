"""The peers' judge on this machine, without torch: its float64 attention against the golden files, its
bound on a kernel that rounds as a real one does, and on kernels with a mistake."""
import json
import os
import sys
import unittest

import h5py
import numpy as np

ROOT = os.environ["ATTN_SOURCE"]
sys.path.insert(0, os.path.join(ROOT, "harness", "bench", "peers"))
import exact  # noqa: E402
import report  # noqa: E402


def bfloat16(values):
    """Rounded to nearest even, as float64."""
    bits = np.asarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def values(dataset):
    raw = dataset[...]
    if dataset.attrs.get("dtype") in ("bfloat16", b"bfloat16"):
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return raw.astype(np.float64)


def golden_cases():
    """(file, config, q, k, v of a sequence, positions, wanted rows) of what exact.py covers."""
    folder = os.path.join(ROOT, "data", "golden")
    for name in sorted(os.listdir(folder)):
        with h5py.File(os.path.join(folder, name)) as file:
            config = json.loads(file.attrs["config"])
            mask = config.get("mask", {})
            is_plain = (config.get("entry_point") == "attention" and not config.get("quant") and
                        config.get("logit_softcap") is None and "weights" not in file and
                        config["variant"] == "attention" and not config.get("mla") and
                        config["kv_cache"]["dtype"] != "float8_e4m3fn" and
                        mask.get("variant") in ("null", "causal", "sliding_window_causal") and
                        mask.get("align", "bottom_right") == "bottom_right" and
                        file["inputs/q"].dtype.kind in "uf" and "expected/attn_out" in file)
            if not is_plain:
                continue
            q, k, v = (values(file[n]) for n in ("inputs/q", "cache/k", "cache/v"))
            if q.ndim != 3 or k.shape[2] != q.shape[2]:
                continue
            starts, lengths = file["inputs/input_row_offsets"][...], file["inputs/kv_lengths"][...]
            wanted = file["expected/attn_out"][...].reshape(q.shape[0], q.shape[1], -1)
            first = 0
            for b, keys in enumerate(int(n) for n in lengths):
                rows = slice(int(starts[b]), int(starts[b + 1]))
                new = rows.stop - rows.start
                if 0 < new <= keys:
                    yield (name, config, q[rows], k[first:first + keys], v[first:first + keys],
                           np.arange(keys - new, keys), wanted[rows])
                first += keys


def evaluate(config, q, k, v, positions, head, mask=None, scale=None):
    group = q.shape[1] // k.shape[1]
    return exact.attention(np, q[:, head], k[:, head // group], v[:, head // group], positions,
                           mask or config["mask"], scale or config.get("scale") or q.shape[2] ** -0.5)


class Exact(unittest.TestCase):
    def test_agrees_with_the_golden_files(self):
        files = set()
        for name, config, q, k, v, positions, wanted in golden_cases():
            for head in range(q.shape[1]):
                got = evaluate(config, q, k, v, positions, head)[0]
                np.testing.assert_allclose(got, wanted[:, head], rtol=0, atol=1e-12 * abs(wanted).max(), err_msg=name)
            files.add(name)
        self.assertGreaterEqual(len(files), 6)
        self.assertIn("core-window.h5", files)

    def test_rows_are_the_ends_and_some_between(self):
        self.assertEqual(exact.sample_rows(5), [0, 1, 2, 3, 4])
        rows = exact.sample_rows(4096)
        self.assertEqual(len(rows), len(set(rows)))
        self.assertEqual(rows, sorted(rows))
        self.assertEqual((rows[0], rows[-1], len(rows)), (0, 4095, 24))


class Bound(unittest.TestCase):
    """A kernel in numpy: logits and sums in float32, probabilities and result rounded to bfloat16."""

    def setUp(self):
        rng = np.random.default_rng(1)
        self.keys, self.dim = 700, 64
        self.q, self.k, self.v = (bfloat16(rng.standard_normal((n, self.dim))) for n in (self.keys, self.keys, self.keys))
        self.rows = exact.sample_rows(self.keys)
        self.positions = np.array(self.rows)
        self.mask = {"variant": "causal"}
        self.scale = self.dim ** -0.5

    def kernel(self, mask=None, scale=None, shift=0, rounded=True):
        q = self.q[self.rows].astype(np.float32)
        logits = (q @ self.k.T.astype(np.float32)) * np.float32(scale or self.scale)
        seen = exact.visible(np, self.positions + shift, self.keys, mask or self.mask)
        logits = np.where(seen, logits, -np.inf).astype(np.float32)
        p = np.exp(logits - logits.max(1)[:, None])
        total = p.sum(1)[:, None]
        p = bfloat16(p).astype(np.float32) if rounded else p
        return bfloat16((p @ self.v.astype(np.float32)) / total)

    def worst(self, got):
        out, absolute, squares, logit_error = exact.attention(
            np, self.q[self.rows], self.k, self.v, self.positions, self.mask, self.scale)
        allowed = exact.bound(out, absolute, squares, logit_error, self.keys, "bfloat16")
        return (abs(got - out) / allowed).max()

    def test_holds_for_a_correct_kernel(self):
        for rounded in (True, False):
            worst = self.worst(self.kernel(rounded=rounded))
            self.assertLess(worst, 1.0)
            self.assertGreater(worst, 0.2)

    def test_fails_a_mask_one_key_off(self):
        self.assertGreater(self.worst(self.kernel(shift=1)), 3.0)
        self.assertGreater(self.worst(self.kernel(mask={"variant": "sliding_window_causal", "window_size": 640})), 1.0)

    def test_fails_a_scale_that_is_off(self):
        self.assertGreater(self.worst(self.kernel(scale=1.05 * self.scale)), 1.0)

    def test_fails_a_neighbours_row(self):
        self.assertGreater(self.worst(np.roll(self.kernel(), 1, axis=0)), 10.0)


def e4m3(x):
    """To the nearest of e4m3's numbers, saturating; ties to even."""
    magnitude = np.minimum(abs(x), 448.0)
    gap = 2.0 ** (np.maximum(np.frexp(magnitude)[1] - 1, -6) - 3)
    return np.sign(x) * np.minimum(np.round(magnitude / gap) * gap, 448.0)


class Fp8Bound(Bound):
    """A kernel of fp8 products: queries rounded to e4m3 under a power of two, probabilities as 256 times that."""

    def setUp(self):
        super().setUp()
        self.k, self.v = e4m3(64 * self.k) / 64, e4m3(64 * self.v) / 64

    def rounded_queries(self):
        q = self.q[self.rows]
        up = 2.0 ** (8 - np.frexp(abs(q).max(1, keepdims=True))[1])
        return e4m3(q * up) / up

    def kernel(self, mask=None, scale=None, shift=0, rounded=True):
        q = self.rounded_queries() if rounded else self.q[self.rows]
        logits = (q @ self.k.T) * (scale or self.scale)
        seen = exact.visible(np, self.positions + shift, self.keys, mask or self.mask)
        p = np.exp(np.where(seen, logits, -np.inf) - np.where(seen, logits, -np.inf).max(1)[:, None])
        return bfloat16((e4m3(256 * p) / 256) @ self.v / p.sum(1)[:, None])

    def worst(self, got):
        about = (self.k, self.v, self.positions, self.mask, self.scale)
        out = exact.attention(np, self.q[self.rows], *about)[0]
        moved, allowed = exact.fp8_attention(np, self.rounded_queries(), *about, "bfloat16")
        return (abs(got - out) / (allowed + abs(moved - out))).max()

    def test_holds_for_a_correct_kernel(self):
        for rounded in (True, False):
            worst = self.worst(self.kernel(rounded=rounded))
            self.assertLess(worst, 1.0)
            self.assertGreater(worst, 0.1)  # these sums are float64's: 14 bits are half of the bound

    def test_fails_a_scale_that_is_off(self):  # 5 % are within what 14 bits and roundings allow
        self.assertGreater(self.worst(self.kernel(scale=1.5 * self.scale)), 1.0)

    def test_fails_probabilities_of_neighbouring_keys(self):
        exchanged = self.v.copy()
        exchanged[::2], exchanged[1::2] = self.v[1::2], self.v[::2]
        self.v, held = exchanged, self.v
        got = self.kernel()
        self.v = held
        self.assertGreater(self.worst(got), 3.0)


class Report(unittest.TestCase):
    def test_work_becomes_rates_and_cases_columns(self):
        case = {"name": "decode B2", "group": "decode", "case": {
            "config": {"entry_point": "attention", "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
                       "dtype": "bfloat16", "mask": {"variant": "sliding_window_causal", "window_size": 16},
                       "kv_cache": {"page_size": 64}}, "rows": [[1, 40], [1, 40]]}}
        columns = report.parameters_of(case, True)
        self.assertEqual(columns, {"kind": "decode", "batch": 2, "heads": 8, "kv_heads": 2, "head_dim": 64,
                                   "dtype": "bfloat16", "mask": "window 16", "q_len": 1, "kv_len": 40, "page_size": 64})
        made = report.Report({"gpu": "none"})
        made.add("decode B2", "flash", [10.0, 20.0], 3, "graph, 1 copies", columns, {"GB/s": 5000.0, "error_bound": 0.5})
        made.add_error("decode B2", "cudnn", "has no \"window\"", columns)
        self.assertEqual([r.get("GB/s") for r in made.rows], [500.0, 250.0, None])
        self.assertEqual([r["repetition_index"] for r in made.rows], [0, 1, 0])
        made.write(sys.argv[1] if len(sys.argv) > 1 else os.devnull)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
