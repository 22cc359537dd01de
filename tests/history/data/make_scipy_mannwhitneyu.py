#!/usr/bin/env python3
"""Writes scipy_mannwhitneyu.json beside it: what SciPy's mannwhitneyu says of samples drawn here.

    /usr/bin/python3 tests/history/data/make_scipy_mannwhitneyu.py
"""
import json
import os

import numpy as np
import scipy
from scipy.stats import mannwhitneyu

rng = np.random.default_rng(20261129)
cases = []


def add(name, a, b, method):
    u, p = mannwhitneyu(a, b, alternative="two-sided", method=method)
    cases.append({"name": name, "method": method, "a": list(map(float, a)),
                  "b": list(map(float, b)), "u": float(u), "p": float(p)})


for n, m, shift in [(3, 4, 0), (15, 15, 0), (15, 15, 1), (20, 15, 0.5), (40, 40, 0.3), (50, 50, 2),
                    (1, 50, 0)]:
    add(f"normal {n} {m} {shift}", rng.normal(size=n), rng.normal(size=m) + shift, "exact")
for n, m, shift in [(60, 60, 0), (60, 55, 0.3), (200, 30, 0.2)]:
    add(f"large {n} {m} {shift}", rng.normal(size=n), rng.normal(size=m) + shift, "asymptotic")
for n, m, shift in [(15, 15, 0), (15, 15, 1), (20, 30, 1), (100, 100, 1)]:
    add(f"ties {n} {m} {shift}", rng.integers(0, 6, size=n), rng.integers(0, 6, size=m) + shift,
        "asymptotic")
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scipy_mannwhitneyu.json")
with open(path, "w", encoding="utf-8") as file:
    json.dump({"source": f"scipy.stats.mannwhitneyu of SciPy {scipy.__version__}", "cases": cases}, file,
              indent=1)
    file.write("\n")
