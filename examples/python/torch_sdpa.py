"""torch's SDPA: attn-compare fuzz --backend py:examples/python/torch_sdpa.py:sdpa"""
import torch
import torch.nn.functional as F
import attn_compare as ac

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MASKS = [mask for mask in ac.MASKS if mask != "tensor"]


@ac.backend(lse=False, supports=lambda c: c.beyond("head_dim_v", "top_left", *MASKS),
            arithmetic=ac.Arithmetic(out="dtype", probabilities="dtype", block=64,
                                     accumulator="float32_tensor_core", exp_rel=2**-22))
def sdpa(problem):
    p = problem.to("torch", DEVICE)
    out = torch.zeros(p.tokens, p.config.num_heads, p.config.head_dim_v, dtype=p.q.dtype, device=DEVICE)
    for s in p.sequences():
        q, k, v = (x.transpose(0, 1)[None] for x in (s.q, s.k, s.v))
        if s.rows and s.keys:
            # Not s.visible: cuDNN lowers what it hides by 65504 (data/findings/cudnn-bool-mask.md).
            bias = torch.zeros(s.visible.shape, dtype=q.dtype, device=DEVICE).masked_fill(~s.visible, -torch.inf)
            row = F.scaled_dot_product_attention(q, k, v, bias, scale=p.scale, enable_gqa=True)
            row = torch.where(s.visible.any(1)[:, None, None], row[0].transpose(0, 1), 0)
            out[s.first:s.first + s.rows] = row
    return out
