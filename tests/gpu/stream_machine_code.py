#!/usr/bin/env python3
"""Reads the machine code of the streamed products and says whether their parts are there, in order.

    python3 stream_machine_code.py KERNELS FILE.cubin

KERNELS: how many the file has, stream_codes among them. Instructions are told apart as in
hopper_machine_code.py.
"""
import sys

from hopper_machine_code import HMMA, LOCAL, code_of

IMMA, LDGSTS, ACQBULK = 0x037, 0x1AE, 0x02E  # ACQBULK: griddepcontrol.wait
AHEAD = 6  # copies of weights of a lane before it waits: two stages of three at least


def wrong_with(name, code):
    """"" or the first thing that is not as it should be."""
    kinds = [low & 0x1FF for low, _ in code]
    if any(kind in LOCAL for kind in kinds):
        return "spilled registers (LDL, STL)"
    if ACQBULK not in kinds:
        return "it does not wait for the grid before"
    if "stream_codes" in name:
        return ""
    if "floats" not in name and (HMMA if "weights" in name else IMMA) not in kinds:
        return "no product on the tensor cores"
    ahead = kinds[:kinds.index(ACQBULK)].count(LDGSTS)
    return "" if ahead >= AHEAD else f"{ahead} copies before it waits for the grid before, not {AHEAD}"


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
