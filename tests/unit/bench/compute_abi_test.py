#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The ctypes mirror of the compute ABI beside the header and the CPU plugin, on memory of the standard library."""
import array
import ctypes
import os
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/bench"))
import compute_abi as abi  # noqa: E402

ROWS, HEADS, KV_HEADS, HEAD_DIM = 3, 2, 1, 16


def members_in_header(struct):
    """Member names of `struct` in the order of kernels/compute_plugin.h."""
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "kernels/compute_plugin.h").read_text(), flags=re.S)
    body = re.search(rf"typedef struct {struct} \{{(.*?)\}} {struct};", header, re.S).group(1)
    names = []
    for member in body.split(";")[:-1]:
        function = re.search(r"\(\*(\w+)\)", member)
        names += [function.group(1)] if function else re.findall(r"(\w+)(?:\[\d+\])?\s*(?:,|$)", member.strip())
    return names


class Memory:
    """Zeroed rows of floats and the view of them."""

    def __init__(self, heads, values=None):
        self.floats = array.array("f", values or [0.0] * (ROWS * heads * HEAD_DIM))
        self.view = abi.tensor(self.floats.buffer_info()[0], "f32", (1, ROWS, heads, HEAD_DIM))

    def row(self, row, head, heads):
        start = (row * heads + head) * HEAD_DIM
        return self.floats[start:start + HEAD_DIM]


class Statistic:
    def __init__(self):
        self.floats = array.array("f", [0.0] * (ROWS * HEADS))
        self.view = abi.row_stat(self.floats.buffer_info()[0], (1, ROWS, HEADS))


class Mirror(unittest.TestCase):
    def setUp(self):
        self.compute = abi.Compute(os.environ["ANNULUS_CPU_PLUGIN"])

    def test_members_stand_in_the_order_of_the_header(self):
        for struct in ("Span", "Tensor", "RowStat", "Mask", "AttendArgs", "AttendBackwardArgs", "DeviceInfo", "ComputeOptions", "ComputeV1"):
            header, mirror = members_in_header(f"annulus{struct}"), [name for name, *_ in getattr(abi, struct)._fields_]
            # What is added at the end of these is for those who know it.
            grown = struct in ("DeviceInfo", "ComputeOptions", "ComputeV1")
            self.assertEqual(header[:len(mirror)] if grown else header, mirror, struct)

    def test_the_library_has_the_table(self):
        self.assertGreaterEqual(self.compute.table.struct_size, ctypes.sizeof(abi.ComputeV1))
        self.assertEqual(b"cpu", self.compute.table.name)

    def test_a_plugin_speaks_for_itself(self):
        with self.assertRaisesRegex(abi.ComputeError, "threads 0, expected 1"):
            self.compute.open(threads=0)
        with self.assertRaisesRegex(OSError, "no-such"):
            abi.Compute("/no-such.so")
        with self.assertRaisesRegex(abi.ComputeError, 'provider "nonsense", expected "auto" or one of "vectors"'):
            self.compute.open(threads=1, provider="nonsense")
        with self.compute.open(threads=2) as device:
            self.assertRegex(device.description(), "cpu: .*, 2 threads")
        with self.compute.open(threads=1, provider="vectors") as device:
            self.assertNotIn("with", device.description())

    def test_attention_and_its_gradient(self):
        """Queries of zero weigh all keys alike: o is the mean of the values seen, and dv the mean's share of do."""
        values = [float(row) for row in range(ROWS) for _ in range(HEAD_DIM)]
        q, k, v, o = Memory(HEADS), Memory(KV_HEADS), Memory(KV_HEADS, values), Memory(HEADS)
        d_o, dq, dk, dv = Memory(HEADS, [1.0] * (ROWS * HEADS * HEAD_DIM)), Memory(HEADS), Memory(KV_HEADS), Memory(KV_HEADS)
        lse, delta = Statistic(), Statistic()
        for causal in (False, True):
            with self.compute.open(threads=1) as device:
                device.reset(o.view, lse.view)
                device.attend(q.view, k.view, v.view, o.view, lse.view, causal, softmax_scale=0.25)
                device.fill_zero(dv.floats.buffer_info()[0], 4 * len(dv.floats))
                device.backward_prepare(d_o.view, o.view, delta.view)
                device.attend_backward(q.view, k.view, v.view, d_o.view, dq.view, dk.view, dv.view, lse.view, delta.view, causal, softmax_scale=0.25)
            for row in range(ROWS):
                seen = range(row + 1) if causal else range(ROWS)
                for head in range(HEADS):
                    for value in o.row(row, head, HEADS):
                        self.assertAlmostEqual(sum(seen) / len(seen), value, places=6)
                share = sum(1 / (query + 1) for query in range(row, ROWS)) if causal else 1
                for value in dv.row(row, 0, KV_HEADS):
                    self.assertAlmostEqual(HEADS * share, value, places=5)


if __name__ == "__main__":
    unittest.main()
