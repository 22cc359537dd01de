"""Cases, the exact reference and judgements."""

import ctypes as ct
import json
import os

import numpy as np

from . import _abi, _types
from .backends import as_backend


def attention(num_heads=8, num_kv_heads=2, head_dim=64, rows=((1, 256),), dtype="float32",
              mask="causal", page_size=16, **more):
    """The JSON of a case that starts at attention. rows: [queries, keys] of each sequence. More:
    head_dim_v, scale, logit_softcap, window_size, chunk_size, align, kv_dtype, scale_granularity,
    sinks, profile, pages; other keys go into the config (docs/golden-format.md)."""
    mask_json = {"variant": mask}
    for key in ("window_size", "chunk_size", "align"):
        if key in more:
            mask_json[key] = more.pop(key)
    kv_cache = {"page_size": page_size}
    if "kv_dtype" in more:
        kv_cache["dtype"] = more.pop("kv_dtype")
    if "scale_granularity" in more:
        kv_cache["scale_granularity"] = more.pop("scale_granularity")
    spec = {key: more.pop(key) for key in ("sinks", "profile", "pages") if key in more}
    config = {"variant": "attention", "entry_point": "attention", "num_attention_heads": num_heads,
              "num_key_value_heads": num_kv_heads, "head_dim": head_dim, "dtype": dtype,
              "mask": mask_json, "kv_cache": kv_cache, **more}
    return {"config": config, "rows": [list(row) for row in rows], **spec}


def _text(spec):
    if isinstance(spec, (str, bytes)):
        text = os.fsdecode(spec)
        if text.lstrip().startswith("{"):
            return text
        with open(text, encoding="utf-8") as file:
            return file.read()
    return json.dumps(spec)


class Case:
    """A case: Case(spec, seed) generates one, Case.read(FILE) reads a golden file, Case.given(config,
    tensors) holds tensors of yours."""

    def __init__(self, spec, seed=1, _handle=None):
        lib = _abi.library()
        self.spec, self.seed = spec, seed
        self._handle = _handle or lib.attn_case_make(_text(spec).encode(), seed)
        if not self._handle:
            raise _abi.last_error()
        self._description = json.loads(_abi.take_text(lib.attn_case_describe(self._handle)))
        self.id = self._description["id"]
        self.config = self._description["config"]
        self.repro = self._description["repro"]

    @classmethod
    def read(cls, path, page_seed=1):
        handle = _abi.library().attn_case_read(os.fsencode(path), page_seed)
        if not handle:
            raise _abi.last_error()
        return cls(None, None, handle)

    @classmethod
    def given(cls, config, tensors, page_seed=1):
        """tensors: by their dataset names in a golden file; for attention the short names q, k, v,
        k_scale, v_scale, row_offsets, kv_lengths, mask and sinks will do. k and v are dense, the
        keys of all sequences back to back. Values are converted to the types that the config says
        where that loses nothing."""
        names, arrays = [], []
        kv_type = (config.get("kv_cache") or {}).get("dtype") or config["dtype"]
        for name, array in tensors.items():
            if array is None:
                continue
            full = _DATASETS.get(name, name)
            wanted = {"inputs/q": config["dtype"], "inputs/x": config["dtype"], "cache/k": kv_type,
                      "cache/v": kv_type, "inputs/input_row_offsets": "uint32",
                      "inputs/kv_lengths": "uint32", "inputs/cache_lengths": "uint32"}.get(full)
            names.append(full.encode())
            arrays.append(_types.c_tensor(*_as_type(array, wanted, full)))
        name_array = (ct.c_char_p * len(names))(*names)
        tensor_array = (_abi.Tensor * len(arrays))(*(tensor for tensor, _ in arrays))
        handle = _abi.library().attn_case_from(json.dumps(config).encode(), name_array,
                                               tensor_array, len(arrays), page_seed)
        if not handle:
            raise _abi.last_error()
        return cls(None, None, handle)

    def __del__(self):
        if getattr(self, "_handle", None):
            _abi.library().attn_case_destroy(self._handle)
            self._handle = None

    @property
    def tensor_names(self):
        return list(self._description["tensors"])

    def tensor(self, name):
        """A copy of an input, in float32 where numpy lacks its type: "q", "cache.k", ..."""
        pointer = _abi.library().attn_case_tensor(self._handle, name.encode())
        if not pointer:
            raise _abi.last_error()
        return np.array(_types.decode(*_types.view(pointer.contents)))

    def reference(self, mode="exact"):
        """Every stage in float64, by name."""
        lib = _abi.library()
        trace = lib.attn_reference(self._handle, mode.encode())
        if not trace:
            raise _abi.last_error()
        try:
            stages = {}
            for name in self._description["stages"]:
                pointer = lib.attn_trace_stage(trace, name.encode())
                if pointer:
                    stages[name] = np.array(_types.view(pointer.contents)[0])
            return stages
        finally:
            lib.attn_trace_destroy(trace)

    def check(self, f, taps=True, threads=None, exec="plain"):
        """Runs f, a backend or a plain function, on the case and judges what it returns. exec: a mode
        of `attn-compare run --exec`."""
        backend = as_backend(f)
        options = {"taps": taps, "threads": threads or os.cpu_count() or 1, "name": backend.name,
                   "exec": exec}
        if self.spec is not None:
            options.update(spec=_text(self.spec), seed=self.seed)
        reports = []
        numbers = [backend.chosen] if backend.chosen is not None else range(len(backend.configs))
        for number in numbers:  # each configuration by itself
            if len(backend.configs) > 1:
                options["backend_options"] = f"config={number}"
            text = _abi.take_text(_abi.library().attn_check(
                ct.byref(backend._plugin), self._handle, json.dumps(options).encode()))
            if backend.interrupted is not None:
                interrupted, backend.interrupted = backend.interrupted, None
                raise interrupted
            reports.append(Report(json.loads(text), self))
        backend.chosen = None
        return max(reports, key=lambda report: (not report.passed, report.ratio))

    def write(self, path, force=False, **options):
        """Writes a golden file: the case and its exact answers, when two evaluations agree."""
        options["force"] = force
        if _abi.library().attn_golden_write(self._handle, os.fsencode(path),
                                            json.dumps(options).encode()):
            raise _abi.last_error()


_DATASETS = {
    "q": "inputs/q", "k": "cache/k", "v": "cache/v", "k_scale": "cache/k_scale",
    "v_scale": "cache/v_scale", "row_offsets": "inputs/input_row_offsets",
    "kv_lengths": "inputs/kv_lengths", "mask": "inputs/mask", "sinks": "weights/sinks",
    "x": "inputs/x", "cache_lengths": "inputs/cache_lengths",
}


def _as_type(array, wanted, name):
    """(codes, type name) in the wanted type; refuses a conversion that would change a value."""
    codes, own = _types.codes_of(array)
    if wanted is None or wanted == own:
        return codes, own
    values = _types.decode(codes, own)
    if wanted == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        converted = (bits >> 16).astype(np.uint16)
    else:
        converted = np.asarray(values).astype(_types.code_type(wanted))
    if wanted.startswith("float8") or not np.array_equal(_types.decode(converted, wanted), values,
                                                         equal_nan=values.dtype.kind == "f"):
        raise _abi.Error(f"{name}: has type {own}; its values are no {wanted}, which the config "
                         "says: convert it first")
    return converted, wanted


class Report:
    """How a backend did on a case. True in a condition when it passed; str() is the whole account.

    status: passed, failed, unsupported, mistrusted, ...; stage: the first bad one, None when it
    passed; ratio: largest error / bound; where: the worst element; detail: one line
    """

    def __init__(self, row, case):
        self.row, self.case = row, case
        self.status = row["status"]
        self.passed = self.status == "passed"
        self.stage = row["first_bad_stage"]
        self.ratio = float(row["worst_ratio"]) if row["worst_ratio"] is not None else 0.0
        self.detail = row["detail"]
        bad = [s for s in row["stages"] if s["stage"] == self.stage]
        self.where = bad[0]["worst_where"] if bad else ""
        self.text = row["text"]

    def __bool__(self):
        return self.passed

    def __str__(self):
        lines = [self.text.rstrip()]
        if not self.passed and self.case.repro:
            lines.append(f"the case: {self.case.repro}")
        return "\n".join(lines)

    def assert_passed(self):
        """Raises AssertionError with the account; an unsupported case is skipped under pytest."""
        if self.status == "unsupported":
            import pytest

            pytest.skip(self.detail)
        if not self.passed:
            raise AssertionError("\n" + str(self))


def check(f, spec, seed=1, **options):
    """Runs f on the case that spec and seed determine and judges what it returns."""
    return Case(spec, seed).check(f, **options)


def reference(config, inputs=None, seed=1, mode="exact"):
    """The exact stages in float64, by name: of generated inputs, or of yours (Case.given)."""
    case = Case(config, seed) if inputs is None else Case.given(config, inputs)
    return case.reference(mode)


def generate(when="any", n=10, seed=1, gate="pr"):
    """n cases of the covering array, then random ones, that match: "decode and fp8kv",
    "head_dim > 128 and not causal". Words and keys: docs/python.md."""
    request = {"when": when, "n": n, "seed": seed, "gate": gate}
    text = _abi.take_text(_abi.library().attn_cases(json.dumps(request).encode()))
    return [(found["spec"], found["seed"], found["id"]) for found in json.loads(text)]
