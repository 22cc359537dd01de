"""Whole layers: projections, rotation, cache, attention, output projection. The peers are torch's own
products around torch's attention, with K and V in one contiguous cache each."""
import torch
import torch.nn.functional as F
from torch.nn.attention import sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from attention import DTYPES, SDPA
from exact import FLOAT32, UNIT, attention as exact_attention, sample_rows
from shim import Call, Pages, int32
from weights import make_weights


def rotate(x, cos, sin, interleaved=False):
    """Rotation of [..., rows, dim] in float32 (or wider), rounded once: of channels j and
    j + dim / 2, or of neighbours."""
    wide = x if x.dtype == torch.float64 else x.float()
    if interleaved:
        a, b = wide[..., 0::2], wide[..., 1::2]
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = wide.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return turned.to(x.dtype)


def normalise(x, gamma, eps):
    """RMS norm of each head of [..., dim], in the type of x."""
    return F.rms_norm(x, (x.shape[-1],), gamma.to(x.dtype), eps)


class LayerCase:
    """Tensors of one case of entry point forward or materialize_kv_from_hidden. All sequences have
    one length."""

    def __init__(self, case):
        self.name, self.config = case["name"], case["case"]["config"]
        rows = case["case"]["rows"]
        if len(set(map(tuple, rows))) != 1:
            raise NotImplementedError("takes sequences of one length only")
        c = self.config
        self.batch, self.cached, self.new = len(rows), rows[0][0], rows[0][1]
        self.keys, self.tokens = self.cached + self.new, self.batch * self.new
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.dim, self.hidden = c["head_dim"], c["hidden_size"]
        self.dtype = DTYPES[c["dtype"]]
        self.stores_only = c.get("entry_point") == "materialize_kv_from_hidden"
        self.encoding = (c.get("quant") or {}).get("encoding", "")
        self.weights = make_weights(c)
        # Of both heads' norms, or none.
        self.gammas, self.eps = {}, c.get("rms_norm_eps", 1e-6)
        if c.get("use_qk_norm"):
            for name in ("q_norm", "k_norm"):
                self.gammas[name] = (1 + 0.2 * torch.randn(self.dim, device="cuda")).to(self.dtype)
                self.weights.stored[name + ".weight"] = self.gammas[name].cpu()
        rope = c.get("rope") or {}
        self.interleaved, theta = rope.get("interleaved", True), rope.get("theta", 10000.0)
        inverse = theta ** (-torch.arange(0, self.dim, 2, device="cuda", dtype=torch.float64) / self.dim)
        angles = torch.arange(self.keys, device="cuda", dtype=torch.float64)[:, None] * inverse
        self.cos, self.sin = angles.cos(), angles.sin()
        self.table = torch.stack((self.cos.float(), self.sin.float()), dim=-1).reshape(self.keys, self.dim).contiguous()
        self.x = torch.randn(self.tokens, self.hidden, device="cuda").to(self.dtype)
        shape = (self.batch, self.kv_heads, self.keys, self.dim)
        self.k = torch.randn(shape, device="cuda", dtype=self.dtype)
        self.v = torch.randn(shape, device="cuda", dtype=self.dtype)
        element = self.dtype.itemsize
        parameters = self.weights.elements(self.stores_only)
        self.bytes = (self.weights.bytes(self.stores_only) + 2 * element * self.tokens * self.hidden +
                      2 * element * self.batch * self.keys * self.kv_heads * self.dim)
        pairs = self.batch * sum(range(self.cached + 1, self.keys + 1))
        self.operations = 2 * self.tokens * parameters
        if not self.stores_only:
            self.operations += 4 * self.heads * self.dim * pairs

    def norm(self, name, x):
        """q_norm or k_norm of heads [..., dim], where the layer has them."""
        return normalise(x, self.gammas[name], self.eps) if self.gammas else x

    def exact_rows(self):
        """(row numbers of sequence 0, their outputs) in float64 from the decoded weights; for a case
        that only stores, the rotated keys."""
        x = self.x[:self.new].double()
        w = {n: t.double() for n, t in self.weights.decoded.items()}

        def project(name, heads, rows):
            return (rows @ w[name].T).view(-1, heads, self.dim).transpose(0, 1)
        cos, sin = self.cos[self.cached:], self.sin[self.cached:]
        new_k = rotate(self.norm("k_norm", project("k_proj", self.kv_heads, x)), cos, sin,
                       self.interleaved)
        rows = sample_rows(self.new, 12)
        if self.stores_only:
            return rows, new_k[:, rows].transpose(0, 1).reshape(len(rows), -1)
        k = torch.cat((self.k[0, :, :self.cached].double(), new_k), 1)
        v = torch.cat((self.v[0, :, :self.cached].double(), project("v_proj", self.kv_heads, x)), 1)
        q = rotate(self.norm("q_norm", project("q_proj", self.heads, x[rows])), cos[rows], sin[rows],
                   self.interleaved)
        at = torch.tensor([self.cached + r for r in rows], device="cuda")
        group = self.heads // self.kv_heads
        heads = [exact_attention(torch, q[h], k[h // group], v[h // group], at,
                                 {"variant": "causal"}, self.dim ** -0.5)[0] for h in range(self.heads)]
        return rows, torch.cat(heads, dim=1) @ w["o_proj"].T

    def error_over_bound(self, out):
        """Relative error of some rows of [tokens, ...] in the 2-norm, over what nine roundings to
        the layer's type in a row (projection, rotation, cache, probabilities, attention, output)
        and float32 sums come to; a norm of q and k adds one, float8 activations one rounding to 4
        bits for each product."""
        if not hasattr(self, "wanted"):
            self.wanted = self.exact_rows()
        rows, want = self.wanted
        error = ((out[rows].double() - want).norm() / want.norm()).item()
        roundings = 9 + bool(self.gammas)
        allowed = roundings * UNIT[self.config["dtype"]] + 2 * self.hidden ** 0.5 * FLOAT32
        if self.encoding.startswith("float8"):
            allowed += 2 * 2.0 ** -4
        return error / allowed


def ours(case, library, heads_first, words=""):
    layer = library.layer(case.config, case.weights.stored, words)
    space = layer.plan([case.new] * case.batch, [case.cached] * case.batch)
    offsets = int32([case.new * b for b in range(case.batch + 1)])
    counts = int32([case.cached] * case.batch)
    pages = Pages(list(case.k), list(case.v), case.config["kv_cache"]["page_size"], heads_first)
    out = torch.empty(case.tokens, case.hidden, device="cuda", dtype=case.dtype)
    call = Call(x=case.x.data_ptr(), freqs_cis=case.table.data_ptr(),
                row_offsets=offsets.data_ptr(), cache_lengths=counts.data_ptr(),
                out=None if case.stores_only else out.data_ptr(), workspace=space.data_ptr())
    pages.fill(call)
    layer.run(call)
    torch.cuda.synchronize()
    if case.stores_only:
        pool = pages.pools[0].transpose(1, 2) if heads_first else pages.pools[0]
        flat = pool[pages.table[0].long()].reshape(-1, case.kv_heads * case.dim)
        out = flat[case.cached:case.keys].contiguous()
    return [lambda: layer.run(call)], out, (layer, space, offsets, counts, pages, out)


def make_peer(case, attention):
    """The layer as a function of nothing. `attention`: a key of SDPA, or "" for torch's choice."""
    w, cos, sin = case.weights, case.cos[case.cached:].float(), case.sin[case.cached:].float()
    shape = (case.batch, case.new, -1, case.dim)
    q_heads = 0 if case.stores_only else case.heads

    is_square = case.cached == 0
    mask = None if is_square or case.new == 1 else causal_lower_right(case.new, case.keys)

    def attend(q):
        return F.scaled_dot_product_attention(q, case.k, case.v, attn_mask=mask,
                                              is_causal=is_square and case.new > 1,
                                              enable_gqa=case.heads != case.kv_heads)

    def run():
        qkv = (w.kv(case.x) if case.stores_only else w.qkv(case.x)).view(shape).transpose(1, 2)
        kv = qkv[:, q_heads:]
        case.k[:, :, case.cached:] = rotate(case.norm("k_norm", kv[:, :case.kv_heads]), cos, sin,
                                            case.interleaved)
        case.v[:, :, case.cached:] = kv[:, case.kv_heads:]
        if case.stores_only:
            return case.k
        q = rotate(case.norm("q_norm", qkv[:, :q_heads]), cos, sin, case.interleaved)
        if attention:
            with sdpa_kernel(SDPA[attention]):
                o = attend(q)
        else:
            o = attend(q)
        return w.o(o.transpose(1, 2).reshape(case.tokens, case.heads * case.dim))
    return run


def peer(case, attention="", compiled=False):
    run = make_peer(case, attention)
    if compiled:
        run = torch.compile(run, dynamic=False)
    out = run()
    if case.stores_only:
        out = case.k[0, :, case.cached:].transpose(0, 1).reshape(case.new, -1).clone()
    return [run], out, run
