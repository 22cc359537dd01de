"""The CUDA layers behind harness/bench/layer_shim.cpp, on torch's memory and stream."""
import ctypes
import json

import torch

POINTERS_BEFORE = ["x", "q", "freqs_cis", "row_offsets", "cache_lengths", "k", "v", "page_table"]
STRIDES = ["table_stride", "page_size", "page_stride", "token_stride", "head_stride"]
POINTERS_AFTER = ["out", "lse", "attn_out", "workspace"]


class Call(ctypes.Structure):
    _fields_ = ([(n, ctypes.c_void_p) for n in POINTERS_BEFORE] +
                [(n, ctypes.c_int64) for n in STRIDES] +
                [(n, ctypes.c_void_p) for n in POINTERS_AFTER])


class Library:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.attn_shim_error.restype = ctypes.c_char_p
        self.lib.attn_shim_make.restype = ctypes.c_void_p
        self.lib.attn_shim_plan.restype = ctypes.c_int64

    def fail(self):
        raise RuntimeError(self.lib.attn_shim_error().decode())

    def layer(self, config, weights, words=""):
        """`weights`: {name: tensor in host memory}, as a golden file stores them. `words`: options of
        the backend cuda, "prefill=tiled"."""
        names = (ctypes.c_char_p * len(weights))(*[n.encode() for n in weights])
        data = (ctypes.c_void_p * len(weights))(*[w.data_ptr() for w in weights.values()])
        handle = self.lib.attn_shim_make(json.dumps(config).encode(), len(weights), names, data, words.encode())
        if not handle:
            self.fail()
        return Layer(self, handle)


class Layer:
    def __init__(self, library, handle):
        self.library = library
        self.handle = ctypes.c_void_p(handle)

    def plan(self, new, cached):
        array = ctypes.c_int64 * len(new)
        size = self.library.lib.attn_shim_plan(self.handle, ctypes.c_int64(len(new)), array(*new),
                                               array(*cached))
        if size < 0:
            self.library.fail()
        return torch.zeros(max(size, 1), dtype=torch.uint8, device="cuda")

    def set_scales(self, scale):
        """One scale for keys and values, for caches in e4m3 with a scale for the tensor."""
        self.scale = scale
        pointer = ctypes.c_void_p(scale.data_ptr())
        self.library.lib.attn_shim_set_scales(self.handle, pointer, pointer)

    def run(self, call):
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if self.library.lib.attn_shim_run(self.handle, ctypes.byref(call), stream) != 0:
            self.library.fail()

    def project(self, call):
        """q, k and v alone: call.x to call.out."""
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if self.library.lib.attn_shim_project(self.handle, ctypes.byref(call), stream) != 0:
            self.library.fail()

    def close(self):
        self.library.lib.attn_shim_free(self.handle)


class Pages:
    """Dense caches, one [heads, keys, dim] for each sequence, laid into shuffled pages. Tokens before
    heads in a page, or heads first."""

    def __init__(self, k, v, page, heads_first=False):
        heads, _, dim = k[0].shape
        counts = [max(1, (one.shape[1] + page - 1) // page) for one in k]
        order = torch.randperm(sum(counts), device="cuda")
        self.table = torch.zeros(len(k), max(counts), dtype=torch.int32, device="cuda")
        self.pools = [torch.empty(sum(counts), page, heads, dim, dtype=k[0].dtype, device="cuda")
                      for _ in range(2)]
        first = 0
        for b, count in enumerate(counts):
            ids = order[first:first + count]
            first += count
            self.table[b, :count] = ids.to(torch.int32)
            for pool, dense in zip(self.pools, (k[b], v[b])):
                padded = torch.zeros(heads, count * page, dim, dtype=dense.dtype, device="cuda")
                padded[:, :dense.shape[1]] = dense
                pool[ids] = padded.view(heads, count, page, dim).permute(1, 2, 0, 3)
        if heads_first:
            self.pools = [pool.transpose(1, 2).contiguous() for pool in self.pools]
        self.page, self.heads, self.dim, self.heads_first = page, heads, dim, heads_first

    def fill(self, call):
        call.k, call.v = self.pools[0].data_ptr(), self.pools[1].data_ptr()
        call.page_table, call.table_stride = self.table.data_ptr(), self.table.shape[1]
        call.page_size, call.page_stride = self.page, self.page * self.heads * self.dim
        call.head_stride = self.page * self.dim if self.heads_first else self.dim
        call.token_stride = self.dim if self.heads_first else self.heads * self.dim


def int32(values):
    return torch.tensor(values, dtype=torch.int32, device="cuda")
