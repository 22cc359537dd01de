"""Peers in numpy that behave as peers do: right, wrong, refusing, crashing, hanging, not here."""

import os
import time

import attn_compare as ac

from planted import evaluate

EAGER = ["good", "buggy", "refuses", "crashes", "hangs", "absent"]
COMPILED = ["compiled"]
LIBRARIES = {"good": "numpy", "buggy": "numpy", "refuses": "numpy", "crashes": "numpy",
             "hangs": "numpy", "absent": "numpy", "compiled": "numpy"}


@ac.backend()
def good(problem):
    return evaluate(problem)


@ac.backend(supports=lambda c: c.mask == "sliding_window_causal" or "no window")
def buggy(problem):
    """A window of one key too many."""
    return evaluate(problem, extra_key=1)


@ac.backend(supports=lambda c: c.dtype == "float32" or f"dtype {c.dtype}")
def refuses(problem):
    if problem.config.head_dim > 64:
        raise ac.Unsupported("there is no kernel for it")
    return evaluate(problem)


@ac.backend()
def crashes(problem):
    if problem.batch > 1:
        os.abort()
    return evaluate(problem)


@ac.backend()
def hangs(problem):
    time.sleep(1000)


@ac.backend()
def compiled(problem):
    return evaluate(problem)
