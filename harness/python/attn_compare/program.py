"""The program of a wheel: attn-compare, started with the interpreter and the libraries beside it."""

import os
import pathlib
import sys


def main():
    package = pathlib.Path(__file__).resolve().parent
    program = package / "_bin" / "attn-compare"
    if not program.is_file():
        sys.exit(f"attn-compare: {program} is missing; this package was not installed from a wheel")
    environment = dict(os.environ)
    paths = [str(package / "_lib"), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = ":".join(p for p in paths if p)
    environment.setdefault("ATTN_PYTHON", sys.executable)  # what py: backends run in
    os.execve(program, ["attn-compare", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
