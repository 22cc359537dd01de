"""Heads in blocks of one shape give what all heads at once do."""

import os
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(os.environ["ATTN_SOURCE_DIR"]) / "harness/python/peers"))

from blocks import head_blocks, rounded  # noqa: E402


@pytest.mark.parametrize("heads, kv_heads", [(1, 1), (4, 4), (5, 5), (4, 2), (3, 1), (15, 3), (48, 2), (11, 1), (32, 8)])
def test_blocks_of_heads(heads, kv_heads):
    group = heads // kv_heads
    reads = np.full(heads, -1)
    shapes = set()
    for of_block, kv in head_blocks(heads, kv_heads):
        shapes.add((len(of_block), len(kv)))
        reads[of_block] = np.repeat(kv, len(of_block) // len(kv))  # as grouped kernels deal heads
    assert reads.tolist() == [h // group for h in range(heads)]
    assert shapes == {(4, 4) if group == 1 else (8, 2)}


def test_lengths_are_of_few():
    assert [rounded(n, 128) for n in (1, 128, 129, 512, 513)] == [128, 128, 512, 512, 2048]
