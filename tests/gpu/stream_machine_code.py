#!/usr/bin/env python3
"""Reads the machine code of products that stream their weights, and of the lean decode kernel, and says whether
their parts are there, in order.

    python3 stream_machine_code.py KERNELS FILE.cubin

KERNELS: how many the file has, stream_codes among them. Instructions are told apart as in
hopper_machine_code.py.
"""
import sys

from hopper_machine_code import HGMMA, HMMA, LOCAL, UTMALDG, code_of

IMMA, LDGSTS, LDG, ACQBULK = 0x037, 0x1AE, 0x181, 0x02E  # ACQBULK: griddepcontrol.wait
# Copies of weights of a lane before it waits: two stages of three at least. gemv: loads, two steps of
# two lines of two rows.
AHEAD, GEMV_AHEAD = 6, 8
# One row: both jobs of a warp whole, codes and scales.
ONE_ROW_AHEAD = 12
# Instructions of the lean decode kernel up to the wait for the grid before, and up to the first copy of keys (of
# which about 60 are for lengths that were not planned): 61 and 217 by nvcc 13.0; the general kernel has 189 and 549.
LEAN_WAIT, LEAN_COPY = 70, 240


def wrong_with(name, code):
    """"" or the first thing that is not as it should be."""
    kinds = [low & 0x1FF for low, _ in code]
    if any(kind in LOCAL for kind in kinds):
        return "spilled registers (LDL, STL)"
    if ACQBULK not in kinds:
        return "it does not wait for the grid before"
    if "stream_codes" in name:
        return ""
    if "decode_lean" in name:
        wait, copy = kinds.index(ACQBULK), kinds.index(LDGSTS)
        late = wait > LEAN_WAIT or copy > LEAN_COPY
        return f"it waits after {wait} instructions and copies after {copy}" if late else ""
    if "cluster" in name:
        wait = kinds.index(ACQBULK)
        if kinds.count(HGMMA) != (8 if "half" in name else 24) or HMMA in kinds:  # of each way to decode
            return "other products than eight of wgmma a pair of chunks"
        if LDGSTS not in kinds[:wait] or UTMALDG in kinds[:wait]:
            return "no weights before it waits for the grid before, or x before that"
        return ""
    gemv = "gemv" in name
    if "floats" not in name and (HMMA if gemv or "weights" in name else IMMA) not in kinds:
        return "no product on the tensor cores"
    ahead = kinds[:kinds.index(ACQBULK)].count(LDG if gemv else LDGSTS)
    wanted = GEMV_AHEAD if gemv else ONE_ROW_AHEAD if "stream_one" in name else AHEAD
    return "" if ahead >= wanted else f"{ahead} of the weights before it waits for the grid before, not {wanted}"


def main():
    bad = 0
    kernels = code_of(sys.argv[2])
    for name, code in kernels.items():
        wrong = wrong_with(name, code)
        print(f"{name}: {len(code)} instructions, {wrong or 'as they should be'}")
        bad += bool(wrong)
    return 1 if bad or len(kernels) != int(sys.argv[1]) else 0


if __name__ == "__main__":
    sys.exit(main())
