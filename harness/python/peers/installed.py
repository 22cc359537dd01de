"""What is here to be recorded: the program, the peers of a file, and the versions of what they are made of."""

import ast
import json
import os
import pathlib
import subprocess
import sys

# Of each of several workers, and of other peers that run beside this one. Memory that is given back
# to the system after each call has to be made anew page by page: a third of numpy's time.
WORKER = {**{name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                                    "TORCHINDUCTOR_COMPILE_THREADS")},
          "MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
# Where the name of a library is not that of its distribution.
DISTRIBUTIONS = {"flash_attn": "flash-attn", "flashinfer": "flashinfer-python"}

# What a peer may be made of, asked of another process: importing it here could end this one.
_VERSIONS = """
import importlib.metadata, json, platform, subprocess, sys
found = {"python": platform.python_version()}
for name, distribution in zip(sys.argv[1::2], sys.argv[2::2]):
    try: found[name] = importlib.metadata.version(distribution)
    except Exception: pass
if "torch" in found:
    import torch
    found["torch"] = str(torch.__version__)
    if torch.cuda.is_available():
        found.update(device=torch.cuda.get_device_name(), cuda=str(torch.version.cuda),
                     cudnn=str(torch.backends.cudnn.version()))
try:
    words = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    line = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()[0]
    found.setdefault("device", line.split(",")[0].strip())
    found["driver"] = line.split(",")[1].strip()
except Exception: pass
print(json.dumps(found))
"""


def versions():
    """Of what peers are made of, and the device."""
    asked = [word for name in ("numpy", "torch", "triton", "jax", *DISTRIBUTIONS)
             for word in (name, DISTRIBUTIONS.get(name, name))]
    done = subprocess.run([sys.executable, "-c", _VERSIONS, *asked], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def named_in(file):
    """EAGER, COMPILED, LIBRARIES (of a peer, torch where it is not said), LISTED (pages of findings
    that a peer's limitations come from) and JOBS (times as many processes, where it is not one) of a file
    of peers."""
    found = {"EAGER": [], "COMPILED": [], "LIBRARIES": {}, "LISTED": {}, "JOBS": {}}
    for node in ast.parse(pathlib.Path(file).read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in found:
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def find_program(given):
    """(program, environment): given, of the package's wheel, of its build folder, or on the PATH."""
    import attn_compare

    environment = {**WORKER, "ATTN_PYTHON": sys.executable, **os.environ}
    if given:
        return given, environment
    package = pathlib.Path(attn_compare.__file__).resolve().parent
    program = package / "_bin" / "attn-compare"
    if program.is_file():
        paths = [str(package / "_lib"), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = ":".join(p for p in paths if p)
        return str(program), environment
    built = package.parent.parent / "bin" / "attn-compare"
    return (str(built) if built.is_file() else "attn-compare"), environment
