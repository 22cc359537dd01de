#!/usr/bin/env python3
"""Times the CUDA layers beside PyTorch's, in one process on one device.

Every measurement is a captured CUDA graph; ours and the peers take turns; buffers rotate past the
L2; the reported figure is the median over rounds. Outputs are compared first. The peers read
contiguous caches, ours reads shuffled pages.

    python3 harness/bench/peers.py --library LIB.so [--json FILE] [--only prefill,decode,layer]
"""
import argparse
import ctypes
import json
import math
import re
import statistics
import subprocess

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

BF16 = torch.bfloat16
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

    def make(self, config, weights):
        names = (ctypes.c_char_p * len(weights))(*[n.encode() for n in weights])
        data = (ctypes.c_void_p * len(weights))(*[w.data_ptr() for w in weights.values()])
        handle = self.lib.attn_shim_make(json.dumps(config).encode(), len(weights), names, data)
        if not handle:
            self.fail()
        return ctypes.c_void_p(handle)

    def plan(self, handle, rows, cached):
        n = len(rows)
        array = ctypes.c_int64 * n
        size = self.lib.attn_shim_plan(handle, ctypes.c_int64(n), array(*rows), array(*cached))
        if size < 0:
            self.fail()
        return torch.zeros(max(size, 1), dtype=torch.uint8, device="cuda")

    def run(self, handle, call):
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        if self.lib.attn_shim_run(handle, ctypes.byref(call), stream) != 0:
            self.fail()


def graph_of(functions):
    """One graph that runs each function once, in order."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for f in functions:
            f()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for f in functions:
            f()
    return graph


def time_graphs(graphs, per_graph, rounds, target_ms=8.0):
    """Median microseconds of one call, the contestants taking turns."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def once(graph, replays):
        begin.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / replays

    replays = {}
    for name, graph in graphs.items():
        once(graph, 2)
        replays[name] = max(1, min(200, int(target_ms / max(once(graph, 2), 1e-3))))
    times = {name: [] for name in graphs}
    for _ in range(rounds):
        for name, graph in graphs.items():
            times[name].append(once(graph, replays[name]) * 1e3 / per_graph)
    return {name: statistics.median(t) for name, t in times.items()}


def attention_config(heads, kv_heads, dim, mask, page):
    return {"variant": "attention", "entry_point": "attention", "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": dim, "dtype": "bfloat16", "mask": mask,
            "kv_cache": {"page_size": page, "dtype": "bfloat16"}}


class Pages:
    """A dense cache [batch, heads, keys, dim] laid into shuffled pages, tokens before heads."""

    def __init__(self, k, v, page, heads_first=False):
        batch, heads, keys, dim = k.shape
        per = (keys + page - 1) // page
        order = torch.randperm(batch * per, device="cuda")
        self.table = order.view(batch, per).to(torch.int32)
        self.pools = []
        for dense in (k, v):
            padded = torch.zeros(batch, heads, per * page, dim, dtype=BF16, device="cuda")
            padded[:, :, :keys] = dense
            pages = padded.view(batch, heads, per, page, dim).permute(0, 2, 3, 1, 4)
            pool = torch.empty(batch * per, page, heads, dim, dtype=BF16, device="cuda")
            pool[order] = pages.reshape(batch * per, page, heads, dim)
            self.pools.append(pool.transpose(1, 2).contiguous() if heads_first else pool)
        self.page, self.heads, self.dim, self.per = page, heads, dim, per
        self.heads_first = heads_first

    def fill(self, call):
        call.k, call.v = self.pools[0].data_ptr(), self.pools[1].data_ptr()
        call.page_table, call.table_stride = self.table.data_ptr(), self.per
        call.page_size, call.page_stride = self.page, self.page * self.heads * self.dim
        call.head_stride = self.page * self.dim if self.heads_first else self.dim
        call.token_stride = self.dim if self.heads_first else self.heads * self.dim


def lengths(values):
    return torch.tensor(values, dtype=torch.int32, device="cuda")


def relative_error(a, b):
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm()).item()


def bench_attention(lib, name, batch, queries, keys, heads, kv_heads, dim, causal, page, rounds):
    decode = queries < keys
    bytes_read = 2 * batch * keys * kv_heads * dim * 2
    sets = max(1, min(16, math.ceil(4 * 60e6 / (bytes_read + 2 * batch * queries * heads * dim * 4))))
    scale = 1.0 if not causal else 0.5
    if decode and causal:
        scale = 1.0 - (queries - 1) / (2 * keys)
    flops = 4 * batch * heads * queries * keys * dim * scale
    config = attention_config(heads, kv_heads, dim, {"variant": "causal" if causal else "null"}, page)
    handle = lib.make(config, {})
    space = lib.plan(handle, [queries] * batch, [keys] * batch)
    offsets = lengths([queries * b for b in range(batch + 1)])
    counts = lengths([keys] * batch)
    ours, keep = [], []
    peers = {"flash": [], "cudnn": []}
    for _ in range(sets):
        q = torch.randn(batch, heads, queries, dim, device="cuda", dtype=BF16)
        k = torch.randn(batch, kv_heads, keys, dim, device="cuda", dtype=BF16)
        v = torch.randn(batch, kv_heads, keys, dim, device="cuda", dtype=BF16)
        pages = Pages(k, v, page, HEADS_FIRST)
        ragged = q.transpose(1, 2).contiguous().view(batch * queries, heads, dim)
        out = torch.empty_like(ragged)
        lse = torch.empty(batch * queries, heads, device="cuda")
        call = Call(q=ragged.data_ptr(), row_offsets=offsets.data_ptr(),
                    cache_lengths=counts.data_ptr(), attn_out=out.data_ptr(), lse=lse.data_ptr(),
                    workspace=space.data_ptr())
        pages.fill(call)
        keep.append((q, k, v, pages, ragged, out, lse, call))
        ours.append(lambda c=call: lib.run(handle, c))
        for peer, backend in (("flash", SDPBackend.FLASH_ATTENTION),
                              ("cudnn", SDPBackend.CUDNN_ATTENTION)):
            mask = None
            if causal and decode and queries > 1:
                mask = causal_lower_right(queries, keys)

            def run(q=q, k=k, v=v, backend=backend, mask=mask):
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True,
                                                          is_causal=causal and not decode)
            peers[peer].append(run)
    ours[0]()
    torch.cuda.synchronize()
    row = {"name": name, "sets": sets, "page": page}
    graphs = {"ours": graph_of(ours)}
    got = keep[0][5].view(batch, queries, heads, dim).transpose(1, 2)
    for peer, functions in peers.items():
        try:
            want = functions[0]()
            row[f"error_vs_{peer}"] = relative_error(got, want)
            graphs[peer] = graph_of(functions)
        except RuntimeError as error:
            row[peer] = "unsupported: " + str(error).split("\n")[0][:80]
    times = time_graphs(graphs, sets, rounds)
    for who, us in times.items():
        row[who + "_us"] = round(us, 2)
        row[who] = (f"{bytes_read / us / 1e3:.0f} GB/s" if decode else f"{flops / us / 1e6:.0f} TFLOP/s")
    for peer in ("flash", "cudnn"):
        if peer + "_us" in row:
            row["ratio_" + peer] = round(row[peer + "_us"] / row["ours_us"], 3)
    lib.lib.attn_shim_free(handle)
    return row


def rope_table(positions, dim, theta=500000.0):
    inverse = theta ** (-torch.arange(0, dim, 2, device="cuda", dtype=torch.float64) / dim)
    angles = torch.arange(positions, device="cuda", dtype=torch.float64)[:, None] * inverse
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    """Half-split rotation of [batch, heads, rows, dim] in float32, rounded once."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def bench_layer(lib, name, batch, new, cached, backend, rounds, page):
    hidden, heads, kv_heads, dim = 4096, 32, 8, 128
    keys, tokens = cached + new, batch * new
    widths = [heads * dim, kv_heads * dim, kv_heads * dim]
    std = hidden ** -0.5
    weights = [torch.randn(w, hidden, device="cuda").mul(std).to(BF16) for w in widths]
    w_qkv = torch.cat(weights)
    w_o = torch.randn(hidden, heads * dim, device="cuda").mul(std).to(BF16)
    cos, sin = rope_table(keys, dim)
    freqs = torch.stack((cos, sin), dim=-1).reshape(keys, dim).contiguous()
    config = {"variant": "attention_with_rope", "entry_point": "forward",
              "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": dim,
              "hidden_size": hidden, "dtype": "bfloat16", "mask": {"variant": "causal"},
              "rope": {"theta": 500000.0, "interleaved": False},
              "kv_cache": {"page_size": page, "dtype": "bfloat16"}}
    host = {f"{n}_proj.weight": w.cpu() for n, w in zip("qkv", weights)}
    host["o_proj.weight"] = w_o.cpu()
    handle = lib.make(config, host)
    space = lib.plan(handle, [new] * batch, [cached] * batch)
    offsets = lengths([new * b for b in range(batch + 1)])
    counts = lengths([cached] * batch)
    x = torch.randn(tokens, hidden, device="cuda").to(BF16)
    out = torch.empty_like(x)
    k = torch.randn(batch, kv_heads, keys, dim, device="cuda", dtype=BF16)
    v = torch.randn(batch, kv_heads, keys, dim, device="cuda", dtype=BF16)
    pages = Pages(k, v, page)
    call = Call(x=x.data_ptr(), freqs_cis=freqs.data_ptr(), row_offsets=offsets.data_ptr(),
                cache_lengths=counts.data_ptr(), out=out.data_ptr(), workspace=space.data_ptr())
    pages.fill(call)
    cos_new, sin_new = cos[cached:], sin[cached:]

    def peer():
        qkv = F.linear(x, w_qkv).view(batch, new, heads + 2 * kv_heads, dim).transpose(1, 2)
        q = rotate(qkv[:, :heads], cos_new, sin_new)
        k[:, :, cached:] = rotate(qkv[:, heads:heads + kv_heads], cos_new, sin_new)
        v[:, :, cached:] = qkv[:, heads + kv_heads:]
        with sdpa_kernel(backend):
            o = F.scaled_dot_product_attention(q, k, v, is_causal=cached == 0, enable_gqa=True)
        return F.linear(o.transpose(1, 2).reshape(tokens, heads * dim), w_o)

    lib.run(handle, call)
    row = {"name": name, "page": page, "peer": backend.name, "error": relative_error(out, peer())}
    graphs = {"ours": graph_of([lambda: lib.run(handle, call)]), "peer_graph": graph_of([peer])}
    row.update({who + "_us": round(us, 1) for who, us in time_graphs(graphs, 1, rounds).items()})
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    eager = []
    for _ in range(20):
        torch.cuda.synchronize()
        begin.record()
        peer()
        end.record()
        end.synchronize()
        eager.append(begin.elapsed_time(end) * 1e3)
    row["peer_eager_us"] = round(statistics.median(eager), 1)
    for who in ("peer_graph", "peer_eager"):
        row["ratio_" + who] = round(row[who + "_us"] / row["ours_us"], 3)
    lib.lib.attn_shim_free(handle)
    return row


HEADS_FIRST = False
LAYER = [
    ("layer prefill 1x4096", 1, 4096, 0, SDPBackend.FLASH_ATTENTION),
    ("layer prefill 8x2048", 8, 2048, 0, SDPBackend.FLASH_ATTENTION),
    ("layer decode 64 x ctx 8191", 64, 1, 8191, SDPBackend.CUDNN_ATTENTION),
    ("layer decode 1 x ctx 8191", 1, 1, 8191, SDPBackend.CUDNN_ATTENTION),
]
PREFILL = [
    ("B1 S512 32/8 causal", 1, 512, 512, 32, 8, 128, True),
    ("B1 S4096 32/8 causal", 1, 4096, 4096, 32, 8, 128, True),
    ("B8 S2048 32/8 causal", 8, 2048, 2048, 32, 8, 128, True),
    ("B1 S16384 32/8 causal", 1, 16384, 16384, 32, 8, 128, True),
    ("B4 S4096 16/16 full", 4, 4096, 4096, 16, 16, 128, False),
    ("B2 S4096 32/32 D64 causal", 2, 4096, 4096, 32, 32, 64, True),
    ("B2 S4096 16/8 D256 causal", 2, 4096, 4096, 16, 8, 256, True),
]
DECODE = [
    ("B1 ctx2048 32/8", 1, 1, 2048, 32, 8, 128, False),
    ("B1 ctx8192 32/8", 1, 1, 8192, 32, 8, 128, False),
    ("B1 ctx32768 32/8", 1, 1, 32768, 32, 8, 128, False),
    ("B4 ctx32768 8/1", 4, 1, 32768, 8, 1, 128, False),
    ("B16 ctx8192 32/8", 16, 1, 8192, 32, 8, 128, False),
    ("B64 ctx2048 32/8", 64, 1, 2048, 32, 8, 128, False),
    ("B256 ctx1024 32/8", 256, 1, 1024, 32, 8, 128, False),
    ("B16 ctx8192 32/8 D64", 16, 1, 8192, 32, 8, 64, False),
    ("B16 ctx8192 16/8 D256", 16, 1, 8192, 16, 8, 256, False),
    ("B16 ctx8192 32/8 q4", 16, 4, 8192, 32, 8, 128, True),
    ("B16 ctx8192 32/8 q16", 16, 16, 8192, 32, 8, 128, True),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", required=True)
    parser.add_argument("--json")
    parser.add_argument("--only", default="prefill,decode,layer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", type=int, default=64)
    parser.add_argument("--layout", choices=("nhd", "hnd"), default="nhd")
    parser.add_argument("--match", default="", help="only rows whose name holds this")
    args = parser.parse_args()
    global HEADS_FIRST
    HEADS_FIRST = args.layout == "hnd"
    torch.manual_seed(0)
    lib = Library(args.library)
    smi = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                         capture_output=True, text=True, check=False).stdout.strip()
    report = {"device": smi, "torch": torch.__version__, "cudnn": torch.backends.cudnn.version(),
              "timer": "CUDA graphs of one call per buffer set, events around replays; median of "
                       f"{args.rounds} interleaved rounds", "rows": []}
    jobs = []
    for kind, shapes, bench in (("prefill", PREFILL, bench_attention),
                                ("decode", DECODE, bench_attention), ("layer", LAYER, bench_layer)):
        if kind in args.only.split(","):
            jobs += [(bench, shape) for shape in shapes if re.search(args.match, shape[0])]
    for bench, shape in jobs:
        try:
            row = bench(lib, *shape, page=args.page, rounds=args.rounds)
        except RuntimeError as error:
            row = {"name": shape[0], "failed": str(error)[:200]}
        report["rows"].append(row)
        print(json.dumps(row), flush=True)
        torch.cuda.empty_cache()
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
