"""Weights of a layer three times: as our layer takes them, as the peer's product takes them, and
decoded. The same values in all."""
import torch
import torch.nn.functional as F

GROUP_TILES = 8  # of tinygemm's packing


def make_weights(config):
    encoding = (config.get("quant") or {}).get("encoding", "")
    kinds = {"": Dense, "gptq": Int4, "float8_e4m3fn": Float8}
    if encoding not in kinds:
        raise NotImplementedError(f"no peer computes with {encoding} weights")
    return kinds[encoding](config)


class Weights:
    """`stored`: {name: host tensor}; `decoded`: {projection: [out, in]}. qkv, kv and o multiply."""

    def __init__(self, config):
        hidden, dim = config["hidden_size"], config["head_dim"]
        q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
        self.config = config
        self.dtype = getattr(torch, config["dtype"])
        self.shapes = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden),
                       "o_proj": (hidden, q)}
        self.stored, self.decoded, self.packed = {}, {}, {}
        for name, (out, width) in self.shapes.items():
            self.add(name, torch.randn(out, width, device="cuda") * width ** -0.5)

    def joined(self, names):
        return [self.packed[n] for n in names]

    def elements(self, stores_only):
        names = ("k_proj", "v_proj") if stores_only else tuple(self.shapes)
        return sum(self.shapes[n][0] * self.shapes[n][1] for n in names)

    def bytes(self, stores_only):
        return self.elements(stores_only) * self.bytes_per_element


class Dense(Weights):
    def __init__(self, config):
        super().__init__(config)
        self.bytes_per_element = self.dtype.itemsize
        self.w_qkv = torch.cat(self.joined(("q_proj", "k_proj", "v_proj")))
        self.w_kv = torch.cat(self.joined(("k_proj", "v_proj")))

    def add(self, name, values):
        self.packed[name] = self.decoded[name] = values.to(self.dtype)
        self.stored[name + ".weight"] = self.decoded[name].cpu()

    def qkv(self, x):
        return F.linear(x, self.w_qkv)

    def kv(self, x):
        return F.linear(x, self.w_kv)

    def o(self, x):
        return F.linear(x, self.packed["o_proj"])


class Int4(Weights):
    """GPTQ's symmetric codes: weight = (code - 8) scale of its group. torch's tinygemm computes
    (code - 8) scale + zero, so both have the same weights."""

    def __init__(self, config):
        self.group = config["quant"]["group_size"]
        self.bytes_per_element = 0.5 + 2 / self.group
        super().__init__(config)
        names = ("q_proj", "k_proj", "v_proj")
        self.pack_qkv = self.pack(names)
        self.pack_kv = self.pack(names[1:])
        self.pack_o = self.pack(("o_proj",))

    def add(self, name, values):
        out, width = values.shape
        grouped = values.view(out, width // self.group, self.group)
        # Of both types, bfloat16 and float16, exactly.
        scale = (grouped.abs().amax(2) / 7).to(torch.bfloat16).float().clamp(min=2.0 ** -12)
        codes = (grouped / scale[:, :, None]).round().clamp(-8, 7).to(torch.int32) + 8
        self.decoded[name] = ((codes - 8) * scale[:, :, None]).view(out, width).to(self.dtype)
        codes = codes.view(out, width)
        self.packed[name] = (codes, scale)
        words = codes.T.contiguous().view(width // 8, 8, out).long()
        word = sum(words[:, i] << (4 * i) for i in range(8))
        word = torch.where(word >= 2 ** 31, word - 2 ** 32, word).to(torch.int32)
        groups = width // self.group
        self.stored[name + ".qweight"] = word.contiguous().cpu()
        self.stored[name + ".scales"] = scale.T.contiguous().to(torch.float16).cpu()
        self.stored[name + ".qzeros"] = torch.full((groups, out // 8), 0x77777777, dtype=torch.int32)
        self.stored[name + ".g_idx"] = (torch.arange(width) // self.group).to(torch.int32)

    def pack(self, names):
        codes = torch.cat([self.packed[n][0] for n in names])
        scale = torch.cat([self.packed[n][1] for n in names])
        pairs = ((codes[:, ::2] << 4) | codes[:, 1::2]).to(torch.uint8).contiguous()
        packed = torch.ops.aten._convert_weight_to_int4pack(pairs, GROUP_TILES)
        scales = torch.stack((scale, torch.zeros_like(scale)), dim=2).transpose(0, 1)
        return packed, scales.to(torch.bfloat16).contiguous()

    def multiply(self, x, pack):
        return torch.ops.aten._weight_int4pack_mm(x, pack[0], self.group, pack[1])

    def qkv(self, x):
        return self.multiply(x, self.pack_qkv)

    def kv(self, x):
        return self.multiply(x, self.pack_kv)

    def o(self, x):
        return self.multiply(x, self.pack_o)


class Float8(Weights):
    """Codes with a scale for each row of the weight; activations get a scale for each token as they
    come: cuBLASLt's scaled product through torch._scaled_mm."""

    def __init__(self, config):
        self.bytes_per_element = 1
        super().__init__(config)
        names = ("q_proj", "k_proj", "v_proj")
        self.pair_qkv = [torch.cat(t) for t in zip(*self.joined(names))]
        self.pair_kv = [torch.cat(t) for t in zip(*self.joined(names[1:]))]

    def add(self, name, values):
        scale = values.abs().amax(1, keepdim=True) / 448
        codes = (values / scale).to(torch.float8_e4m3fn)
        self.packed[name] = (codes, scale)
        self.decoded[name] = codes.double() * scale.double()
        self.stored[name + ".weight"] = codes.view(torch.uint8).cpu()
        self.stored[name + ".weight_scale"] = scale.float().cpu()

    def multiply(self, x, pair):
        wide = x.float()
        scale = wide.abs().amax(1, keepdim=True).clamp(1e-12, 1200) / 448
        codes = (wide / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        return torch._scaled_mm(codes, pair[0].t(), scale_a=scale, scale_b=pair[1].t().contiguous(),
                                out_dtype=self.dtype)

    def qkv(self, x):
        return self.multiply(x, self.pair_qkv)

    def kv(self, x):
        return self.multiply(x, self.pair_kv)

    def o(self, x):
        return self.multiply(x, self.packed["o_proj"])
