#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Work and summaries of tests/bench/figures.py."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import figures  # noqa: E402


class Figures(unittest.TestCase):
    def test_work_counts_the_cells_that_the_mask_leaves(self):
        def flops(causal, direction):
            return figures.attention_flops(heads=3, head_dim=64, length=10, causal=causal, direction=direction)

        self.assertEqual(4 * 3 * 64 * 100, flops(False, "forward"))
        self.assertEqual(4 * 3 * 64 * sum(range(1, 11)), flops(True, "forward"))
        self.assertEqual(2.5 * flops(True, "forward"), flops(True, "backward"))

    def test_summary_pairs_what_was_timed_together(self):
        # A neighbour slowed both sides of the second pair: the pairs are not moved by it.
        got = figures.summary(8e9, [1.0, 4.0, 2.0], "other", [2.0, 8.0, 4.0])
        self.assertEqual({"seconds_min": 1.0, "seconds_median": 2.0, "gflops": 8.0}, got["annulus"])
        self.assertEqual({"seconds_min": 2.0, "seconds_median": 4.0, "gflops": 4.0}, got["other"])
        self.assertEqual((2.0, 2.0), (got["ratio_of_minima"], got["median_ratio"]))

    def test_interleave_goes_round(self):
        order = []

        def timer(name):
            order.append(name)
            return len(order)

        self.assertEqual([[1, 3], [2, 4]], figures.interleave(2, lambda: timer("a"), lambda: timer("b")))
        self.assertEqual(["a", "b", "a", "b"], order)


if __name__ == "__main__":
    unittest.main()
