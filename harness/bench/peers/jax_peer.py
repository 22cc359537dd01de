"""JAX's attention through cuDNN, where JAX is installed. It runs outside our graphs, so its time is
the host's: many calls in a row, the last one waited for."""
import os
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def time_jax(case, rounds):
    """(microseconds of a call for each round, output [tokens, heads, dim] as a torch tensor)."""
    import jax
    import torch
    if not case.is_uniform:
        raise NotImplementedError("takes sequences of one length only")
    kind, new, keys = case.mask["variant"], case.new[0], case.keys[0]
    if kind != "null" and new != keys:
        raise NotImplementedError("aligns a causal mask with the first key")
    q, k, v = (jax.dlpack.from_dlpack(case.stacked(t[0]).transpose(1, 2).contiguous())
               for t in (case.q, case.k, case.v))
    window = (case.mask["window_size"] - 1, 0) if "window_size" in case.mask else None
    attend = jax.jit(lambda q, k, v: jax.nn.dot_product_attention(
        q, k, v, scale=case.scale, is_causal=kind != "null", local_window_size=window,
        implementation="cudnn"))
    out = attend(q, k, v).block_until_ready()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(4):
            last = attend(q, k, v)
        last.block_until_ready()
        times.append((time.perf_counter() - begin) * 1e6 / 4)
    return times, torch.from_dlpack(out).reshape(-1, case.heads, case.dim)
