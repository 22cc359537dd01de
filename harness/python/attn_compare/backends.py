"""Functions as backends."""

import ctypes as ct
import functools
import inspect
import itertools
import os
import sys
import traceback

import numpy as np

from . import _abi, _types
from .arithmetic import Arithmetic
from .problem import Config, Problem

_REPLAY, _PADDED = 2, 4  # ATTN_MODE_...
_PADDING = {"zero": 0, "finite": 2}  # ATTN_PADDING_...; an array that is returned leaves nothing untouched
_STAGE_LSE, _STAGE_ATTN_OUT = 1 << _abi.STAGES.index("lse"), 1 << _abi.STAGES.index("attn_out")


class Unsupported(Exception):
    """Raised by a function for a problem that it does not take, with one line why."""


class _Planned:
    """What is kept from the first call of a plan to its last."""

    def __init__(self, function):
        self.function, self.first, self.recorded = function, None, None


class Backend:
    """A function under test: f(problem) returns out [tokens, num_heads, head_dim_v], or (out, lse)
    with lse [tokens, num_heads]. Call it like the function."""

    def __init__(self, function, name=None, supports=None, arithmetic=None, lse=None, configs=None,
                 graph=None, padding=None, queries=None):
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.supports = supports
        self.arithmetic = arithmetic or Arithmetic()
        self.returns_lse = lse
        self.configs = list(configs) if configs is not None else [None]
        if not self.configs:
            raise _abi.Error(f"backend {self.name}: configs is empty; leave it out")
        self.graph, self.queries = graph, queries
        self.padding = padding = "zero" if graph is not None and padding is None else padding
        if padding is not None and padding not in _PADDING:
            raise _abi.Error(f"backend {self.name}: padding=\"{padding}\" is none; known are "
                             f"{', '.join(_PADDING)}")
        self.interrupted = None
        self._plans, self._numbers = {}, itertools.count(1)
        self.chosen = None  # number of the only configuration to run, None: all in turn
        self.fixed = None  # the same, given with the backend's name
        self._takes_config = configs is not None
        self._calls = 0
        functools.update_wrapper(self, function)
        self._plugin = self._make_plugin()

    def __call__(self, *arguments, **words):
        return self.function(*arguments, **words)

    # ---- what the host asks ----

    def _make_plugin(self):
        plugin = _abi.Plugin()
        plugin.abi_major, plugin.abi_minor = 1, 3
        plugin.struct_size = ct.sizeof(_abi.Plugin)
        plugin.config_size = ct.sizeof(_abi.Config)
        plugin.call_size = ct.sizeof(_abi.Call)
        plugin.capability_size = ct.sizeof(_abi.Capability)
        self._bytes = self.name.encode(), (inspect.getdoc(self.function) or "").encode()
        plugin.name, plugin.summary = self._bytes
        plugin.create = _abi.Create(self._create)
        plugin.query = _abi.Query(self._query)
        plugin.plan = _abi.Plan(self._plan)
        plugin.run = _abi.Run(self._run)
        plugin.destroy_plan = _abi.DestroyPlan(self._destroy_plan)
        return plugin

    def _create(self, options, self_out, message):
        text = options.decode()
        self.chosen = self.fixed
        if not text:
            return _abi.OK
        if text.startswith("config=") and text[7:].isdigit() and int(text[7:]) < len(self.configs):
            self.chosen = int(text[7:])
            return _abi.OK
        _abi.write_message(message, f"\"{text}\": the only option is config=0 to "
                                    f"config={len(self.configs) - 1}")
        return _abi.ERROR

    def _query(self, _, config, capability, message):
        try:
            c = Config(config.contents)
            reason = self._reason(c)
            if reason:
                _abi.write_message(message, reason)
                return _abi.UNSUPPORTED
            arithmetic = self.arithmetic(c) if callable(self.arithmetic) else self.arithmetic
            arithmetic.fill(capability.contents, c.dtype)
            with_lse = self._returns_lse(c)
            capability.contents.stages = _STAGE_ATTN_OUT | (_STAGE_LSE if with_lse else 0)
            modes = _REPLAY if self.graph is not None else 0
            if self.padding is not None:
                modes |= _PADDED
                capability.contents.padding_rows = _PADDING[self.padding]
            capability.contents.modes = modes
            return _abi.OK
        except Exception as error:  # nothing may pass into C
            return self._fail(error, message)

    def _reason(self, c):
        if self.supports is None:
            return ""
        answer = self.supports(c)
        if answer is True or answer is None or answer == "":
            return ""
        return answer if isinstance(answer, str) else "supports() says no"

    def _returns_lse(self, c):
        return bool(self.returns_lse(c)) if callable(self.returns_lse) else self.returns_lse is not False

    def _plan(self, _, call, plan, workspace_bytes, message):
        number = next(self._numbers)
        self._plans[number] = _Planned(self._choose())
        plan[0] = number
        return _abi.OK

    def _destroy_plan(self, _, plan):
        self._plans.pop(plan, None)

    def _run(self, _, plan, call, message):
        try:
            self._run_into(call.contents, self._plans[plan])
            return _abi.OK
        except Unsupported as reason:
            _abi.write_message(message, reason)
            return _abi.UNSUPPORTED
        except SystemExit as error:
            _abi.write_message(message, f"{self.name} called sys.exit({error.code!r})")
            return _abi.ERROR
        except KeyboardInterrupt as error:
            self.interrupted = error  # for who called the host
            _abi.write_message(message, "interrupted")
            return _abi.ERROR
        except BaseException as error:  # nothing may pass into C
            return self._fail(error, message)

    def _run_into(self, call, planned):
        problem = Problem(call)
        self._require_queries(problem)
        result = self._evaluate(problem, planned)
        wants_lse = bool(call.lse)
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        if not 1 <= len(results) <= 2 or results[0] is None:
            raise _abi.Error(f"{self.name} returned {_described(result)}; wanted is out or (out, lse)")
        out, lse = results if len(results) == 2 else (results[0], None)
        if wants_lse and lse is None:
            raise _abi.Error(f"{self.name} returned no lse; declare @backend(..., lse=False)")
        self._write(call.attn_out.contents, out, "out")
        if wants_lse:
            self._write(call.lse.contents, lse, "lse")

    def _require_queries(self, problem):
        rows = np.diff(problem.row_offsets)
        end = len(rows)
        while end and self.padding is not None and rows[end - 1] == 0:
            end -= 1  # behind a padded batch
        if self.queries is not None and (rows[:end] != self.queries).any():
            raise Unsupported(f"only {self.queries} query rows in every sequence" if self.queries > 1
                              else "only one query row in every sequence")

    def _evaluate(self, problem, planned):
        """The first call of a plan is an ordinary one, which might stay the only one. Later ones launch
        what was recorded with the problem of the first."""
        if self.graph is None:
            return planned.function(problem)
        if planned.first is None:
            planned.first = problem.fixed()
            return planned.function(problem)
        if planned.recorded is None:
            planned.recorded = self.graph(planned.function, planned.first)
        return planned.recorded.replay(problem)

    def _choose(self):
        """The function, with one of its configurations where it has some."""
        if not self._takes_config:
            return self.function
        # Each case meets one configuration, so that none can pass for another; every one gets its
        # turn. A case is run twice: both with the same one.
        number = self.chosen if self.chosen is not None else self._calls // 2 % len(self.configs)
        self._calls += 1

        def chosen(problem):
            try:
                return self.function(problem, config=self.configs[number])
            except Exception as error:
                error.args = (f"config {number} ({self.configs[number]}): {error}",)
                raise

        return chosen

    def _write(self, tensor, array, what):
        target, declared = _types.view(tensor)
        if not hasattr(array, "__dlpack__") and not hasattr(array, "__array__"):
            raise _abi.Error(f"{self.name} returned {what} as {_described(array)}; wanted is an array of "
                             f"shape {list(target.shape)}")
        codes, name = _types.codes_of(array)
        if name != declared:
            raise _abi.Error(
                f"{self.name} returned {what} in {name}, declared is {declared}: say "
                f"Arithmetic({what}=\"{name}\") (or \"dtype\", the config's own)")
        if codes.shape != target.shape:
            if codes.size != target.size or codes.shape[:1] != target.shape[:1]:
                raise _abi.Error(f"{self.name} returned {what} of shape {list(codes.shape)}, "
                                 f"wanted is {list(target.shape)}")
            codes = codes.reshape(target.shape)
        target[...] = codes

    def _fail(self, error, message):
        _abi.write_message(message, f"{type(error).__name__}: {error}")
        if not isinstance(error, _abi.Error):
            traceback.print_exc(file=sys.stderr)
        if _breaks_the_device(error) and os.environ.get("ATTN_COMPARE_WORKER"):
            # The context is lost: whatever ran next in this process would fail too.
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(70)
        return _abi.ERROR


def _described(value):
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _breaks_the_device(error):
    text = str(error)
    return "CUDA error" in text or "CUDA_ERROR" in text or "illegal memory access" in text


def backend(name=None, *, supports=None, arithmetic=None, lse=None, configs=None, graph=None,
            padding=None, queries=None):
    """Makes a backend of a function f(problem) -> out or (out, lse).

    supports:   f(config) -> True, or a reason why not
    arithmetic: an Arithmetic, or f(config) -> Arithmetic
    lse:        False (or f(config) -> bool) when no lse is returned
    configs:    launch configurations of an autotuned kernel: f gets config=, and each case meets one
                of them, in turn; NAME:config=2 runs only the third
    graph:      for the modes graph and graph_replay: graph(f, problem) records a call of f and returns
                an object whose replay(problem) launches it with another problem in the same buffers
                and returns its results; TorchGraph is one
    padding:    for the mode padded: what f leaves in rows that no sequence owns: "zero" or "finite".
                With graph too (where it is "zero" unless given): replays have such rows and empty
                sequences
    queries:    how many query rows every sequence must have: 1 for a decode kernel
    """

    if callable(name):  # @backend without parentheses
        return Backend(name)

    def make(function):
        return Backend(function, name, supports, arithmetic, lse, configs, graph, padding, queries)

    return make


def as_backend(f):
    if not isinstance(f, Backend) and not callable(f):
        raise _abi.Error(f"a backend is a function of a problem, not {_described(f)}")
    return f if isinstance(f, Backend) else Backend(f, getattr(f, "__name__", type(f).__name__))
