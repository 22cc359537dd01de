"""Element types: names, DLPack codes, numpy views and decoding to float32."""

import ctypes as ct
import sys

import numpy as np

from . import _abi, _dlpack

# name: (DLPack code, bits, numpy type of the codes)
_TYPES = {
    "float64": (2, 64, np.float64), "float32": (2, 32, np.float32), "float16": (2, 16, np.float16),
    "bfloat16": (4, 16, np.uint16), "float8_e4m3fn": (10, 8, np.uint8),
    "float8_e4m3fnuz": (11, 8, np.uint8), "float8_e5m2": (12, 8, np.uint8),
    "float8_e8m0fnu": (14, 8, np.uint8), "int64": (0, 64, np.int64), "int32": (0, 32, np.int32),
    "uint32": (1, 32, np.uint32), "uint8": (1, 8, np.uint8),
}
_NAMES = {(code, bits): name for name, (code, bits, _) in _TYPES.items()}


def dlpack(name):
    """DLPack's numbers of a type's name; "" or None: not declared."""
    if not name:
        return _abi.DType(0, 0, 0)
    if name not in _TYPES:
        raise _abi.Error(f"\"{name}\" is no element type; known: {', '.join(_TYPES)}")
    code, bits, _ = _TYPES[name]
    return _abi.DType(code, bits, 1)


def kind_of(name):
    """DLPack's (code, bits) of a type's name, of numpy's truth values too."""
    return (6, 8) if name == "bool" else _TYPES[name][:2]


def name_of(dtype):
    return _NAMES[(dtype.code, dtype.bits)]


def code_type(name):
    """The numpy type that holds a type's codes: bfloat16 is uint16, the 8-bit floats are uint8."""
    return np.dtype(_TYPES[name][2])


def view(tensor):
    """A numpy view of the codes of a C tensor, with its strides."""
    name = name_of(tensor.dtype)
    dtype = code_type(name)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.ndim))
    if 0 in shape:
        return np.empty(shape, dtype), name
    span = dtype.itemsize + sum((n - 1) * s for n, s in zip(shape, strides))
    address = tensor.data + tensor.byte_offset
    buffer = (ct.c_char * span).from_address(address)
    return np.ndarray(shape, dtype, buffer, 0, strides), name


def _fp8_table(exponent_bits, bias, finite_only):
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(256)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    value = np.where(exponent == 0, mantissa * 2.0 ** (1 - bias),
                     (1 + mantissa) * 2.0 ** (exponent - float(bias)))
    value = sign * value
    top = exponent == (1 << exponent_bits) - 1
    if finite_only:
        value[(codes & 0x7F) == 0x7F] = np.nan
    else:
        value = np.where(top, np.where(mantissa == 0, sign * np.inf, np.nan), value)
    return value.astype(np.float32)


_FP8 = {
    "float8_e4m3fn": _fp8_table(4, 7, True),
    "float8_e5m2": _fp8_table(5, 15, False),
}


def decode(codes, name):
    """The values of an array of codes: float32 for the types that numpy does not have."""
    if name == "bfloat16":
        return (codes.astype(np.uint32) << 16).view(np.float32)
    if name in _FP8:
        return _FP8[name][codes]
    if name == "float8_e4m3fnuz":
        table = _fp8_table(4, 8, True)
        table[0x7F] = 240.0
        table[0xFF] = -240.0
        table[0x80] = np.nan
        return table[codes]
    if name == "float8_e8m0fnu":
        return np.where(codes == 255, np.nan, 2.0 ** (codes.astype(np.float32) - 127))
    return np.array(codes)


def codes_of(array):
    """(codes as a numpy array, type name) of what a kernel returned: a numpy array, or anything with
    __dlpack__ (torch, JAX, CuPy, ...). Copied only where it is not in host memory."""
    if not isinstance(array, np.ndarray) and hasattr(array, "__dlpack__"):
        array, name = _on_host(array)
        if name:
            return array, name
    if not isinstance(array, np.ndarray) and hasattr(array, "__dlpack__"):
        codes, kind = _dlpack.take(array)
        if kind not in _NAMES:
            raise _abi.Error(f"a result has DLPack's type {kind[0]} of {kind[1]} bits; known: "
                             f"{', '.join(_TYPES)}")
        return codes.view(code_type(_NAMES[kind])), _NAMES[kind]
    if not isinstance(array, np.ndarray):
        array = np.asarray(array)
    name = array.dtype.name
    if name not in _TYPES:
        raise _abi.Error(f"a result has type {name}; known: {', '.join(_TYPES)}")
    if array.dtype != code_type(name):  # ml_dtypes
        array = np.ascontiguousarray(array).view(code_type(name))
    return array, name


def _on_host(array):
    """(array, "") without what keeps a framework's tensor from giving its memory: gradients, another
    device; or (codes, type name) where its DLPack does not know its type."""
    array = array.detach() if hasattr(array, "detach") else array
    if int(array.__dlpack_device__()[0]) not in _dlpack.IN_HOST_MEMORY:
        for copy in ("cpu", "get"):  # torch; CuPy
            if callable(getattr(array, copy, None)):
                return _on_host(getattr(array, copy)())
        if hasattr(array, "__array__"):  # JAX
            return np.asarray(array), ""
    name = str(getattr(array, "dtype", "")).removeprefix("torch.")
    torch = sys.modules.get("torch")  # there, where the array is one of its
    if torch is not None and isinstance(array, torch.Tensor) and name.startswith("float8"):
        return array.contiguous().view(torch.uint8).numpy(), name
    return array, ""


def c_tensor(array, name=None):
    """A C tensor of a dense copy, and what must stay alive as long as it."""
    codes, own = codes_of(array)
    codes = np.require(codes, requirements=["C", "A"])
    tensor = _abi.Tensor()
    shape = (ct.c_int64 * codes.ndim)(*codes.shape)
    strides = (ct.c_int64 * codes.ndim)(*(s // codes.itemsize for s in codes.strides))
    tensor.data = codes.ctypes.data
    tensor.device_type = 1
    tensor.ndim = codes.ndim
    tensor.dtype = dlpack(name or own)
    tensor.shape = ct.cast(shape, ct.POINTER(ct.c_int64))
    tensor.strides = ct.cast(strides, ct.POINTER(ct.c_int64))
    return tensor, (codes, shape, strides)
