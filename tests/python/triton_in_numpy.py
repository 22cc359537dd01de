"""As much of Triton as the example uses, one program after the other in numpy: its arithmetic can be
held against the reference where there is no device. It is no proof that Triton compiles the kernel."""

import itertools
import sys
import types

import numpy as np


class Values(np.ndarray):
    def to(self, dtype):
        return self.astype(dtype)


class Memory:
    """A dense tensor, as a kernel and the host see it."""

    def __init__(self, array):
        self.array, self.flat = array, array.reshape(-1)
        self.shape = array.shape

    def float(self):
        return Memory(self.array.astype(np.float32))

    def clone(self):
        return Memory(self.array.copy())

    def __add__(self, index):
        return Pointer(self.flat, np.asarray(index))


class Pointer:
    def __init__(self, flat, index):
        self.flat, self.index = flat, index

    def __add__(self, more):
        return Pointer(self.flat, self.index + more)


class Kernel:
    at = ()

    def __init__(self, function):
        self.function = function

    def __getitem__(self, grid):
        def launch(*arguments, **words):
            for Kernel.at in itertools.product(*map(range, grid)):
                self.function(*arguments, **words)

        return launch


def load(pointer, mask=None, other=None):
    index = pointer.index
    if mask is not None:
        mask = np.broadcast_to(mask, index.shape)
        values = np.where(mask, pointer.flat[np.where(mask, index, 0)], other)
        return values.astype(pointer.flat.dtype).view(Values)
    assert index.min() >= 0  # numpy would count from the end
    return np.asarray(pointer.flat[index]).view(Values)


def store(pointer, values):
    pointer.flat[pointer.index] = values


def install():
    """The modules triton and triton.language."""
    language = types.ModuleType("triton.language")
    language.__dict__.update(
        constexpr=int, float32=np.float32, int64=np.int64, load=load, store=store, where=np.where,
        exp=np.exp, maximum=np.maximum, program_id=lambda axis: Kernel.at[axis],
        arange=lambda first, last: np.arange(first, last, dtype=np.int32),
        zeros=lambda shape, dtype: np.zeros(shape, dtype), cdiv=lambda a, b: -(-int(a) // b),
        sum=lambda x, axis: np.sum(x, axis, dtype=x.dtype), max=lambda x, axis: np.max(x, axis))
    triton = types.ModuleType("triton")
    triton.jit, triton.language = Kernel, language
    sys.modules.update({"triton": triton, "triton.language": language})


class Tensors:
    """What problem.to("torch", "cuda") gives, in numpy."""

    def __init__(self, problem):
        self.problem = problem

    def to(self, framework, device):
        assert (framework, device) == ("torch", "cuda")
        return self

    def __getattr__(self, name):
        value = getattr(self.problem, name.removesuffix("_device"))
        if name in ("q", "k_cache", "v_cache"):
            return Memory(np.ascontiguousarray(value))
        return Memory(value.astype(np.int32)) if name.endswith("_device") else value
