"""How problems of any size become calls of few shapes, for peers that are compiled for each."""


def rounded(n, least):
    """A length of few that are compiled: `least` times a power of four."""
    while least < n:
        least *= 4
    return least


def head_blocks(heads, kv_heads):
    """The heads in blocks that are compiled once: (query heads, kv heads) of each, four kv heads with
    one query head each, or two with four each; the last of a block may be there already."""
    group = heads // kv_heads
    size, most = (4, 1) if group == 1 else (2, 4)
    for first in range(0, kv_heads, size):
        kv = [min(first + i, kv_heads - 1) for i in range(size)]
        for member in range(0, group, most):
            of_group = [min(member + i, group - 1) for i in range(most)]
            yield [h * group + i for h in kv for i in of_group], kv
