"""JAX: attn-compare fuzz --backend py:examples/python/jax_attention.py:attention"""

import jax
import jax.numpy as jnp
import attn_compare as ac


# In float16 XLA may sum P*V in float16 while scores are summed in float32: no declaration says so.
@ac.backend(lse=False, supports=lambda c: c.beyond("top_left", *ac.MASKS) or (
                c.dtype != "float16" or "P*V may be summed in float16"),
            arithmetic=ac.Arithmetic(out="dtype", probabilities="dtype", exp_rel=2**-21))
def attention(problem):
    p = problem.to("jax")
    out = jnp.zeros((p.tokens, p.config.num_heads, p.config.head_dim_v), p.q.dtype)
    for s in p.sequences():
        if s.rows and s.keys:
            bias = None if s.bias is None else s.bias[None, None]
            with jax.default_matmul_precision("highest"):
                row = jax.nn.dot_product_attention(
                    s.q[None], s.k[None], s.v[None], bias=bias, mask=s.visible[None, None],
                    scale=p.scale, implementation="xla")
            seen = s.visible.any(axis=1)[:, None, None]
            out = out.at[s.first:s.first + s.rows].set(jnp.where(seen, row[0], 0))
    return out
