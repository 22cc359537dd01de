"""attn-compare: is an attention kernel right, and where does it go wrong?

    import attn_compare as ac

    @ac.backend(arithmetic=ac.Arithmetic(out="dtype", probabilities="dtype"))
    def mine(problem):
        ...
        return out, lse

    print(ac.check(mine, ac.attention(num_heads=8, num_kv_heads=2, rows=[(1, 513)]), seed=1))

On the command line: attn-compare fuzz --backend py:FILE:mine. docs/python.md is the guide.
"""

from ._abi import Error
from .arithmetic import Arithmetic
from .backends import Backend, Unsupported, backend
from .capture import Capture, capture
from .checking import Case, Report, attention, check, generate, reference
from .graphs import TorchGraph
from .problem import MASKS, Config, Problem, Sequence
from .testing import cases

__all__ = [
    "Arithmetic", "Backend", "Capture", "Case", "Config", "Error", "MASKS", "Problem", "Report", "Sequence",
    "TorchGraph", "Unsupported", "attention", "backend", "capture", "cases", "check", "generate",
    "reference",
]
