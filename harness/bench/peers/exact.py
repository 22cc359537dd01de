"""Attention in float64, and how far a kernel of narrower types may be from it.

Works on numpy and on torch arrays alike (`xp` is the module), so that the golden files can judge it
where there is no torch.
"""

FLOAT32 = 2.0 ** -24
UNIT = {"bfloat16": 2.0 ** -8, "float16": 2.0 ** -11, "float32": FLOAT32}


def visible(xp, positions, keys, mask):
    """[rows, keys]: which keys a row at absolute position `positions` sees."""
    at = xp.arange(keys, device=positions.device) if xp.__name__ == "torch" else xp.arange(keys)
    behind = positions[:, None] - at[None, :]
    kind = mask["variant"]
    if kind == "null":
        return behind == behind
    seen = behind >= 0
    if kind == "causal":
        return seen
    if kind == "sliding_window_causal":
        return seen & (behind < mask["window_size"])
    raise ValueError("no evaluation for mask " + kind)


def softmax_weights(xp, logits, positions, mask):
    logits = xp.where(visible(xp, positions, logits.shape[1], mask), logits, -float("inf"))
    top = logits.max(1)
    top = top.values if hasattr(top, "values") else top
    weights = xp.exp(logits - top[:, None])
    return weights / weights.sum(1)[:, None]


def attention(xp, q, k, v, positions, mask, scale):
    """Of rows q [rows, D] of one head on its keys [keys, D] and values [keys, Dv], all float64.

    Returns the rows [rows, Dv], sum p |v|, sum p^2 v^2, and the largest error of a logit for
    float32 products: what `bound` needs.
    """
    weights = softmax_weights(xp, scale * (q @ k.T), positions, mask)
    size = scale * (abs(q) @ abs(k).T).max()
    logit_error = 2 * FLOAT32 * (q.shape[1] / 16 + 2) * float(size)
    return weights @ v, weights @ abs(v), (weights * weights) @ (v * v), logit_error


def bound(out, absolute, squares, logit_error, keys, dtype):
    """Largest |error| of each element of `out` for a kernel that keeps logits and sums in float32 and
    rounds the probabilities and the result to `dtype`: docs/numerics.md, stage attn_out. Roundings
    of probabilities are independent of each other but for a common part, those of sums are not."""
    unit = UNIT[dtype]
    own = unit * abs(out)
    probabilities = unit * (4 * squares ** 0.5 + abs(out))
    sums = 2 * FLOAT32 * (keys / 16 + 3) * absolute
    return own + probabilities + (2 * logit_error + 8 * FLOAT32) * absolute + sums + 1e-30


def fp8_sum_error(terms, value, magnitude, root_squares):
    """Of a sum in the 14 bits that products of codes keep: docs/numerics.md, "Sums"."""
    chain = terms / 32 + 1
    return 2.0 ** -13 * ((chain + 2 * terms ** 0.5) * (abs(value) + root_squares) +
                         terms * value * value / (magnitude + 1e-300))


def fp8_attention(xp, q, k, v, positions, mask, scale, dtype):
    """The rows for queries q that are e4m3 codes times a power of two already, and the largest
    |error| of each element for a kernel of fp8 products: sums of scores and outputs in 14 bits,
    probabilities times 256 rounded to e4m3, the result to `dtype`."""
    products = q @ k.T
    weights = softmax_weights(xp, scale * products, positions, mask)
    out, absolute = weights @ v, weights @ abs(v)
    squares = (weights * weights) @ (v * v)
    logit = scale * fp8_sum_error(q.shape[1], products, abs(q) @ abs(k).T,
                                  ((q * q) @ (k * k).T) ** 0.5)
    # Cauchy-Schwarz: sum p (e^delta - 1)(v - out) by the sums of the squares of both.
    moved = (weights * (xp.exp(logit) - 1) ** 2).sum(1)[:, None] ** 0.5
    spread = (abs(weights @ (v * v) - out * out)) ** 0.5
    scores = moved * spread / (weights * xp.exp(-logit)).sum(1)[:, None]
    top = weights.max(1)
    top = top.values if hasattr(top, "values") else top
    rounded = 2.0 ** -4 * (4 * squares ** 0.5 + abs(out)) + 2.0 ** -18 * top[:, None] * abs(v).sum(0)
    sums = fp8_sum_error(k.shape[0], out, absolute, squares ** 0.5)
    allowed = scores + rounded + sums
    return out, allowed + UNIT[dtype] * (abs(out) + allowed) + 1e-30


def sample_rows(rows, wanted=24):
    """Row numbers to judge: the first and the last ones, and some between."""
    if rows <= wanted:
        return list(range(rows))
    edge = wanted // 3
    step = (rows - 2 * edge) / (wanted - 2 * edge)
    between = [edge + int(step * i + step / 2) for i in range(wanted - 2 * edge)]
    return list(range(edge)) + between + list(range(rows - edge, rows))
