#!/usr/bin/env python3
"""Times one product with quantised weights, 4096 -> 6144, at several numbers of rows, beside torch's
bfloat16 and float8 products of the same shape. Captured graphs, contestants taking turns, weights
past the L2; our outputs are compared with float64 first. Each --also times the layer once more, under
other options of the backend cuda, in the same rounds: "ours_coded=stream_us".

    python3 harness/bench/peers/projection.py --library LIB.so [--json FILE] [--match int4] [--rows 1,16]
                                              [--also coded=stream] [--commit COMMIT]
"""
import argparse
import concurrent.futures
import json
import math
import re
import statistics

import torch
import torch.nn.functional as F

from shim import Call, Library
from timing import graph_of, time_graphs

BF16 = torch.bfloat16

# A product 4096 -> 6144: k and v of 24 heads, so that no other weight is loaded.
HIDDEN, WIDTH = 4096, 6144


def gptq_weights(bits, group):
    """One projection's tensors, and the weight in bfloat16 as its layer makes it."""
    rows = WIDTH // 2
    per = 32 // bits
    words = torch.randint(-2**31, 2**31 - 1, (HIDDEN // per, rows), dtype=torch.int32)
    scales = (torch.rand(HIDDEN // group, rows) * 0.01 + 0.001).half()
    tensors = {"qweight": words, "scales": scales,
               "qzeros": torch.zeros(HIDDEN // group, rows // per, dtype=torch.int32),
               "g_idx": (torch.arange(HIDDEN) // group).int()}
    wide = words.cuda().long() & 0xffffffff
    codes = torch.stack([(wide >> (bits * i)) & (2**bits - 1) for i in range(per)], 1)
    codes = codes.reshape(HIDDEN, rows) - 2**(bits - 1)
    cut = (scales.cuda().float().view(torch.int32) & -65536).view(torch.float32)
    dense = (codes.float() * cut.repeat_interleave(group, 0)).to(BF16)
    return tensors, dense.t()


def q4_k_weights():
    rows, blocks = WIDTH // 2, HIDDEN // 256
    raw = torch.randint(0, 256, (rows, blocks, 144), dtype=torch.uint8)
    d = torch.rand(rows, blocks, 2) * torch.tensor([2e-4, 1e-3]) + 1e-5
    raw[:, :, :4] = d.half().view(torch.uint8).reshape(rows, blocks, 4)
    b = raw.cuda()
    head = b[:, :, :4].reshape(-1).clone().view(torch.float16).view(rows, blocks, 2).float()
    s = b[:, :, 4:16].int()
    scale, least = [], []
    for j in range(8):
        if j < 4:
            scale.append(s[:, :, j] & 63)
            least.append(s[:, :, j + 4] & 63)
        else:
            scale.append((s[:, :, j + 4] & 15) | (s[:, :, j - 4] >> 6) << 4)
            least.append((s[:, :, j + 4] >> 4) | (s[:, :, j] >> 6) << 4)
    q = b[:, :, 16:].view(rows, blocks, 4, 1, 32)
    codes = torch.cat((q & 15, q >> 4), 3).reshape(rows, blocks, 8, 32).float()
    factor = head[:, :, :1] * torch.stack(scale, 2)
    shift = head[:, :, 1:] * torch.stack(least, 2)
    dense = codes * factor[..., None] - shift[..., None]
    return {"weight": raw.view(rows, -1)}, dense.reshape(rows, HIDDEN)


def q8_0_weights():
    rows, blocks = WIDTH // 2, HIDDEN // 32
    raw = torch.randint(0, 256, (rows, blocks, 34), dtype=torch.uint8)
    raw[:, :, :2] = (torch.rand(rows, blocks, 1) * 2e-4 + 1e-5).half().view(torch.uint8)
    b = raw.cuda()
    d = b[:, :, :2].reshape(-1).clone().view(torch.float16).view(rows, blocks, 1).float()
    dense = b[:, :, 2:].contiguous().view(torch.int8).float() * d
    return {"weight": raw.view(rows, -1)}, dense.reshape(rows, HIDDEN)


def fp8_weights(granularity, static):
    rows = WIDTH // 2
    codes = (torch.randn(rows, HIDDEN) * 60).to(torch.float8_e4m3fn)
    shape = {"tensor": (), "rowwise": (rows, 1), "block": (rows // 128, HIDDEN // 128)}[granularity]
    scale = torch.full(shape, 3e-4) if granularity == "tensor" else torch.rand(shape) * 3e-4 + 1e-4
    tensors = {"weight": codes, "weight_scale": scale}
    if static:
        tensors["input_scale"] = torch.full((), 0.01)
    wide = scale.cuda()
    if granularity == "block":
        wide = wide.repeat_interleave(128, 0).repeat_interleave(128, 1)
    return tensors, codes.cuda().float() * wide


FORMATS = {
    "int4 g128": ("gptq", "bfloat16", {"encoding": "gptq", "bits": 4, "group_size": 128},
                  lambda: gptq_weights(4, 128), 0.53),
    "int8 g128": ("gptq", "bfloat16", {"encoding": "gptq", "bits": 8, "group_size": 128},
                  lambda: gptq_weights(8, 128), 1.02),
    "q4_k int8": ("gguf", "float32", {"encoding": "q4_k", "activation": "int8"}, q4_k_weights, 0.59),
    "q8_0 int8": ("gguf", "float32", {"encoding": "q8_0", "activation": "int8"}, q8_0_weights, 1.06),
    "q4_k float32": ("gguf", "float32", {"encoding": "q4_k"}, q4_k_weights, 0.59),
    "fp8 static": ("attention_with_rope", "bfloat16",
                   {"encoding": "float8_e4m3fn", "activation": "static",
                    "weight_granularity": "tensor"}, lambda: fp8_weights("tensor", True), 1.0),
    "fp8 token, rowwise": ("attention_with_rope", "bfloat16",
                           {"encoding": "float8_e4m3fn", "activation": "token",
                            "weight_granularity": "rowwise"},
                           lambda: fp8_weights("rowwise", False), 1.0),
    "fp8 block 128": ("attention_with_rope", "bfloat16",
                      {"encoding": "float8_e4m3fn", "activation": "block",
                       "weight_granularity": "block", "block": [128, 128]},
                      lambda: fp8_weights("block", False), 1.0),
}
# float8 codes of three mantissa bits, or products in bfloat16.
MOST_ERROR = {"fp8": 0.04, "int8": 0.02, "bfloat16": 0.004, "float32": 1e-5}


class Ours:
    """One way of our layer: as many layers with the same weights as go past the L2."""

    def __init__(self, library, config, tensors, sets, words):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            self.layers = list(pool.map(lambda _: library.layer(config, tensors, words), range(sets)))

    def calls(self, x, out):
        """Functions to be captured, a layer each; the first has run, its output lies in `out`."""
        space = [layer.plan([x.shape[0]], [0]) for layer in self.layers]
        calls = [Call(x=x.data_ptr(), out=out.data_ptr(), workspace=s.data_ptr()) for s in space]
        functions = [lambda layer=layer, c=c, s=s: layer.project(c)
                     for layer, c, s in zip(self.layers, calls, space)]
        out.fill_(math.nan)
        functions[0]()
        return functions

    def close(self):
        for layer in self.layers:
            layer.close()


def measure(library, name, counts, rounds, also):
    variant, dtype, quant, draw, bytes_of_weight = FORMATS[name]
    config = {"variant": variant, "entry_point": "materialize_kv_from_hidden",
              "num_attention_heads": WIDTH // 256, "num_key_value_heads": WIDTH // 256,
              "head_dim": 128, "hidden_size": HIDDEN, "dtype": dtype,
              "mask": {"variant": "causal"}, "rope": {"theta": 500000.0, "interleaved": False},
              "quant": quant, "kv_cache": {"page_size": 64, "dtype": dtype}}
    drawn = [draw(), draw()]
    tensors = {f"{p}_proj.{n}": t for p, (ts, _) in zip("kv", drawn) for n, t in ts.items()}
    dense = torch.cat([w for _, w in drawn]).contiguous()
    size = bytes_of_weight * WIDTH * HIDDEN
    sets = math.ceil(160e6 / size)
    ways = {"ours": Ours(library, config, tensors, sets, "")}
    for words in also:
        ways["ours_" + words] = Ours(library, config, tensors, sets, words)
    peer_sets = 4
    wide = [dense.to(BF16).clone() for _ in range(peer_sets)]
    fp8 = [dense.to(BF16).mul(100).to(torch.float8_e4m3fn) for _ in range(peer_sets)]
    rows = []
    for m in counts:
        x = torch.randn(m, HIDDEN, device="cuda").to(getattr(torch, dtype))
        out = torch.empty(m, WIDTH, device="cuda", dtype=x.dtype)
        want = x.double() @ dense.double().t()
        kind = "fp8" if "fp8" in name else "int8" if quant.get("activation") == "int8" else dtype
        graphs, errors = {}, {}
        for who, way in ways.items():
            graphs[who] = (way.calls(x, out), sets)
            errors[who] = ((out.double() - want).norm() / want.norm()).item()
            if not errors[who] <= MOST_ERROR[kind]:
                raise ArithmeticError(f"{name}, {m} rows, {who}: relative error {errors[who]:.3g}")
        x16 = x.to(BF16)
        graphs["bf16"] = ([lambda w=w: F.linear(x16, w) for w in wide], peer_sets)
        if "fp8" in name and m >= 16:
            one = torch.ones((), device="cuda")
            x8 = x16.to(torch.float8_e4m3fn)
            graphs["fp8_product"] = ([lambda w=w: torch._scaled_mm(x8, w.t(), one, one,
                                                                   out_dtype=BF16)
                                      for w in fp8], peer_sets)
        times = time_graphs({who: graph_of(f) for who, (f, _) in graphs.items()}, 1, rounds)
        row = {"name": f"{name}, {m} rows"}
        row.update({who.replace("ours", "error"): error for who, error in errors.items()})
        for who, (each, _) in times.items():
            row[who + "_us"] = round(statistics.median(each) / graphs[who][1], 2)
        row["gbs"] = round(size / row["ours_us"] / 1e3)
        row["tflops"] = round(2 * m * WIDTH * HIDDEN / row["ours_us"] / 1e6, 1)
        row["ratio_bf16"] = round(row["bf16_us"] / row["ours_us"], 3)
        print(json.dumps(row), flush=True)
        rows.append(row)
    for way in ways.values():
        way.close()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", required=True, help="libattn_layer_shim.so of a CUDA build")
    parser.add_argument("--json")
    parser.add_argument("--match", default="", help="only formats whose name has this")
    parser.add_argument("--rows", default="1,8,16,64,256,4096")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--also", action="append", default=[], help="options of the backend cuda, to time beside the defaults")
    parser.add_argument("--commit", default="", help="of the library, for the file")
    args = parser.parse_args()
    torch.manual_seed(0)
    library = Library(args.library)
    rows = []
    for name in FORMATS:
        if re.search(args.match, name):
            rows += measure(library, name, [int(m) for m in args.rows.split(",")], args.rounds, args.also)
            torch.cuda.empty_cache()
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "device": torch.cuda.get_device_name(),
                       "commit": args.commit, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
