#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input: each case has its message and its exit code, and leaves no process, socket, segment or half a file behind."""
import json
import os
import pathlib
import socket
import struct
import subprocess
import tempfile
import unittest

from cluster import BIN, Cluster

USAGE, REFUSED = 2, 3
SMALL = ["--seq-length", "64", "--num-heads", "2", "--head-dim", "32"]


def annulus_processes():
    found = set()
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if (folder / "comm").read_text().startswith("annulus"):
                    found.add(int(folder.name))
            except (FileNotFoundError, ProcessLookupError):
                pass
    return found


def left_behind(folder):
    sockets = [line.split()[-1] for line in pathlib.Path("/proc/net/unix").read_text().splitlines() if "annulus" in line]
    return {"processes": annulus_processes(), "sockets": sorted(sockets), "files": sorted(p.name for p in folder.iterdir()),
            "shm": sorted(p for p in os.listdir("/dev/shm") if "annulus" in p), "tmp": sorted(p for p in os.listdir("/tmp") if p.startswith("annulus-")
                                                                                            and not p.startswith("annulus-e2e") and not p.startswith("annulus-bad"))}


def safetensors(path, header, data=b"", length=None):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


class BadInput(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory(prefix="annulus-bad-")
        self.addCleanup(self.scratch.cleanup)
        self.folder = pathlib.Path(self.scratch.name)

    def refused(self, arguments, code, *words):
        """Runs, expects the exit code and every word in the message, and nothing left behind."""
        before = left_behind(self.folder)
        result = Cluster.command(*arguments)
        self.assertEqual(code, result.returncode, f"{arguments}\n{result.stdout}{result.stderr}")
        for word in words:
            self.assertIn(word, result.stderr, f"{arguments}")
        self.assertEqual(before, left_behind(self.folder), f"{arguments} left something behind")
        return result

    def test_threads_to_pin_need_processors(self):
        self.refused(["run", *SMALL, "--context-parallel-size", "2", "--threads", "2000", "--pin-threads"], USAGE, "--pin-threads", "4000")
        self.refused(["up", "--workers", "2", "--threads", "2000", "--pin-threads"], USAGE, "--pin-threads", "4000")
        self.refused(["run", *SMALL, "--coordinator", "127.0.0.1:1", "--pin-threads"], USAGE, "--pin-threads", "--coordinator")
        for arguments, word in ((["--cpus", "0-"], "0,2-3"), (["--cpus", "0", "--threads", "2"], "each of the 2 threads, got 1")):
            result = subprocess.run([BIN / "annulus-worker", "--coordinator", "127.0.0.1:1", *arguments], capture_output=True, text=True, timeout=30)
            self.assertEqual(USAGE, result.returncode, result.stderr)
            self.assertIn("--cpus", result.stderr)
            self.assertIn(word, result.stderr)

    def test_window_must_divide_the_size(self):
        self.refused(["run", *SMALL, "--context-parallel-size", 6, "--cp-window-size", 4], USAGE, "window", "4", "1, 2, 3, 6")

    def test_unknown_flag(self):
        self.refused(["run", *SMALL, "--no-such-flag"], USAGE, "--no-such-flag")

    def test_negative_and_huge_sizes(self):
        self.refused(["run", "--seq-length", "-5"], USAGE, "--seq-length", "-5")
        self.refused(["run", *SMALL, "--context-parallel-size", 0], USAGE, "--context-parallel-size")
        self.refused(["run", *SMALL, "--batch-size", -1], USAGE, "--batch-size")
        self.refused(["run", "--seq-length", 2**50], USAGE, "--seq-length")
        self.refused(["run", "--seq-length", "99999999999999999999999"], USAGE, "--seq-length")

    def test_heads(self):
        self.refused(["run", "--seq-length", 64, "--num-heads", 6, "--num-kv-heads", 4], USAGE, "6", "4", "multiple")
        for size in (12, 20, 264):
            self.refused(["run", "--seq-length", 64, "--head-dim", size], USAGE, str(size), "16", "256")

    def test_flags_that_would_change_nothing_are_refused(self):
        for flag, value in (("--emulate-link", "inner=1GB/s"), ("--inner-transport", "host"), ("--outer-transport", "host")):
            self.refused(["run", *SMALL, "--transfers-off", flag, value], USAGE, "--transfers-off", flag)
        self.refused(["run", *SMALL, "--no-retain"], USAGE, "--no-retain", "--backward")
        self.refused(["run", *SMALL, "--gradient-wire", "bf16"], USAGE, "--gradient-wire", "--backward")
        self.refused(["run", *SMALL, "--emulate-link", "latency=20us"], USAGE, "--emulate-link", "rate")
        self.refused(["run", *SMALL, "--coordinator", "127.0.0.1:1", "--transport-plugin", "host"], USAGE, "--transport-plugin", "--coordinator")
        self.refused(["run", *SMALL, "--coordinator", "127.0.0.1:1", "--compute-provider", "vectors"], USAGE, "--compute-provider", "--coordinator")
        self.refused(["topology", "--describe", "cpu-4", "--format", "facts", "--cp-window-size", 2], USAGE, "--format=facts", "--cp-window-size")

    def test_transports_that_cannot_be_had_are_refused_with_what_is_missing(self):
        self.refused(["run", *SMALL, "--context-parallel-size", 2, "--inner-transport", "cuipc"], REFUSED, "cuipc", "worker-0 computes on the CPU")
        self.refused(["run", *SMALL, "--context-parallel-size", 2, "--outer-transport", "host"], REFUSED, "all ranks are on one node", "no hop to take it")
        self.refused(["up", "--workers", 1, "--transport-plugin", "host,nowhere"], REFUSED, "nowhere")
        self.refused(["up", "--workers", 1, "--compute-provider", "absent"], REFUSED, "absent", "vectors")
        self.refused(["run", *SMALL, "--context-parallel-size", 2, "--compute-provider", "absent"], REFUSED, "absent", "vectors")
        self.refused(["topology", "--describe", "dgx-h100x4-nics8", "--inner-transport", "nccl", "--outer-transport", "host"], REFUSED, "one memory in common")
        self.refused(["topology", "--describe", "dgx-h100x4-nics8", "--cp-window-size", 4, "--inner-transport", "cuipc", "--outer-transport", "nccl"], REFUSED,
                     "expected a window of 8", "got 4")

    def test_algorithms_that_do_not_exist_yet_are_refused_by_name(self):
        self.refused(["run", *SMALL, "--context-parallel-algo", "ulysses_cp_algo"], USAGE, "ulysses_cp_algo")

    def test_truncated_safetensors(self):
        path = self.folder / "short.safetensors"
        path.write_bytes(b"\x10\x00\x00")
        self.refused(["run", "--input", path], USAGE, "short.safetensors")
        safetensors(path, b"{", length=2**40)
        self.refused(["run", "--input", path], USAGE, "header")

    def test_lying_safetensors(self):
        shape = [1, 64, 2, 32]
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * 64 * 64]}
        lying = {"q": entry, "k": {**entry, "data_offsets": [0, 10**12]}, "v": entry}
        self.refused(["run", "--input", safetensors(self.folder / "lying.safetensors", lying, b"\0" * 4 * 64 * 64)], USAGE, "data_offsets")
        short = {"q": {**entry, "data_offsets": [0, 8]}}
        self.refused(["run", "--input", safetensors(self.folder / "small.safetensors", short, b"\0" * 8)], USAGE, "q")

    def test_wrong_dtype_and_missing_tensor(self):
        size = 8 * 64 * 64
        entry = {"dtype": "F64", "shape": [1, 64, 2, 32], "data_offsets": [0, size]}
        self.refused(["run", "--input", safetensors(self.folder / "f64.safetensors", {"q": entry}, b"\0" * size)], USAGE, "F64")
        only_q = {"q": {"dtype": "F32", "shape": [1, 64, 2, 32], "data_offsets": [0, size // 2]}}
        self.refused(["run", "--input", safetensors(self.folder / "q.safetensors", only_q, b"\0" * (size // 2))], USAGE, "k")

    def test_seed_beside_an_input_that_has_everything(self):
        entry = {"dtype": "F32", "shape": [1, 64, 2, 32], "data_offsets": [0, 4 * 64 * 64]}
        path = safetensors(self.folder / "qkv.safetensors", {name: {**entry, "data_offsets": [i * 4 * 64 * 64, (i + 1) * 4 * 64 * 64]} for i, name in enumerate("qkv")},
                           b"\0" * 3 * 4 * 64 * 64)
        self.refused(["run", "--input", path, "--seed", 7], USAGE, "--seed 7", "would change nothing")
        result = Cluster.command("run", "--input", path, "--seed", 7, "--backward", "--context-parallel-size", 2)
        self.assertEqual(0, result.returncode, result.stderr)  # do is drawn

    def test_missing_input_and_unwritable_output(self):
        self.refused(["run", "--input", self.folder / "absent.safetensors"], USAGE, "absent.safetensors")
        self.refused(["run", *SMALL, "--output", self.folder / "no/such/folder/o.safetensors"], USAGE, "no/such/folder")
        self.refused(["run", *SMALL, "--report", self.folder / "no/such/folder/report.json"], USAGE, "no/such/folder")
        self.refused(["run", *SMALL, "--trace", self.folder / "no/such/folder/trace.json"], USAGE, "no/such/folder")

    def test_port_in_use(self):
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            address = f"127.0.0.1:{busy.getsockname()[1]}"
            for program, flags in (("annulus-coordinator", []), ("annulus-worker", ["--coordinator", "127.0.0.1:1"])):
                result = subprocess.run([BIN / program, *flags, "--listen", address], capture_output=True, text=True, timeout=20)
                self.assertEqual(REFUSED, result.returncode, result.stderr)
                self.assertIn(address, result.stderr)

    def test_budget_exceeded(self):
        self.refused(["run", "--seq-length", 4096, "--num-heads", 8, "--head-dim", 64, "--context-parallel-size", 2, "--memory-limit", "1MiB"],
                     REFUSED, "MEMORY_LIMIT", "limit of 1048576", "bytes")

    def test_no_coordinator(self):
        self.refused(["run", *SMALL, "--coordinator", "127.0.0.1:1", "--deadline", "3"], 4, "127.0.0.1:1")

    def test_plan_with_a_wrong_digest(self):
        plan = Cluster.command("plan", "--seq-length", 64, "--context-parallel-size", 4, "--cp-window-size", 2, "--format", "json")
        self.assertEqual(0, plan.returncode, plan.stderr)
        good = self.folder / "plan.json"
        good.write_text(plan.stdout)
        self.assertEqual(0, Cluster.command("check", good).returncode)
        forged = self.folder / "forged.json"
        content = json.loads(plan.stdout)
        content["transfers"].pop()
        forged.write_text(json.dumps(content))
        self.refused(["check", forged], USAGE, "digest")
        content.pop("digest")
        forged.write_text("not json")
        self.refused(["check", forged], USAGE, "forged.json")

    def test_nan_propagates_and_is_no_error(self):
        values = [0.5] * (64 * 64)
        values[0] = float("nan")
        data = struct.pack(f"<{len(values)}f", *values)
        entry = {"dtype": "F32", "shape": [1, 64, 2, 32], "data_offsets": [0, len(data)]}
        header = {name: {**entry, "data_offsets": [i * len(data), (i + 1) * len(data)]} for i, name in enumerate("qkv")}
        path = safetensors(self.folder / "nan.safetensors", header, data + data.replace(data[:4], data[4:8]) * 2)
        result = Cluster.command("run", "--input", path, "--context-parallel-size", 2, "--verify")
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
