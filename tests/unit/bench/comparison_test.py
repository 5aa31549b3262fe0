#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The comparisons without the software they compare with: bad input ends with exit code 2 and says what was expected, before anything is installed."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
import comparison  # noqa: E402


class BadInput(unittest.TestCase):
    def refused(self, words, script, *flags):
        run = subprocess.run([sys.executable, BENCH / script, *map(str, flags)], capture_output=True, text=True, timeout=30)
        self.assertEqual(2, run.returncode, run.stdout + run.stderr)
        self.assertIn(words, run.stderr)

    def test_flags(self):
        plugin = ("--library", os.environ["ANNULUS_CPU_PLUGIN"])
        for script in ("compare_pytorch.py", "compare_jax_ring.py"):
            self.refused("expected a number from 1, got '0'", script, "--rounds", 0)
            self.refused("expected a number from 1, got 'x'", script, "--seq-length", "64,x")
            self.refused("expected some of full,causal, got 'banded'", script, "--cp-attention-mask-type", "banded")
            self.refused("--output: no folder /nowhere", script, "--output", "/nowhere/at.json")
            with tempfile.TemporaryDirectory() as folder:
                self.refused("is no virtual environment", script, "--venv", folder)
        self.refused("expected some of f32,bf16, got 'f16'", "compare_pytorch.py", "--dtype", "f16")
        self.refused("expected divisors of 4 query heads, got 3", "compare_pytorch.py", "--num-kv-heads", 3, *plugin)
        self.refused("--library: /nowhere.so", "compare_pytorch.py", "--library", "/nowhere.so")
        self.refused("expected divisors of the 100 / 2 tokens of a device, got 16", "compare_jax_ring.py", "--seq-length", 100, "--chunk", 16)

    def test_different_results_are_not_compared(self):
        comparison.require_agreement({"S": 64}, {"o": 1e-6}, 1e-5)
        for error in (2e-5, float("nan")):
            with self.assertRaisesRegex(SystemExit, "S 64: the results differ, relative RMSE .*dq .*, expected at most 1e-05"):
                comparison.require_agreement({"S": 64}, {"o": 1e-6, "dq": error}, 1e-5)


if __name__ == "__main__":
    unittest.main()
