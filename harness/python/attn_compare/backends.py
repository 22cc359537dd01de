"""Functions as backends."""

import ctypes as ct
import functools
import inspect
import os
import sys
import traceback


from . import _abi, _types
from .arithmetic import Arithmetic
from .problem import Config, Problem

_STAGE_LSE, _STAGE_ATTN_OUT = 1 << _abi.STAGES.index("lse"), 1 << _abi.STAGES.index("attn_out")


class Unsupported(Exception):
    """Raised by a function for a problem that it does not take, with one line why."""


class Backend:
    """A function under test: f(problem) returns out [tokens, num_heads, head_dim_v], or (out, lse)
    with lse [tokens, num_heads]. Call it like the function."""

    def __init__(self, function, name=None, supports=None, arithmetic=None, lse=None, configs=None):
        self.function = function
        self.name = name or function.__name__
        self.supports = supports
        self.arithmetic = arithmetic or Arithmetic()
        self.returns_lse = lse
        self.configs = list(configs) if configs is not None else [None]
        if not self.configs:
            raise _abi.Error(f"backend {self.name}: configs is empty; leave it out")
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
        plugin.abi_major, plugin.abi_minor = 1, 2
        plugin.struct_size = ct.sizeof(_abi.Plugin)
        plugin.config_size = ct.sizeof(_abi.Config)
        plugin.call_size = ct.sizeof(_abi.Call)
        plugin.capability_size = ct.sizeof(_abi.Capability)
        self._bytes = self.name.encode(), (inspect.getdoc(self.function) or "").encode()
        plugin.name, plugin.summary = self._bytes
        plugin.create = _abi.Create(self._create)
        plugin.query = _abi.Query(self._query)
        plugin.run = _abi.Run(self._run)
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

    def _run(self, _, plan, call, message):
        try:
            self._run_into(call.contents)
            return _abi.OK
        except Unsupported as reason:
            _abi.write_message(message, reason)
            return _abi.UNSUPPORTED
        except Exception as error:
            return self._fail(error, message)

    def _run_into(self, call):
        problem = Problem(call)
        result = self._evaluate(problem)
        wants_lse = bool(call.lse)
        out, lse = result if isinstance(result, (tuple, list)) else (result, None)
        if wants_lse and lse is None:
            raise _abi.Error(f"{self.name} returned no lse; declare @backend(..., lse=False)")
        self._write(call.attn_out.contents, out, "out")
        if wants_lse:
            self._write(call.lse.contents, lse, "lse")

    def _evaluate(self, problem):
        if not self._takes_config:
            return self.function(problem)
        # Each case meets one configuration, so that none can pass for another; every one gets its
        # turn. A case is run twice: both with the same one.
        number = self.chosen if self.chosen is not None else self._calls // 2 % len(self.configs)
        self._calls += 1
        try:
            return self.function(problem, config=self.configs[number])
        except Exception as error:
            error.args = (f"config {number} ({self.configs[number]}): {error}",)
            raise

    def _write(self, tensor, array, what):
        target, declared = _types.view(tensor)
        codes, name = _types.codes_of(array)
        if name != declared:
            raise _abi.Error(
                f"{self.name} returned {what} in {name}, declared is {declared}: say "
                f"Arithmetic({what}=\"{name}\") (or \"dtype\", the config's own)")
        if codes.shape != target.shape:
            if codes.size != target.size or codes.shape[0] != target.shape[0]:
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


def _breaks_the_device(error):
    text = str(error)
    return "CUDA error" in text or "CUDA_ERROR" in text or "illegal memory access" in text


def backend(name=None, *, supports=None, arithmetic=None, lse=None, configs=None):
    """Makes a backend of a function f(problem) -> out or (out, lse).

    supports:   f(config) -> True, or a reason why not
    arithmetic: an Arithmetic, or f(config) -> Arithmetic
    lse:        False (or f(config) -> bool) when no lse is returned
    configs:    launch configurations of an autotuned kernel: f gets config=, and each case meets one
                of them, in turn; NAME:config=2 runs only the third
    """

    def make(function):
        return Backend(function, name, supports, arithmetic, lse, configs)

    return make


def as_backend(f):
    return f if isinstance(f, Backend) else Backend(f)
