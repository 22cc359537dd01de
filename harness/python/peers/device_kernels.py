"""Kernels in torch for device.py: attn-compare run ... --backend py:harness/python/peers/device_kernels.py:NAME

Written so that a graph may hold them: every length, offset and page is read on the device.
"""

import os

import torch

import attn_compare as ac

DEVICE = os.environ.get("ATTN_TORCH_DEVICE", "cuda")
if DEVICE == "cuda":
    torch.backends.cuda.matmul.allow_tf32 = False
NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def attend(p, lengths):
    """Every row against every slot of its sequence's pages, hidden ones masked; in float32."""
    c, device = p.config, p.q.device
    offsets = p.row_offsets_device.long()
    token = torch.arange(p.q.shape[0], device=device)
    b = torch.searchsorted(offsets[1:].contiguous(), token, right=True).clamp(max=p.batch - 1)
    keys = torch.arange(p.page_table_device.shape[1] * c.page_size, device=device)
    page = p.page_table_device.long()[b][:, keys // c.page_size].clamp(max=p.k_cache.shape[0] - 1)
    slot = (page, (keys % c.page_size).expand_as(page))
    rows, n = offsets[b + 1] - offsets[b], lengths.long()[b]
    see = keys < n[:, None]
    if c.mask == "causal":
        see = see & (keys <= (n - rows + token - offsets[b])[:, None])
    see = (see & (token < offsets[-1])[:, None])[:, None]
    k, v = (pool[slot].float().repeat_interleave(c.group_size, 2).transpose(1, 2)
            for pool in (p.k_cache, p.v_cache))  # [tokens, heads, keys, dim]
    score = torch.where(see, (k * p.q.float()[:, :, None]).sum(-1) * p.scale, float("-inf"))
    top = score.amax(-1, keepdim=True).clamp(min=-1e30)
    weight = torch.exp(score - top)
    total = weight.sum(-1, keepdim=True)
    v = torch.where(see[..., None], v, torch.zeros((), device=device))
    out = (weight[..., None] * v).sum(2) / total.clamp(min=1e-30)
    lse = (torch.log(total) + top)[..., 0]
    return out, torch.where((token < offsets[-1])[:, None], lse, torch.zeros((), device=device))


def supports(c):
    return c.beyond() or ("" if c.dtype in NARROW else c.dtype)


graphed = ac.backend(supports=supports, graph=ac.TorchGraph, padding="zero",
                     arithmetic=ac.Arithmetic(exp_rel=2**-21))


@graphed
def right(problem):
    p = problem.to("torch", DEVICE)
    return attend(p, p.key_lengths_device)


@graphed
def lengths_recorded(problem):
    """Filled with numbers of the host when it is recorded: they are part of the graph."""
    p = problem.to("torch", DEVICE)
    lengths = torch.empty_like(p.key_lengths_device)
    for b, n in enumerate(p.key_lengths):
        lengths[b].fill_(int(n))
    return attend(p, lengths)


@ac.backend(supports=supports, lse=False, arithmetic=ac.Arithmetic(out="dtype"))
def narrow(problem):
    """The output in the config's type, as it lies on the device, with a gradient and a stride."""
    p = problem.to("torch", DEVICE)
    out, _ = attend(p, p.key_lengths_device)
    wide = torch.zeros(*out.shape[:2], 2 * out.shape[2], device=out.device, dtype=p.q.dtype)
    wide[..., ::2] = out.to(p.q.dtype)
    return wide.requires_grad_()[..., ::2]
