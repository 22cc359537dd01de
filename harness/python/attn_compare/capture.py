"""Golden cases of a running model."""

import contextlib
import itertools
import os

import numpy as np

from . import _abi, _types
from .checking import Case

class Capture:
    """Writes attention problems as golden files into a folder, each with the exact answers, and
    judges what the model computed where that is known.

    reports: how each captured call did; paths: the files written; left_out: calls that were not
    written, by reason
    """

    def __init__(self, folder, calls=None, max_gb=1.0, arithmetic=None):
        self.folder, self.calls, self.arithmetic = folder, calls, arithmetic
        self._bytes_left = max_gb * 2**30
        self._numbers = itertools.count()
        self.reports, self.paths, self.left_out = [], [], {}
        os.makedirs(folder, exist_ok=True)

    def wants(self):
        """Whether the next call is one of `calls` (a number of first calls, or a set of numbers)."""
        number = next(self._numbers)
        self.number = number
        if self.calls is None:
            return True
        return number < self.calls if isinstance(self.calls, int) else number in self.calls

    def skip(self, reason):
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def dense(self, q, k, v, out=None, lse=None, row_offsets=None, kv_lengths=None, **config):
        """One call: q [tokens, heads, dim], k and v [keys, kv heads, dim] with the sequences back to
        back. config: mask ("causal", ...), scale, logit_softcap, window_size, sinks, ..."""
        tensors = {"q": q, "k": k, "v": v, "sinks": config.pop("sinks", None),
                   "mask": config.pop("mask_values", None),
                   "k_scale": config.pop("k_scale", None), "v_scale": config.pop("v_scale", None)}
        tokens, heads, dim = q.shape
        tensors["row_offsets"] = np.array([0, tokens] if row_offsets is None else row_offsets,
                                          np.uint32)
        tensors["kv_lengths"] = np.array([k.shape[0]] if kv_lengths is None else kv_lengths,
                                         np.uint32)
        codes = {name: _types.codes_of(a) for name, a in tensors.items() if a is not None}
        size = sum(array.nbytes for array, _ in codes.values())
        if size > self._bytes_left:
            return self.skip("max_gb is reached")
        mask = {"variant": config.pop("mask", "causal")}
        for key in ("window_size", "chunk_size", "align"):
            if key in config:
                mask[key] = config.pop(key)
        kv_cache = {"page_size": config.pop("page_size", 16), "dtype": codes["k"][1]}
        if "scale_granularity" in config:
            kv_cache["scale_granularity"] = config.pop("scale_granularity")
        full = {"variant": "attention", "entry_point": "attention", "num_attention_heads": heads,
                "num_key_value_heads": k.shape[1], "head_dim": dim, "head_dim_v": v.shape[2],
                "dtype": codes["q"][1], "mask": mask, "kv_cache": kv_cache, **config}
        case = Case.given(full, tensors)
        path = os.path.join(self.folder, f"call-{self.number:05}.h5")
        case.write(path, force=True, generator="attn_compare.capture")
        self._bytes_left -= size
        self.paths.append(path)
        if out is not None:
            self.reports.append(_judge(case, out, lse, self.arithmetic))

    def paged(self, q, k_cache, v_cache, page_table, row_offsets, key_lengths, **more):
        """The same of a paged cache [pages, page_size, kv heads, dim]: only what the table refers to
        is kept."""
        page_size = k_cache.shape[1]
        positions = [np.arange(int(n)) for n in key_lengths]
        table = np.asarray(_types.decode(*_types.codes_of(page_table)), np.int64)
        slots = np.concatenate([table[b, p // page_size] * page_size + p % page_size
                                for b, p in enumerate(positions)])

        def gather(pool):
            return pool.reshape((-1,) + tuple(pool.shape[2:]))[slots]

        for name in ("k_scale", "v_scale"):
            if more.get(name) is not None and more[name].ndim == 3:
                more[name] = gather(more[name])
        self.dense(q, gather(k_cache), gather(v_cache), row_offsets=row_offsets,
                   kv_lengths=key_lengths, page_size=page_size, **more)


def _judge(case, out, lse, arithmetic):
    from .backends import Backend

    return case.check(Backend(lambda _: (out, lse), "captured", arithmetic=arithmetic,
                              lse=lse is not None))


@contextlib.contextmanager
def capture(folder, calls=None, max_gb=1.0, arithmetic=None):
    """with capture(DIR, calls=10) as captured: model(...)

    Writes the calls of torch.nn.functional.scaled_dot_product_attention that are made inside as
    golden attention cases, and judges them. For other kernels call captured.dense(...) or
    captured.paged(...) yourself. calls: how many, or a set of their numbers.
    """
    captured = Capture(folder, calls, max_gb, arithmetic)
    try:
        import torch.nn.functional as functional
    except ImportError:
        yield captured
        return
    if not hasattr(functional, "scaled_dot_product_attention"):  # before torch 2.0
        yield captured
        return
    original = functional.scaled_dot_product_attention

    def wrapped(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None,
                enable_gqa=False):
        out = original(query, key, value, attn_mask, dropout_p, is_causal, scale=scale,
                       enable_gqa=enable_gqa)
        if captured.wants():
            _take_sdpa(captured, query, key, value, attn_mask, dropout_p, is_causal, scale, out)
        return out

    functional.scaled_dot_product_attention = wrapped
    try:
        yield captured
    finally:
        functional.scaled_dot_product_attention = original


def _take_sdpa(captured, q, k, v, attn_mask, dropout_p, is_causal, scale, out):
    if q.dim() != 4:
        return captured.skip("tensors of other than 4 axes")
    if dropout_p:
        return captured.skip("dropout")
    if attn_mask is not None:
        return captured.skip("a tensor mask; call captured.dense with mask_values")
    batch, _, rows, _ = q.shape
    keys = k.shape[2]

    def flat(t):  # [batch, heads, n, dim] to [batch * n, heads, dim]
        return t.transpose(1, 2).reshape((-1,) + (t.shape[1], t.shape[3]))

    # SDPA's causal mask begins at the top left.
    mask = {"mask": "causal", "align": "top_left"} if is_causal else {"mask": "null"}
    if scale is not None:
        mask["scale"] = scale
    try:
        captured.dense(flat(q), flat(k), flat(v), out=flat(out),
                       row_offsets=np.arange(batch + 1) * rows,
                       kv_lengths=np.full(batch, keys), **mask)
    except _abi.Error as error:
        captured.skip(str(error))
