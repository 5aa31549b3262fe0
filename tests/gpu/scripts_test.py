#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What of the scripts for a GPU machine can be run without one: each says that there is none, and the pages are made of lines as the programs print them;
the programs that need no CUDA print them here, over the stand-in for a GPU.

    scripts_test.py BUILD APART_PLUGIN
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD, APART = None, None
RING = {"what": "ring forward, causal zigzag", "ranks": 8, "rows": 8192, "link": "inner=370GB/s", "block_bytes": 1, "ideal_seconds": 0.9, "compute_seconds": 0.95,
        "comm_seconds": 0.2, "full_seconds": 1.0, "exposed_seconds": 0.05, "overlap": 0.75, "efficiency": 0.9, "contention": 0.01}


def run(*arguments, **options):
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=120, **options)


class Scripts(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="annulus-e2e-")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def page(self, kind, lines):
        path = self.folder / "lines"
        path.write_text(lines)
        made = run(sys.executable, "tests/gpu/bench_page.py", "--kind", kind, path, self.folder / "out", "--commit", "c0ffee", "--date", "2026-01-01",
                   "--driver", "580", "--device", "a card")
        self.assertEqual(0, made.returncode, made.stderr)
        text = (self.folder / "out.md").read_text()
        for word in ("c0ffee", "2026-01-01", "580", "a card"):
            self.assertIn(word, text)
        json.loads((self.folder / "out.json").read_text())
        return text, made.stdout

    def test_without_a_gpu_each_says_so(self):
        if os.path.exists("/dev/nvidiactl"):
            self.skipTest("there is a GPU")
        for name in ("call_floor", "ring_bench", "transport"):
            result = run("bash", f"tests/gpu/{name}.sh", BUILD)
            # A build without the toolkit lacks the programs; that comes first.
            self.assertIn((result.returncode, "no GPU" in result.stdout, "build with the CUDA toolkit" in result.stderr), ((77, True, False), (1, False, True)), name)

    def test_the_call_floor(self):
        lines = ""
        for memory in ("device", "host"):
            result = run(BUILD / "tests/annulus-call-floor", "--compute-plugin", APART, "--client-memory", memory, "--calls", 20, "--long-seq-length", 256,
                         "--dtype", "bf16", "--format", "json")
            self.assertEqual(0, result.returncode, result.stderr)
            lines += result.stdout
        text, _ = self.page("calls", lines)
        self.assertIn("| device memory |", text)
        self.assertIn("| host memory |", text)

    def test_the_rings_are_held_to_their_goals(self):
        result = run(sys.executable, "tests/bench/overlap_double_ring.py", "--json", "--rounds", 1, "--seq-length", 256, "--compute-plugin", APART, "--devices", 2,
                     "--dtype", "bf16", "--emulate-link", "inner=300MB/s,outer=30MB/s", env={**os.environ, "ANNULUS_BIN": str(BUILD / "bin")})
        self.assertEqual(0, result.returncode, result.stderr)
        self.assertEqual({"device"}, {json.loads(line)["client_memory"] for line in result.stdout.splitlines()})
        text, said = self.page("ring", json.dumps(RING) + "\n" + result.stdout)
        for words in ("ring efficiency 90.0 %, goal >= 93 %: MISSED", "overlap 75.0 %, goal >= 95 %: MISSED", "contention 1.0 %, goal < 3 %: met"):
            self.assertIn(words, said)
            self.assertIn(words, text)
        for words in ("plain ring, overlap", "double ring w = 4, overlap"):
            self.assertIn(words, text)

    def test_the_transports(self):
        lines = '{"what": "suite", "suite": "nccl"}\n{"what": "killed peer reported", "transport": "nccl", "seconds": 1.25}\n'
        text, _ = self.page("transport", lines)
        self.assertIn("a killed peer over nccl: reported after 1.25 s, limit 3 s", text)


if __name__ == "__main__":
    APART = sys.argv.pop()
    BUILD = pathlib.Path(sys.argv.pop())
    unittest.main()
