#!/usr/bin/env python3
"""Reads the machine code of a Hopper kernel and says whether its parts are there, in order.

    python3 hopper_machine_code.py FILE.cubin

cuobjdump is not everywhere; an instruction of compute capability 9.0 has 16 bytes, and its lowest 12 bits
say which one it is. Those named here were read off cuobjdump's own listing of these kernels (CUDA 13.0).
"""
import struct
import sys

# One row each: the 12 bits without the form of the operands (bits 9 to 11 say register, constant, ...).
HGMMA, WARPGROUP, MUFU, UTMALDG, USETMAXREG, HMMA = 0x1F0, 0x1C5, 0x108, 0x1B4, 0x1C8, 0x03C
QGMMA = 0x1F3  # products of 8-bit floats
LOCAL = (0x183, 0x187)  # LDL, STL: spilled registers
LDG, STG, STS = 0x181, 0x186, 0x188


def code_of(path):
    """{name: [instruction as two 64-bit words]} of the kernels in an ELF file."""
    data = open(path, "rb").read()
    table = struct.unpack_from("<Q", data, 0x28)[0]
    count, names = struct.unpack_from("<HH", data, 0x3C)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * i) for i in range(count)]
    found = {}
    for section in sections:
        start = sections[names][4] + section[0]
        name = data[start:data.index(b"\0", start)].decode()
        if name.startswith(".text."):
            code = data[section[4]:section[4] + section[5]]
            found[name[6:]] = list(struct.iter_unpack("<QQ", code))
    return found


def wrong_with_pass(code, loads):
    """The same of a pass that makes images: loads of codes all stand before the first store."""
    kinds = [low & 0x1FF for low, _ in code]
    if any(kind in LOCAL for kind in kinds):
        return "spilled registers (LDL, STL)"
    stores = [i for i, kind in enumerate(kinds) if kind in (STG, STS)]
    if not stores:
        return "no stores"
    first = kinds[:stores[0]].count(LDG)
    return "" if first >= loads else f"{first} loads before the first store, wanted are {loads}"


def wrong_with(code, softmax, codes, fp8, writes_wanted):
    """"" or the first thing that is not as it should be."""
    kinds = [low & 0x1FF for low, _ in code]
    product, other = (QGMMA, HGMMA) if fp8 else (HGMMA, QGMMA)
    if other in kinds:
        return "products of the other width"
    for kind, name in ((product, "QGMMA" if fp8 else "HGMMA"), (UTMALDG, "UTMALDG"), (USETMAXREG, "USETMAXREG")):
        if kind not in kinds:
            return f"no {name}"
    if HMMA in kinds:
        return "mma.sync (HMMA)"
    if any(kind in LOCAL for kind in kinds):
        return "spilled registers (LDL, STL)"
    if codes:
        # Each load takes the place of codes that have just been widened and stored: only before the first
        # step do loads follow each other.
        runs, run = [], 0
        for kind in kinds[max(i for i, kind in enumerate(kinds) if kind == USETMAXREG):]:
            if kind == LDG:
                run += 1
            elif kind == STS and run:
                runs.append(run)
                run = 0
        if sum(run >= 3 for run in runs) > 1:
            return f"loads of codes after each other: {max(runs)}"
        if sum(run == 1 for run in runs) < 8:
            return "no loads of codes between the stores of others"
    if not softmax:
        return ""
    # WARPGROUP: an arrival, or a wait (bit 47) for all but so many groups of products. In the loops the
    # softmax lies between the wait for the scores (1 may be under way, the outputs) and that for the outputs.
    # Where the next tile is opened early its first scores are made while outputs are written: between the
    # waits for both.
    marks = [i for i, (low, _) in enumerate(code) if low & 0x1FF == WARPGROUP and low >> 47 & 1]
    pairs = writes = 0
    for first, second in zip(marks, marks[1:]):
        between = kinds[first:second]
        if product in between:
            continue
        if STG in between:
            writes += 1
            continue
        pairs += 1
        if between.count(MUFU) < 16:
            return f"{between.count(MUFU)} exponentials beside the products, from instruction {first} on"
    if pairs < 2:
        return f"{pairs} loops whose softmax runs beside products, wanted are 2"
    if writes != writes_wanted:
        return f"outputs are written beside first scores at {writes} places, wanted is {writes_wanted}"
    return ""


def main():
    bad = 0
    kernels = code_of(sys.argv[1])
    for name, code in kernels.items():
        if "turn_images" in name:  # 16 keys of a block, and page tables
            wrong = wrong_with_pass(code, 18)
        elif "widen_images" in name:  # of the keys
            wrong = wrong_with_pass(code, 4)
        else:
            wrong = wrong_with(code, "attention" in name, "hopper_codes" in name, "hopper_fp8" in name,
                               0 if "Li2E" in name else 1)
        print(f"{name}: {len(code)} instructions, {wrong or 'as they should be'}")
        bad += bool(wrong)
    return 1 if bad or not kernels else 0


if __name__ == "__main__":
    sys.exit(main())
