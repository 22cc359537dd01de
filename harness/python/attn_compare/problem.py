"""One attention problem as a backend gets it."""

import functools
import json

import numpy as np

from . import _dlpack, _types

MASKS = ("null", "causal", "chunked_causal", "sliding_window_causal", "sliding_window_noncausal",
          "tensor")


class Config:
    """What is to be computed. The score of a visible key is softcap(scale * q.k).

    mask:      null, causal, chunked_causal, sliding_window_causal, sliding_window_noncausal, tensor
    top_left:  query row i is at position i; else at keys - rows + i
    dtype, cache_dtype: "float32", "bfloat16", "float16"; caches also "float8_e4m3fn", ...
    json:      the whole config as a dict (docs/golden-format.md)
    """

    def __init__(self, c):
        self.json = _parse(c.json)
        self.mask = MASKS[c.mask]
        self.top_left = bool(c.mask_align)
        self.has_sinks = bool(c.has_sinks)
        self.dtype = _types.name_of(c.dtype)
        self.cache_dtype = _types.name_of(c.cache_dtype)
        self.num_heads, self.num_kv_heads = c.num_heads, c.num_kv_heads
        self.head_dim, self.head_dim_v = c.head_dim, c.head_dim_v
        self.page_size = c.page_size
        self.window_size, self.chunk_size = c.window_size, c.chunk_size
        self.scale, self.softcap = c.scale, c.softcap
        self.entry_point = ("forward", "materialize_kv_from_hidden", "attention")[c.entry_point]

    @property
    def group_size(self):
        return self.num_heads // self.num_kv_heads

    def beyond(self, *taken):
        """The first thing that the config asks for beyond plain attention, "" where there is none, as
        supports may return it.
        Plain is no mask or a causal one that ends at the last key, keys and values in the type of
        the queries, head_dim_v equal to head_dim. taken: what is fine all the same, of "softcap",
        "sinks", "top_left", "head_dim_v", "cache_dtype", "scale_granularity" and the names of masks.
        """
        asked = {
            "softcap": self.softcap, "sinks": self.has_sinks,
            "top_left": self.top_left and self.mask not in ("null", "tensor"),
            "head_dim_v": self.head_dim != self.head_dim_v,
            "cache_dtype": self.cache_dtype != self.dtype,
            "scale_granularity": self.scale_granularity,
            self.mask: self.mask not in ("null", "causal"),
        }
        return next((word for word, is_asked in asked.items() if is_asked and word not in taken), "")

    @property
    def scale_granularity(self):
        """Of an fp8 cache: None, "tensor", "head", "token_head"."""
        return (self.json.get("kv_cache") or {}).get("scale_granularity")


@functools.lru_cache(maxsize=4096)
def _parse(text):
    return json.loads(text)


class Sequence:
    """One sequence of a problem, its keys gathered from the pages.

    q [rows, num_heads, head_dim], k [keys, num_kv_heads, head_dim],
    v [keys, num_kv_heads, head_dim_v], visible [rows, keys] bool, bias [rows, keys] or None (mask
    variant "tensor"), first: its first row in the batch.
    """

    def __init__(self, **fields):
        self.__dict__.update(fields)


class Problem:
    """Rows of all sequences lie back to back: sequence b owns rows row_offsets[b] to
    row_offsets[b+1]-1 and key_lengths[b] keys. Key p of sequence b lies in page
    page_table[b, p // page_size], slot p % page_size; unused slots and pages hold NaN.

    q [tokens, num_heads, head_dim], k_cache [pages, page_size, num_kv_heads, head_dim],
    v_cache [.., head_dim_v], k_scale and v_scale (fp8: value = code * scale) of shape [],
    [num_kv_heads] or [pages, page_size, num_kv_heads], sinks [num_heads], mask [tokens, keys].

    As numpy arrays: types that numpy lacks (bfloat16, fp8) are given as their exact float32 values,
    codes(name) has the codes, dlpack(name) the same memory for libraries that have those types.
    to("torch", device) and to("jax") give the same problem in their own types, copied.
    """

    _TENSORS = ("q", "k_cache", "v_cache", "k_scale", "v_scale", "page_table", "row_offsets",
                "key_lengths", "sinks", "mask")

    def __init__(self, call):
        self.config = Config(call.config.contents)
        self._codes = {}
        for name in self._TENSORS:
            pointer = getattr(call, name)
            if pointer:
                self._codes[name] = _types.view(pointer.contents)
        self.batch, self.tokens = call.batch, call.tokens
        self.scale, self.softcap = self.config.scale, self.config.softcap

    def __getattr__(self, name):
        if name not in self._TENSORS:
            raise AttributeError(name)
        if name not in self._codes:
            return None
        value = _types.decode(*self._codes[name])
        if name in ("page_table", "row_offsets", "key_lengths"):
            value = value.astype(np.int64)
        self.__dict__[name] = value
        return value

    def codes(self, name):
        """The stored codes of a tensor: bfloat16 as uint16, the 8-bit floats as uint8."""
        return self._codes[name][0] if name in self._codes else None

    def element_type(self, name):
        return self._codes[name][1]

    def dlpack(self, name):
        """The tensor itself, in its own type and with its strides, for any library that reads DLPack:
        x.from_dlpack(problem.dlpack("q")). No copy: valid during the call, not to be written."""
        if name not in self._codes:
            return None
        codes, element = self._codes[name]
        return _dlpack.Lent(codes, _types.kind_of(element))

    def to(self, framework, device=None):
        """The same problem with tensors of another framework: "torch" or "jax", copied to the device;
        or those that a function makes of an object with __dlpack__ (np.from_dlpack)."""
        if callable(framework):
            return _Converted(self, _by(framework), device)
        convert = {"torch": _to_torch, "jax": _to_jax}.get(framework)
        if convert is None:
            raise ValueError(f"to(\"{framework}\"): known are torch, jax, or a function from DLPack")
        return _Converted(self, convert, device)

    def fixed(self):
        """The problem in memory of its own, for graphs that record a call: refill() puts another one
        of the same shapes there."""
        held = Problem.__new__(Problem)
        held.__dict__.update(config=self.config, batch=self.batch, tokens=self.tokens,
                             scale=self.scale, softcap=self.softcap)
        held._codes = {name: (np.array(codes), kind) for name, (codes, kind) in self._codes.items()}
        for name in self._TENSORS:
            getattr(held, name)
        return held

    def refill(self, problem):
        """Puts the values of `problem` into the memory of a fixed one."""
        for name in self._codes:
            self._codes[name][0][...] = problem.codes(name)
            if getattr(self, name) is not self._codes[name][0]:
                getattr(self, name)[...] = getattr(problem, name)

    def to_as(self, other):
        """In the types and on the device of a converted problem."""
        return _Converted(self, other._convert, other._device)

    def visible(self, b):
        """Which keys the rows of sequence b see, [rows, keys] bool."""
        c = self.config
        rows = int(self.row_offsets[b + 1] - self.row_offsets[b])
        keys = int(self.key_lengths[b])
        k = np.arange(keys)
        q = (np.arange(rows) + (0 if c.top_left else keys - rows))[:, None]
        if c.mask == "causal":
            return k <= q
        if c.mask == "chunked_causal":
            return (k <= q) & (k // c.chunk_size == q // c.chunk_size)
        if c.mask == "sliding_window_causal":
            return (k <= q) & (q - k < c.window_size)
        if c.mask == "sliding_window_noncausal":
            return np.broadcast_to(k + c.window_size > q, (rows, keys))
        return np.ones((rows, keys), bool)

    def slots(self, b):
        """Where the keys of sequence b lie in the pool seen as [pages * page_size, ...]."""
        position = np.arange(int(self.key_lengths[b]))
        size = self.config.page_size
        return self.page_table[b, position // size] * size + position % size

    def sequences(self):
        """The sequences in order, each with its keys and values in logical order (fp8 ones times
        their scales)."""
        for b in range(self.batch):
            begin, end = int(self.row_offsets[b]), int(self.row_offsets[b + 1])
            keys = int(self.key_lengths[b])
            yield Sequence(
                first=begin, rows=end - begin, keys=keys, q=self.q[begin:end],
                k=self._gather("k", b), v=self._gather("v", b), visible=self.visible(b),
                bias=None if self.mask is None else self.mask[begin:end, :keys])

    def _gather(self, which, b):
        slots = self.slots(b)
        pool = getattr(self, which + "_cache")
        values = pool.reshape(-1, *pool.shape[2:])[slots]
        scale = getattr(self, which + "_scale")
        if scale is None:
            return values
        if scale.ndim == 3:
            return values * scale.reshape(-1, scale.shape[2])[slots][:, :, None]
        return values * scale.reshape(-1, 1)


class _Converted(Problem):
    """A problem whose tensors are those of another framework; index tensors stay numpy arrays, and
    are there as page_table_device and so on too."""

    _ON_DEVICE = {"page_table_device": "page_table", "row_offsets_device": "row_offsets",
                  "key_lengths_device": "key_lengths"}

    def __init__(self, problem, convert, device):  # noqa: super's reads a call
        self.config, self._codes = problem.config, problem._codes
        self.batch, self.tokens = problem.batch, problem.tokens
        self.scale, self.softcap = problem.scale, problem.softcap
        self._problem, self._convert, self._device = problem, convert, device
        self._is_fixed = False

    def to(self, framework, device=None):
        """Tensors that are fixed stay; else as Problem.to."""
        return self if self._is_fixed else self._problem.to(framework, device)

    def fixed(self):
        """These tensors, all made, from now on where they are. The problem that they are of must be a
        fixed one too."""
        for name in (*self._TENSORS, *self._ON_DEVICE):
            getattr(self, name)
        self._is_fixed = True
        return self

    def refill(self, problem):
        """Copies the tensors of `problem` into these."""
        self._problem.refill(problem)
        new = problem.to_as(self)
        for name in (*self._codes, *self._ON_DEVICE):
            if name not in ("page_table", "row_offsets", "key_lengths"):
                getattr(self, name).copy_(getattr(new, name))

    def __getattr__(self, name):
        if name in self._ON_DEVICE:
            value = getattr(self._problem, self._ON_DEVICE[name]).astype(np.int32)
            value = self._convert(value, "int32", self._device)
        elif name in ("page_table", "row_offsets", "key_lengths"):
            value = getattr(self._problem, name)
        elif name in self._TENSORS:
            codes = self._codes.get(name)
            value = None if codes is None else self._convert(*codes, self._device)
        else:
            raise AttributeError(name)
        self.__dict__[name] = value
        return value

    def device_array(self, array):
        """A numpy array of yours (a mask, indices) as a tensor of the framework on the device."""
        if self._is_fixed:
            raise RuntimeError("a recorded call copied an array of the host to the device "
                               "(sequences() and visible() do): it would be the recorded one in "
                               "every replay; use the tensors of the problem")
        return self._convert(np.array(array), array.dtype.name, self._device)

    def _gather(self, which, b):
        slots = self.device_array(self.slots(b))
        pool = getattr(self, which + "_cache")
        flat = pool.reshape((-1,) + tuple(pool.shape[2:]))
        scale = getattr(self, which + "_scale")
        if scale is None:
            return flat[slots]
        values = _widen(flat[slots])
        if scale.ndim == 3:
            return values * scale.reshape(-1, scale.shape[2])[slots][:, :, None]
        return values * scale.reshape(-1, 1)

    def sequences(self):
        for s in super().sequences():
            s.visible = self.device_array(s.visible)
            yield s


def _widen(array):
    return array.float() if hasattr(array, "float") else array.astype("float32")


def _by(from_dlpack):
    """The tensors of a problem are lent; what is made on the way there belongs to its reader."""

    def convert(codes, name, device):
        is_ours = codes.base is None
        if name == "bool":  # many read none from DLPack
            codes, name = codes.view(np.uint8), "uint8"
        return from_dlpack(_dlpack.Lent(codes, _types.kind_of(name), copied=is_ours))

    return convert


def _to_torch(codes, name, device):
    import torch

    if name == "uint32":
        codes, name = codes.astype(np.int64), "int64"
    # Older ones read no 8-bit floats and no truth values from DLPack: those go as their bytes.
    as_bytes = name == "bool" or codes.itemsize == 1
    kind = _types.kind_of("uint8" if as_bytes else name)
    tensor = torch.from_dlpack(_dlpack.Lent(codes.view(np.uint8) if as_bytes else codes, kind, False))
    tensor = tensor.to(device, copy=True).contiguous()
    wanted = getattr(torch, name)
    return tensor if tensor.dtype == wanted else tensor.view(wanted)


def _to_jax(codes, name, device):
    import jax
    import ml_dtypes

    dense = np.array(codes, order="C")
    wanted = np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else dense.dtype
    return jax.device_put(dense.view(wanted), device)
