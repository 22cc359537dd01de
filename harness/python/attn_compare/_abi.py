"""The C interface of attn_plugin.h and attn_compare.h as ctypes sees it."""

import ctypes as ct
import os
from pathlib import Path

MESSAGE_SIZE = 512
OK, UNSUPPORTED, ERROR = 0, 1, 2
NUM_STAGES = 13
STAGES = (
    "freqs_cis", "q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "q_rope", "k_rope", "cache_k",
    "cache_v", "lse", "attn_out", "out",
)


class DType(ct.Structure):
    _fields_ = [("code", ct.c_uint8), ("bits", ct.c_uint8), ("lanes", ct.c_uint16)]


class Tensor(ct.Structure):
    _fields_ = [
        ("data", ct.c_void_p), ("device_type", ct.c_int32), ("device_id", ct.c_int32),
        ("ndim", ct.c_int32), ("dtype", DType), ("shape", ct.POINTER(ct.c_int64)),
        ("strides", ct.POINTER(ct.c_int64)), ("byte_offset", ct.c_uint64),
    ]


class Config(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_uint32), ("mask", ct.c_int32), ("mask_align", ct.c_int32),
        ("has_sinks", ct.c_int32), ("dtype", DType), ("cache_dtype", DType),
        ("num_heads", ct.c_int64), ("num_kv_heads", ct.c_int64), ("head_dim", ct.c_int64),
        ("head_dim_v", ct.c_int64), ("page_size", ct.c_int64), ("window_size", ct.c_int64),
        ("chunk_size", ct.c_int64), ("scale", ct.c_double), ("softcap", ct.c_double),
        ("json", ct.c_char_p), ("entry_point", ct.c_int32), ("has_bias", ct.c_int32),
        ("stacked_qkv", ct.c_int32), ("use_qk_norm", ct.c_int32),
        ("rope_interleaved", ct.c_int32), ("rotary_last", ct.c_int32), ("quantised", ct.c_int32),
        ("reserved", ct.c_int32), ("hidden_size", ct.c_int64), ("rotary_dim", ct.c_int64),
        ("num_devices", ct.c_int64), ("rms_norm_eps", ct.c_double),
        ("clip_weights", ct.c_double), ("clip_activations", ct.c_double),
    ]


class Capability(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_uint32), ("stages", ct.c_uint32), ("out", DType), ("lse", DType),
        ("probabilities", DType), ("accumulator", ct.c_int32), ("lse_base", ct.c_int32),
        ("lse_layout", ct.c_int32), ("empty_rows", ct.c_int32), ("claims", ct.c_uint32),
        ("lse_from_rounded_probabilities", ct.c_int32), ("block", ct.c_int64),
        ("splits", ct.c_int64), ("lanes", ct.c_int64), ("exp_rel", ct.c_double),
        ("tensor_alignment", ct.c_uint64), ("first_step", ct.c_int32),
        ("projection_accumulator", ct.c_int32), ("store", DType), ("cos_sin", DType),
        ("norm_eps", DType), ("float32_frequencies", ct.c_int32), ("rope_native", ct.c_int32),
        ("round_twice", ct.c_int32), ("fused_cache", ct.c_int32), ("reserved", ct.c_int32),
        ("operand_roundoff", ct.c_double), ("scaling", DType), ("partial", DType),
        ("native_weights", ct.c_int32), ("layouts", ct.c_uint32), ("modes", ct.c_uint32),
        ("padding_rows", ct.c_int32),
    ]


class Weight(ct.Structure):
    _fields_ = [("name", ct.c_char_p), ("tensor", ct.POINTER(Tensor))]


TensorPointer = ct.POINTER(Tensor)


class Call(ct.Structure):
    _fields_ = [
        ("struct_size", ct.c_uint32), ("reserved", ct.c_uint32), ("config", ct.POINTER(Config)),
        ("batch", ct.c_int64), ("tokens", ct.c_int64), ("q", TensorPointer),
        ("k_cache", TensorPointer), ("v_cache", TensorPointer), ("k_scale", TensorPointer),
        ("v_scale", TensorPointer), ("page_table", TensorPointer), ("row_offsets", TensorPointer),
        ("key_lengths", TensorPointer), ("sinks", TensorPointer), ("mask", TensorPointer),
        ("attn_out", TensorPointer), ("lse", TensorPointer), ("workspace", ct.c_void_p),
        ("workspace_bytes", ct.c_size_t), ("stream", ct.c_void_p), ("x", TensorPointer),
        ("freqs_cis", TensorPointer), ("cached_lengths", TensorPointer),
        ("stages", ct.POINTER(TensorPointer)), ("weights", ct.POINTER(Weight)),
        ("num_weights", ct.c_int64),
    ]


Create = ct.CFUNCTYPE(ct.c_int, ct.c_char_p, ct.POINTER(ct.c_void_p), ct.c_void_p)
Destroy = ct.CFUNCTYPE(None, ct.c_void_p)
Query = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.POINTER(Config), ct.POINTER(Capability), ct.c_void_p)
Plan = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.POINTER(Call), ct.POINTER(ct.c_void_p),
                    ct.POINTER(ct.c_size_t), ct.c_void_p)
Run = ct.CFUNCTYPE(ct.c_int, ct.c_void_p, ct.c_void_p, ct.POINTER(Call), ct.c_void_p)
DestroyPlan = ct.CFUNCTYPE(None, ct.c_void_p, ct.c_void_p)


class Plugin(ct.Structure):
    _fields_ = [
        ("abi_major", ct.c_uint32), ("abi_minor", ct.c_uint32), ("struct_size", ct.c_uint32),
        ("config_size", ct.c_uint32), ("call_size", ct.c_uint32), ("capability_size", ct.c_uint32),
        ("name", ct.c_char_p), ("summary", ct.c_char_p), ("create", Create), ("destroy", Destroy),
        ("query", Query), ("plan", Plan), ("run", Run), ("destroy_plan", DestroyPlan),
    ]


Loader = ct.CFUNCTYPE(ct.c_void_p, ct.c_char_p, ct.c_void_p)


def write_message(address, text):
    """Puts one line into the host's message buffer."""
    data = " ".join(str(text).split()).encode("utf-8", "replace")[: MESSAGE_SIZE - 1]
    while data and data[-1] >= 0x80 and data.decode("utf-8", "ignore").encode() != data:
        data = data[:-1]  # no half character
    ct.memmove(address, data + b"\0", len(data) + 1)


def _places():
    named = os.environ.get("ATTN_COMPARE_LIBRARY")
    if named:
        return [Path(named)]
    here = Path(__file__).resolve().parent
    prefix = here / "../../../.."  # of an installation, which has share/attn_compare/python
    return [
        here / "_bin" / "libattn_compare.so",  # a wheel
        here / "../../bin/libattn_compare.so",  # a build folder
        *prefix.glob("lib*/libattn_compare.so"),
        *prefix.glob("lib/*/libattn_compare.so"),
    ]


_library = None


def library():
    """libattn_compare.so, loaded once. Raises ImportError that says where it was looked for."""
    global _library
    if _library is not None:
        return _library
    for place in _places():
        if place.is_file():
            lib = ct.CDLL(str(place))
            break
    else:
        raise ImportError(
            "libattn_compare.so was not found in " + ", ".join(str(p.parent) for p in _places())
            + "; build the target attn_compare, or set ATTN_COMPARE_LIBRARY to its file")
    signatures = {
        "attn_api_version": (ct.c_int, []),
        "attn_version": (ct.c_char_p, []),
        "attn_last_error": (ct.c_char_p, []),
        "attn_free_text": (None, [ct.c_void_p]),
        "attn_case_make": (ct.c_void_p, [ct.c_char_p, ct.c_uint64]),
        "attn_case_read": (ct.c_void_p, [ct.c_char_p, ct.c_uint64]),
        "attn_case_from": (ct.c_void_p, [ct.c_char_p, ct.POINTER(ct.c_char_p), TensorPointer,
                                         ct.c_int64, ct.c_uint64]),
        "attn_case_destroy": (None, [ct.c_void_p]),
        "attn_case_describe": (ct.c_void_p, [ct.c_void_p]),
        "attn_case_tensor": (TensorPointer, [ct.c_void_p, ct.c_char_p]),
        "attn_cases": (ct.c_void_p, [ct.c_char_p]),
        "attn_reference": (ct.c_void_p, [ct.c_void_p, ct.c_char_p]),
        "attn_trace_destroy": (None, [ct.c_void_p]),
        "attn_trace_stage": (TensorPointer, [ct.c_void_p, ct.c_char_p]),
        "attn_check": (ct.c_void_p, [ct.POINTER(Plugin), ct.c_void_p, ct.c_char_p]),
        "attn_golden_write": (ct.c_int, [ct.c_void_p, ct.c_char_p, ct.c_char_p]),
        "attn_worker": (None, [Loader, ct.c_uint64]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    if lib.attn_api_version() != 1:
        raise ImportError(f"{place} has interface {lib.attn_api_version()}, this package needs 1")
    _library = lib
    return lib


class Error(Exception):
    """What attn-compare refuses; one line."""


def last_error():
    return Error(library().attn_last_error().decode("utf-8", "replace"))


def take_text(address):
    """The text that a function returned, given back to it. Raises Error for NULL."""
    if not address:
        raise last_error()
    try:
        return ct.string_at(address).decode("utf-8", "replace")
    finally:
        library().attn_free_text(address)
