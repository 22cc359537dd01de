"""Peers in numpy that behave as peers do: right, wrong, narrow, refusing, raising, crashing, hanging, not here."""

import os
import time

import attn_compare as ac

from planted import evaluate

EAGER = ["good", "buggy", "refuses", "raises", "crashes", "hangs", "absent"]
COMPILED = ["compiled"]
LISTED = {"refuses": ["a-page"]}
LIBRARIES = {"good": "numpy", "buggy": "numpy", "refuses": "numpy", "raises": "numpy", "crashes": "numpy",
             "hangs": "numpy", "absent": "numpy", "compiled": "numpy", "two_keys": "numpy", "no_plan": "numpy"}


@ac.backend()
def good(problem):
    return evaluate(problem)


@ac.backend()
def buggy(problem):
    return evaluate(problem, scale=1.01)


@ac.backend()
def refuses(problem):
    if problem.batch > 1:
        raise ac.Unsupported("there is no kernel for it")
    return evaluate(problem)


@ac.backend()
def raises(problem):
    if problem.batch > 1:
        raise RuntimeError("no room for its tiles")
    return evaluate(problem)


@ac.backend()
def crashes(problem):
    if problem.batch > 1:
        os.abort()
    return evaluate(problem)


@ac.backend()
def hangs(problem):
    if problem.batch > 2:
        time.sleep(1000)
    return evaluate(problem)


@ac.backend()
def compiled(problem):
    return evaluate(problem)


def _narrow(c):
    if c.entry_point == "materialize_kv_from_hidden":
        return "no attention"
    return next((word for wrong, word in [
        (c.dtype != "bfloat16" or c.cache_dtype != c.dtype, "its types"), (c.softcap != 0, "softcap"),
        (c.head_dim != c.head_dim_v, "head_dim_v")] if wrong), "")


@ac.backend(supports=_narrow)
def two_keys(problem):
    """As cuDNN's attention in torch, which has no kernel for a sequence of one key."""
    if 1 in problem.key_lengths:
        raise ac.Unsupported("one key")
    return evaluate(problem)


@ac.backend(supports=_narrow)
def no_plan(problem):
    raise ac.Unsupported("no plan was found")
