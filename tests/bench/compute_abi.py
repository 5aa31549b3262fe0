# SPDX-License-Identifier: Apache-2.0
"""A compute plugin called from Python: kernels/compute_plugin.h through ctypes, with the standard library alone.

    with Compute("build/lib/libannulus-compute-cpu.so").open(threads=1) as device:
        q = tensor(address, "f32", (1, 128, 4, 64))  # [batch, rows, heads, head_dim], contiguous
        device.reset(o, lse)
        device.attend(q, k, v, o, lse, causal=True, softmax_scale=0.125)

Whoever calls owns the memory and keeps it until the call is over. A plugin that fails raises ComputeError with its own words.
tests/unit/bench/compute_abi_test.py holds the structures to the header, member by member.
"""
import ctypes
from ctypes import POINTER, Structure, c_char, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

SYMBOL = "annulusCompute_v1"
DTYPES = {"f32": 0, "bf16": 1, "f16": 2}
MASK_FULL, MASK_CAUSAL = 0, 1
NO_WINDOW = -1


class ComputeError(RuntimeError):
    pass


class Span(Structure):
    _fields_ = [("row", c_int64), ("count", c_int64), ("position", c_int64), ("stride", c_int64)]


class Tensor(Structure):
    _fields_ = [("data", c_void_p), ("dtype", c_int), ("batch", c_int64), ("rows", c_int64), ("heads", c_int64), ("head_dim", c_int64),
                ("batch_stride", c_int64), ("row_stride", c_int64), ("head_stride", c_int64)]


class RowStat(Structure):
    _fields_ = [("data", c_void_p), ("batch", c_int64), ("rows", c_int64), ("heads", c_int64), ("batch_stride", c_int64), ("row_stride", c_int64)]


class Mask(Structure):
    _fields_ = [("kind", c_int), ("causal_offset", c_int64), ("window_left", c_int64)]


class AttendArgs(Structure):
    _fields_ = [("struct_size", c_size_t), ("q", Tensor), ("k", Tensor), ("v", Tensor), ("o", Tensor), ("lse", RowStat),
                ("q_spans", POINTER(Span)), ("q_span_count", c_size_t), ("kv_spans", POINTER(Span)), ("kv_span_count", c_size_t),
                ("mask", Mask), ("softmax_scale", c_float), ("o_row_offset", c_int64)]


class AttendBackwardArgs(Structure):
    _fields_ = [("struct_size", c_size_t), ("q", Tensor), ("k", Tensor), ("v", Tensor), ("d_o", Tensor), ("dq", Tensor), ("dk", Tensor),
                ("dv", Tensor), ("lse", RowStat), ("delta", RowStat), ("q_spans", POINTER(Span)), ("q_span_count", c_size_t),
                ("kv_spans", POINTER(Span)), ("kv_span_count", c_size_t), ("mask", Mask), ("softmax_scale", c_float),
                ("dq_row_offset", c_int64), ("dkv_row_offset", c_int64)]


class DeviceInfo(Structure):
    _fields_ = [("struct_size", c_size_t), ("description", c_char * 128), ("memory_bytes", c_int64), ("compute_units", c_int32),
                ("host_memory", c_int32)]


class ComputeOptions(Structure):
    # A plugin takes options longer than it knows. Zero here: no binding, and no spare units.
    _fields_ = [("struct_size", c_size_t), ("device_ordinal", c_int32), ("threads", c_int32), ("cpus", POINTER(c_int32)), ("cpu_count", c_size_t),
                ("provider", c_char_p), ("spare_units", c_int32), ("deterministic", c_int32)]


def _call(*arguments):
    return ctypes.CFUNCTYPE(c_int, *arguments)


class ComputeV1(Structure):
    # The head of the table, as of abi_minor 0: members added at the end are none of ours.
    _fields_ = [("struct_size", c_size_t), ("abi_minor", c_uint32), ("name", c_char_p), ("caps", c_uint64),
                ("open", _call(POINTER(ComputeOptions), POINTER(c_void_p))),
                ("close", ctypes.CFUNCTYPE(None, c_void_p)),
                ("last_error", ctypes.CFUNCTYPE(c_char_p)),
                ("device_info", _call(c_void_p, POINTER(DeviceInfo))),
                ("supports", _call(c_void_p, c_int, c_int64, c_int64, c_int64)),
                ("alloc", _call(c_void_p, c_size_t, POINTER(c_void_p))),
                ("free", ctypes.CFUNCTYPE(None, c_void_p, c_void_p)),
                ("stream_create", _call(c_void_p, POINTER(c_void_p))),
                ("stream_destroy", ctypes.CFUNCTYPE(None, c_void_p)),
                ("event_create", _call(c_void_p, POINTER(c_void_p))),
                ("event_destroy", ctypes.CFUNCTYPE(None, c_void_p)),
                ("event_record", _call(c_void_p, c_void_p)),
                ("event_synchronize", _call(c_void_p, c_int64, POINTER(c_int64))),
                ("reset", _call(c_void_p, POINTER(Tensor), POINTER(RowStat))),
                ("attend", _call(c_void_p, POINTER(AttendArgs))),
                ("backward_prepare", _call(c_void_p, POINTER(Tensor), POINTER(Tensor), POINTER(RowStat))),
                ("attend_backward", _call(c_void_p, POINTER(AttendBackwardArgs))),
                ("merge", _call(c_void_p, POINTER(Tensor), POINTER(RowStat), POINTER(Tensor), POINTER(RowStat))),
                ("accumulate", _call(c_void_p, POINTER(c_float), c_void_p, c_int, c_int64)),
                ("finish", _call(c_void_p, POINTER(Tensor), POINTER(Tensor))),
                ("fill_zero", _call(c_void_p, c_void_p, c_size_t))]


def tensor(address, dtype, shape):
    """A contiguous [batch, rows, heads, head_dim] at `address`."""
    batch, rows, heads, head_dim = shape
    return Tensor(address, DTYPES[dtype], batch, rows, heads, head_dim, rows * heads * head_dim, heads * head_dim, head_dim)


def row_stat(address, shape):
    """A contiguous float32 [batch, rows, heads] at `address`."""
    batch, rows, heads = shape
    return RowStat(address, batch, rows, heads, rows * heads, heads)


def _whole(rows):
    """The one span that says: row i holds token i."""
    return ctypes.pointer(Span(0, rows, 0, 1))


def _mask(q, k, causal):
    return Mask(MASK_CAUSAL if causal else MASK_FULL, k.rows - q.rows if causal else 0, NO_WINDOW)


class Compute:
    """A loaded plugin. OSError: no such library; ComputeError: not one that this mirror fits."""

    def __init__(self, path):
        self._library = ctypes.CDLL(str(path))
        try:
            self.table = ComputeV1.in_dll(self._library, SYMBOL)
        except ValueError as error:
            raise ComputeError(f"{path}: exports no {SYMBOL}") from error
        if self.table.struct_size < ctypes.sizeof(ComputeV1):
            raise ComputeError(f"{path}: {SYMBOL} has {self.table.struct_size} bytes, expected at least {ctypes.sizeof(ComputeV1)}")

    def check(self, status):
        if status:
            raise ComputeError(self.table.last_error().decode())

    def open(self, threads, provider=None):
        """`provider`: which kernels of the plugin, since abi_minor 2; None: the fastest."""
        if provider is not None and self.table.abi_minor < 2:
            raise ComputeError(f"provider {provider!r}: the plugin is of ABI minor {self.table.abi_minor}, expected at least 2")
        return Device(self, threads, provider)


class Device:
    """A device and one stream on it, until the end of `with`. Every call returns when the work is enqueued; on a CPU, when it is done."""

    def __init__(self, compute, threads, provider):
        self._table, self._check = compute.table, compute.check
        self._device, self._stream = c_void_p(), c_void_p()
        options = ComputeOptions(struct_size=ctypes.sizeof(ComputeOptions), threads=threads,
                                 provider=provider.encode() if provider else None)
        self._check(self._table.open(options, self._device))
        self._check(self._table.stream_create(self._device, self._stream))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._table.stream_destroy(self._stream)
        self._table.close(self._device)

    def description(self):
        info = DeviceInfo(struct_size=ctypes.sizeof(DeviceInfo))
        self._check(self._table.device_info(self._device, info))
        return info.description.decode()

    def fill_zero(self, address, size):
        self._check(self._table.fill_zero(self._stream, address, size))

    def reset(self, o, lse):
        self._check(self._table.reset(self._stream, o, lse))

    def attend(self, q, k, v, o, lse, causal, softmax_scale):
        """(o, lse) <- merge((o, lse), attention of all rows of q over all rows of k and v)."""
        args = AttendArgs(ctypes.sizeof(AttendArgs), q, k, v, o, lse, _whole(q.rows), 1, _whole(k.rows), 1, _mask(q, k, causal), softmax_scale, 0)
        self._check(self._table.attend(self._stream, args))

    def backward_prepare(self, d_o, o, delta):
        self._check(self._table.backward_prepare(self._stream, d_o, o, delta))

    def attend_backward(self, q, k, v, d_o, dq, dk, dv, lse, delta, causal, softmax_scale):
        """dq, dk, dv += the gradients of all rows of q over all rows of k and v."""
        args = AttendBackwardArgs(ctypes.sizeof(AttendBackwardArgs), q, k, v, d_o, dq, dk, dv, lse, delta, _whole(q.rows), 1, _whole(k.rows), 1,
                                  _mask(q, k, causal), softmax_scale, 0, 0)
        self._check(self._table.attend_backward(self._stream, args))

    def finish(self, source, target):
        """target <- source, rounded to the target's dtype."""
        self._check(self._table.finish(self._stream, source, target))
