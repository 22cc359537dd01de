"""flex_attention: attn-compare fuzz --backend py:examples/python/torch_flex.py:flex"""
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
import attn_compare as ac

compiled = torch.compile(flex_attention, dynamic=True)
MASKS = [mask for mask in ac.MASKS if mask != "tensor"]

@ac.backend(supports=lambda c: c.beyond("head_dim_v", "top_left", *MASKS) or (
                16 <= min(c.head_dim, c.head_dim_v) and max(c.head_dim, c.head_dim_v) <= 128 or "sizes"),
            arithmetic=ac.Arithmetic(out="dtype", probabilities="dtype", block=32, exp_rel=2**-21,
                                     accumulator="float32_tensor_core"))
def flex(problem):
    p = problem.to("torch", "cuda")
    out = torch.zeros(p.tokens, p.config.num_heads, p.config.head_dim_v, dtype=p.q.dtype, device="cuda")
    lse = torch.full(out.shape[:2], float("-inf"), device="cuda")
    for s in p.sequences():
        if s.rows and s.keys:
            see = create_block_mask(lambda b, h, q, k: s.visible[q, k], None, None, s.rows, s.keys)
            q, k, v = (x.transpose(0, 1)[None] for x in (s.q, s.k, s.v))
            o, l = compiled(q, k, v, None, see, p.scale, enable_gqa=True, return_lse=True)
            rows = slice(s.first, s.first + s.rows)
            out[rows], lse[rows] = o[0].transpose(0, 1), l[0].T
    return out, lse
