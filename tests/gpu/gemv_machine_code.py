#!/usr/bin/env python3
"""Reads the machine code of the kernel for few rows and says whether its parts are there, in order.

    python3 gemv_machine_code.py FILE.cubin

Instructions are told apart as in hopper_machine_code.py.
"""
import sys

from hopper_machine_code import HMMA, LOCAL, code_of

LDG, ACQBULK = 0x181, 0x02E  # ACQBULK: griddepcontrol.wait
AHEAD = 8  # loads of weights of a lane before it waits: two steps of two lines of two rows


def wrong_with(code):
    """"" or the first thing that is not as it should be."""
    kinds = [low & 0x1FF for low, _ in code]
    if any(kind in LOCAL for kind in kinds):
        return "spilled registers (LDL, STL)"
    if HMMA not in kinds:
        return "no mma.sync (HMMA)"
    if ACQBULK not in kinds:
        return "it does not wait for the grid before"
    ahead = kinds[:kinds.index(ACQBULK)].count(LDG)
    return "" if ahead >= AHEAD else f"{ahead} loads before it waits for the grid before, not {AHEAD}"


def main():
    bad = 0
    kernels = code_of(sys.argv[1])
    for name, code in kernels.items():
        wrong = wrong_with(code)
        print(f"{name}: {len(code)} instructions, {wrong or 'as they should be'}")
        bad += bool(wrong)
    return 1 if bad or len(kernels) != 4 else 0


if __name__ == "__main__":
    sys.exit(main())
