"""DLPack both ways, against producers and consumers written here from dlpack.h alone."""

import ctypes as ct
import gc

import numpy as np
import pytest

import attn_compare as ac
from attn_compare import _types

import planted


class DataType(ct.Structure):
    _fields_ = [("code", ct.c_uint8), ("bits", ct.c_uint8), ("lanes", ct.c_uint16)]


class DLTensor(ct.Structure):
    _fields_ = [("data", ct.c_void_p), ("device_type", ct.c_int32), ("device_id", ct.c_int32),
                ("ndim", ct.c_int32), ("dtype", DataType), ("shape", ct.POINTER(ct.c_int64)),
                ("strides", ct.POINTER(ct.c_int64)), ("byte_offset", ct.c_uint64)]


class Old(ct.Structure):
    _fields_ = [("tensor", DLTensor), ("context", ct.c_void_p), ("deleter", ct.c_void_p)]


class New(ct.Structure):
    _fields_ = [("major", ct.c_uint32), ("minor", ct.c_uint32), ("context", ct.c_void_p),
                ("deleter", ct.c_void_p), ("flags", ct.c_uint64), ("tensor", DLTensor)]


Deleter = ct.CFUNCTYPE(None, ct.c_void_p)
new_capsule = ct.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ct.py_object, [ct.c_void_p, ct.c_char_p, ct.c_void_p]
pointer_of = ct.pythonapi.PyCapsule_GetPointer
pointer_of.restype, pointer_of.argtypes = ct.c_void_p, [ct.py_object, ct.c_char_p]
name_of = ct.pythonapi.PyCapsule_GetName
name_of.restype, name_of.argtypes = ct.c_char_p, [ct.py_object]
rename = ct.pythonapi.PyCapsule_SetName
rename.restype, rename.argtypes = ct.c_int, [ct.py_object, ct.c_char_p]
NAMES = {Old: b"dltensor", New: b"dltensor_versioned"}
USED = {Old: b"used_dltensor", New: b"used_dltensor_versioned"}
LENT = set()  # producers whose memory a consumer has


class Made:
    """A foreign tensor: `codes` seen as [shape] with these strides (elements), from an offset."""

    def __init__(self, codes, kind, shape=None, strides=None, offset=0, form=Old, flags=0, major=1,
                 device=(1, 0), null_strides=False, lanes=1, copies=None):
        self.codes = np.ascontiguousarray(codes)
        self.kind, self.form, self.flags, self.major = kind, form, flags, major
        self.device, self.lanes, self.null_strides, self.copies = device, lanes, null_strides, copies
        self.dims = codes.shape if shape is None else shape
        self.steps = strides or tuple(s // codes.itemsize for s in self.codes.strides)
        self.offset, self.deleted, self.asked = offset, 0, []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **words):
        self.asked.append(words)
        if self.form is Old and words:
            raise TypeError("unexpected words")
        if words.get("dl_device") and self.copies is not None:
            return self.copies.__dlpack__()
        self.managed = self.form()
        if self.form is New:
            self.managed.major, self.managed.flags = self.major, self.flags
        t = self.managed.tensor
        t.data, (t.device_type, t.device_id) = self.codes.ctypes.data, self.device
        t.ndim, t.dtype, t.byte_offset = len(self.dims), DataType(*self.kind, self.lanes), self.offset
        self.shape = (ct.c_int64 * len(self.dims))(*self.dims)
        self.strides = (ct.c_int64 * len(self.dims))(*self.steps)
        t.shape = ct.cast(self.shape, ct.POINTER(ct.c_int64))
        if not self.null_strides:
            t.strides = ct.cast(self.strides, ct.POINTER(ct.c_int64))
        self.deleter = Deleter(self.delete)
        self.managed.deleter = ct.cast(self.deleter, ct.c_void_p)
        LENT.add(self)
        return new_capsule(ct.addressof(self.managed), NAMES[self.form], None)

    def delete(self, address):
        assert address == ct.addressof(self.managed)
        self.deleted += 1
        LENT.discard(self)


class Consumer:
    """Takes a capsule as a library does; close() gives the memory back."""

    def __init__(self, capsule):
        self.form = {name: form for form, name in NAMES.items()}[name_of(capsule)]
        self.address = pointer_of(capsule, NAMES[self.form])
        self.managed = self.form.from_address(self.address)
        rename(capsule, USED[self.form])

    def close(self):
        Deleter(self.managed.deleter)(self.address)


FORMS = pytest.mark.parametrize("form", [Old, New], ids=["before 1", "version 1"])
BF16, F32, E4M3 = (4, 16), (2, 32), (10, 8)


def narrow(values):
    """bfloat16 codes, rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@FORMS
def test_an_output_is_any_dlpack_object(form):
    spec = ac.attention(4, 2, 16, dtype="bfloat16", rows=[(3, 20)])
    made = []

    def foreign(problem):
        out, lse = planted.evaluate(problem)
        made.extend([Made(narrow(out), BF16, form=form), Made(lse, F32, form=form)])
        return made[-2], made[-1]

    backend = ac.Backend(foreign, arithmetic=ac.Arithmetic(out="bfloat16"))
    report = ac.check(backend, spec)
    assert report.passed, str(report)
    gc.collect()
    assert [m.deleted for m in made] == [1] * 4  # two tensors in two calls


@FORMS
def test_strides_and_offset_are_followed_without_a_copy(form):
    base = np.arange(100, dtype=np.float32)
    made = Made(base, F32, (3, 2, 4), (10, 1, 2), 5 * 4, form)
    array, name = _types.codes_of(made)
    assert name == "float32" and array.ctypes.data == made.codes.ctypes.data + 20
    i, j, k = np.indices((3, 2, 4))
    assert np.array_equal(array, 5.0 + 10 * i + j + 2 * k)
    made.codes[5] = -1
    assert array[0, 0, 0] == -1
    backwards, _ = _types.codes_of(Made(base, F32, (4,), (-3,), 50 * 4, form))
    assert backwards.tolist() == [50, 47, 44, 41]
    same, _ = _types.codes_of(Made(base, F32, (5, 2), (0, 1), 0, form))
    assert np.array_equal(same, np.tile([0.0, 1.0], (5, 1)))
    dense, _ = _types.codes_of(Made(base[:6], F32, (2, 3), (), 0, form, null_strides=True))
    assert np.array_equal(dense, base[:6].reshape(2, 3))


@FORMS
def test_the_deleter_is_called_once_when_the_last_view_is_gone(form):
    made = Made(np.zeros(4, np.float32), F32, form=form)
    array, _ = _types.codes_of(made)
    part = array[1:]
    del array
    gc.collect()
    assert made.deleted == 0
    del part
    gc.collect()
    assert made.deleted == 1
    empty = Made(np.zeros((0, 4), np.float32), F32, form=form)
    assert _types.codes_of(empty)[0].shape == (0, 4)
    gc.collect()
    assert empty.deleted == 1


def test_read_only_memory_stays_so():
    assert not _types.codes_of(Made(np.ones(3, np.float32), F32, form=New, flags=1))[0].flags.writeable
    assert _types.codes_of(Made(np.ones(3, np.float32), F32, form=New))[0].flags.writeable


@pytest.mark.parametrize("name, kind", [("bfloat16", BF16), ("float8_e4m3fn", E4M3),
                                        ("float8_e5m2", (12, 8)), ("float8_e4m3fnuz", (11, 8))])
def test_types_that_numpy_lacks_come_as_codes(name, kind):
    codes = np.arange(5, dtype=np.uint16 if kind == BF16 else np.uint8)
    array, own = _types.codes_of(Made(codes, kind))
    assert own == name and array.dtype == codes.dtype and np.array_equal(array, codes)


@pytest.mark.parametrize("words, message", [
    ({"device": (2, 1)}, "a result lies on cuda:1, not in host memory; return a copy that does"),
    ({"device": (99, 0), "form": New}, "a result lies on device type 99:0"),
    ({"kind": (5, 64)}, "a result has DLPack's type 5 of 64 bits; known: float64"),
    ({"kind": (17, 4)}, "a result has DLPack's type 17 of 4 bits in 1 lanes"),
    ({"lanes": 4}, "a result has DLPack's type 2 of 32 bits in 4 lanes"),
    ({"form": New, "major": 2}, "Made gives DLPack 2.0; this package reads 1.x"),
])
def test_what_cannot_be_taken_is_one_line(words, message):
    made = Made(np.zeros(4, np.float32), **{"kind": F32, **words})
    backend = ac.Backend(lambda problem: made, "foreign", lse=False)
    report = ac.check(backend, ac.attention(1, 1, 4, rows=[(1, 1)]))
    assert report.status == "failed" and message in report.detail, report.detail
    assert "\n" not in report.detail


def test_a_producer_is_asked_for_a_copy_on_the_host():
    here = Made(np.arange(3, dtype=np.float32), F32)
    there = Made(np.zeros(3, np.float32), F32, form=New, device=(2, 0), copies=here)
    assert _types.codes_of(there)[0].tolist() == [0, 1, 2]
    assert there.asked[-1]["dl_device"] == (1, 0)


@FORMS
def test_a_capsule_is_used_up_once(form):
    capsule = Made(np.zeros(4, np.float32), F32, form=form).__dlpack__()

    class Same:
        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **words):
            return capsule

    array, _ = _types.codes_of(Same())
    assert name_of(capsule) == USED[form]
    with pytest.raises(ac.Error, match=f'a capsule named "{USED[form].decode()}", which is used up'):
        _types.codes_of(Same())


def inspect(look, **more):
    """What a function sees of a problem."""
    def f(problem):
        look(problem)
        return planted.evaluate(problem)

    report = ac.check(f, ac.attention(2, 1, 8, rows=[(3, 20)], page_size=4, **more))
    assert report.passed, str(report)


def test_numpy_reads_a_problem_without_a_copy():
    def look(problem):
        q = np.from_dlpack(problem.dlpack("q"))
        assert q.ctypes.data == problem.codes("q").ctypes.data and np.array_equal(q, problem.q)
        pages = np.from_dlpack(problem.dlpack("k_cache"))
        assert pages.strides == problem.codes("k_cache").strides
        assert problem.dlpack("sinks") is None
        p = problem.to(np.from_dlpack)
        assert p.q.ctypes.data == q.ctypes.data
        assert np.array_equal(next(p.sequences()).k, next(problem.sequences()).k)

    inspect(look)


@pytest.mark.parametrize("dtype, kind", [("bfloat16", BF16), ("float16", (2, 16))])
@FORMS
def test_others_read_types_that_numpy_lacks(dtype, kind, form):
    def look(problem):
        lent = problem.dlpack("q")
        capsule = lent.__dlpack__(max_version=(1, 0)) if form is New else lent.__dlpack__()
        taken = Consumer(capsule)
        t = taken.managed.tensor
        assert taken.form is form and (t.dtype.code, t.dtype.bits, t.dtype.lanes) == (*kind, 1)
        assert t.data == problem.codes("q").ctypes.data and lent.__dlpack_device__() == (1, 0)
        assert [t.shape[i] for i in range(t.ndim)] == [3, 2, 8]
        assert [t.strides[i] for i in range(t.ndim)] == [16, 8, 1]
        if form is New:
            assert taken.managed.major == 1 and taken.managed.flags == 1  # read-only
        taken.close()

    inspect(look, dtype=dtype)


@FORMS
def test_a_copy_belongs_to_its_reader(form):
    from attn_compare import _dlpack

    lent = _dlpack.Lent(np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2], F32)
    words = {"max_version": (1, 1)} if form is New else {}
    copy = Consumer(lent.__dlpack__(copy=True, **words))
    t = copy.managed.tensor
    assert [t.strides[i] for i in range(2)] == [2, 1] and t.data % 64 == 0
    lent.codes[...] = -1
    del lent
    gc.collect()
    assert (ct.c_float * 6).from_address(t.data)[:] == [0, 2, 4, 6, 8, 10]
    if form is New:
        assert copy.managed.flags == 2  # a copy
    copy.close()
    lent = _dlpack.Lent(np.zeros(4, np.float32), F32)
    lent.__dlpack__(**words)  # taken by nobody


def test_it_lies_in_host_memory():
    from attn_compare import _dlpack

    lent = _dlpack.Lent(np.zeros(4, np.float32), F32)
    with pytest.raises(BufferError, match="lies in host memory, not on cuda:0"):
        lent.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="no stream"):
        lent.__dlpack__(stream=1)
