"""DLPack by ctypes: numpy's own has no bfloat16 and no 8-bit floats, and before numpy 2.1 it reads
only what came before DLPack's version 1. The structures are those of dlpack.h, whose DLTensor is
_abi.Tensor byte for byte."""

import ctypes as ct

import numpy as np

from . import _abi

CPU = (1, 0)
IN_HOST_MEMORY = {1: "cpu", 3: "cuda_host", 11: "rocm_host"}
_ELSEWHERE = {2: "cuda", 4: "opencl", 7: "vulkan", 8: "metal", 10: "rocm", 13: "cuda_managed",
              14: "oneapi"}
VERSION = (1, 0)  # of what is made here; any minor version is read
_READ_ONLY, _IS_COPIED = 1, 2


class _Managed(ct.Structure):
    """Of before version 1: capsules named "dltensor"."""


class _ManagedVersioned(ct.Structure):
    """Since version 1: capsules named "dltensor_versioned"."""


_Deleter = ct.CFUNCTYPE(None, ct.c_void_p)
_Managed._fields_ = [("tensor", _abi.Tensor), ("context", ct.c_void_p), ("deleter", ct.c_void_p)]
_ManagedVersioned._fields_ = [
    ("major", ct.c_uint32), ("minor", ct.c_uint32), ("context", ct.c_void_p),
    ("deleter", ct.c_void_p), ("flags", ct.c_uint64), ("tensor", _abi.Tensor),
]
_KINDS = {b"dltensor": _Managed, b"dltensor_versioned": _ManagedVersioned}
_USED = {b"dltensor": b"used_dltensor", b"dltensor_versioned": b"used_dltensor_versioned"}


def _python(name, result, *arguments):
    return ct.PYFUNCTYPE(result, *arguments)((name, ct.pythonapi))


# Capsules are handed as addresses: the destructor of one must not make references to it.
_capsule_new = _python("PyCapsule_New", ct.py_object, ct.c_void_p, ct.c_char_p, ct.c_void_p)
_capsule_name = _python("PyCapsule_GetName", ct.c_char_p, ct.c_void_p)
_capsule_pointer = _python("PyCapsule_GetPointer", ct.c_void_p, ct.c_void_p, ct.c_char_p)
_capsule_rename = _python("PyCapsule_SetName", ct.c_int, ct.c_void_p, ct.c_char_p)


# ---- what a kernel returns ----


class _Taken:
    """Memory that a producer lent; given back, once, when the last array over it is gone."""

    def __init__(self, address, managed):
        self._address, self._deleter = address, managed.deleter

    def __del__(self):
        deleter, self._deleter = self._deleter, None
        if deleter:
            _Deleter(deleter)(self._address)


def device_text(device):
    kind, number = int(device[0]), int(device[1])
    return f"{(IN_HOST_MEMORY | _ELSEWHERE).get(kind, f'device type {kind}')}:{number}"


def _elsewhere(device):
    return _abi.Error(f"a result lies on {device_text(device)}, not in host memory; return a copy "
                      "that does")


def _request(thing):
    """A capsule of the object in host memory, where the object can be asked for that."""
    device = tuple(thing.__dlpack_device__())
    here = int(device[0]) in IN_HOST_MEMORY
    words = {"max_version": VERSION} if here else {"max_version": VERSION, "dl_device": CPU}
    try:
        return thing.__dlpack__(**words)
    except TypeError:  # a producer of before version 1 knows no such words
        if here:
            return thing.__dlpack__()
    except BufferError as error:
        if here:
            raise _abi.Error(f"{type(thing).__name__}.__dlpack__: {error}") from None
    raise _elsewhere(device)


def take(thing):
    """(codes, DLPack's type as (code, bits)) of an object with __dlpack__, without a copy. Of types
    that numpy lacks the codes are unsigned integers."""
    capsule = _request(thing)
    if type(capsule).__name__ != "PyCapsule":
        raise _abi.Error(f"{type(thing).__name__}.__dlpack__ returned no capsule, but a "
                         f"{type(capsule).__name__}")
    name = _capsule_name(id(capsule))
    if name not in _KINDS:
        raise _abi.Error(f"{type(thing).__name__}.__dlpack__ returned a capsule named "
                         f"\"{(name or b'').decode()}\", which is used up or none of DLPack")
    address = _capsule_pointer(id(capsule), name)
    managed = _KINDS[name].from_address(address)
    # Whatever its minor version; of another major one only the version itself has a meaning.
    if name == b"dltensor_versioned" and managed.major != VERSION[0]:
        raise _abi.Error(f"{type(thing).__name__} gives DLPack {managed.major}.{managed.minor}; "
                         f"this package reads {VERSION[0]}.x and what was before")
    _capsule_rename(id(capsule), _USED[name])
    owner = _Taken(address, managed)
    read_only = name == b"dltensor_versioned" and bool(managed.flags & _READ_ONLY)
    return _array(managed.tensor, owner, read_only)


def _array(tensor, owner, read_only):
    kind = (tensor.dtype.code, tensor.dtype.bits)
    device = (tensor.device_type, tensor.device_id)
    if device[0] not in IN_HOST_MEMORY:
        raise _elsewhere(device)
    if tensor.dtype.lanes != 1 or kind[1] % 8:
        raise _abi.Error(f"a result has DLPack's type {kind[0]} of {kind[1]} bits in "
                         f"{tensor.dtype.lanes} lanes; known are types of whole bytes in one lane")
    dtype = np.dtype({0: "i", 2: "f"}.get(kind[0], "u") + str(kind[1] // 8))
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if 0 in shape:
        return np.empty(shape, dtype), kind
    strides = None
    if tensor.strides:
        strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
    owner.__array_interface__ = {
        "version": 3, "shape": shape, "strides": strides, "typestr": dtype.str,
        "data": (tensor.data + tensor.byte_offset, read_only)}
    return np.asarray(owner), kind


# ---- what a kernel is given ----

# A managed tensor with its shape and strides is one block of C's heap and its deleter is C's free():
# consumers call deleters while an exception is on its way, without the interpreter's lock, or after
# its end, and none of that is a place for a function in Python.
_c = ct.CDLL(None)
_c.malloc.restype, _c.malloc.argtypes = ct.c_void_p, [ct.c_size_t]
_FREE = ct.cast(_c.free, ct.c_void_p).value
_ALIGNMENT = 64


class Lent:
    """A tensor for any library that reads DLPack: np.from_dlpack(x), torch.from_dlpack(x), ... It is
    the harness's memory, not a copy: valid as long as the call that it was given to, and not to be
    written.

    codes: an array of the codes; kind: DLPack's (code, bits); copied: every reader gets a copy of
    its own
    """

    def __init__(self, codes, kind, read_only=True, copied=False):
        self.codes, self.kind, self.read_only, self.copied = codes, kind, read_only, copied

    @property
    def shape(self):
        return self.codes.shape

    def __dlpack_device__(self):
        return CPU

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """A capsule of version 1 where max_version allows for it. One of before cannot say that it is
        read-only: whoever writes there is found out by the harness."""
        if stream is not None:
            raise BufferError("memory of the host belongs to no stream")
        if dl_device is not None and tuple(map(int, dl_device)) != CPU:
            raise BufferError(f"the tensor lies in host memory, not on {device_text(dl_device)}")
        versioned = max_version is not None and max_version[0] >= 1
        name = next(k for k in _KINDS if (k == b"dltensor_versioned") == versioned)
        managed = self._managed(_KINDS[name], bool(copy or self.copied))
        # The capsule keeps the name by its address, which lives as long as the module. One that
        # nobody takes leaves the block to the process.
        return _capsule_new(ct.addressof(managed), name, None)

    def _managed(self, form, copied):
        codes, ndim = self.codes, self.codes.ndim
        if copied:
            codes = np.ascontiguousarray(codes)
        head = ct.sizeof(form) + 2 * ndim * ct.sizeof(ct.c_int64)
        head += -head % _ALIGNMENT
        address = _c.malloc(head + (codes.nbytes + _ALIGNMENT if copied else 0))
        if not address:
            raise MemoryError(f"{head + codes.nbytes} bytes for a tensor")
        managed = form.from_address(address)
        ct.memset(address, 0, head)
        tensor, data = managed.tensor, codes.ctypes.data
        if copied:
            data = address + head + -(address + head) % _ALIGNMENT
            ct.memmove(data, codes.ctypes.data, codes.nbytes)
        tensor.data, tensor.device_type, tensor.ndim = data, CPU[0], ndim
        tensor.dtype = _abi.DType(*self.kind, 1)
        numbers = (ct.c_int64 * (2 * ndim)).from_address(address + ct.sizeof(form))
        numbers[:] = [*codes.shape, *(s // codes.itemsize for s in codes.strides)]
        tensor.shape = ct.cast(numbers, ct.POINTER(ct.c_int64))
        tensor.strides = ct.cast(ct.addressof(numbers) + 8 * ndim, ct.POINTER(ct.c_int64))
        managed.deleter = _FREE
        if form is _ManagedVersioned:
            managed.major, managed.minor = VERSION
            managed.flags = _IS_COPIED if copied else _READ_ONLY if self.read_only else 0
        return managed
