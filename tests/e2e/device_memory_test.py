#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tensors of the client in device memory, used by real workers in place: over a stand-in for a GPU whose memory the host cannot touch, in this process,
in the client's and in every worker's (tests/support/apart).

    device_memory_test.py APART_PLUGIN
"""
import collections
import json
import pathlib
import sys
import tempfile
import unittest

from cluster import Cluster, wait_until

USAGE, REFUSED = 2, 3
APART = None
SHAPE = ["--seq-length", 203, "--num-heads", 4, "--num-kv-heads", 2, "--head-dim", 32, "--cp-attention-mask-type", "causal", "--batch-size", 2]
RING = ["--context-parallel-size", 4, "--cp-window-size", 2]


def device_workers(transport):
    """Flags of workers that take turns on two devices."""
    return lambda index: ["--compute-plugin", APART, "--transport-plugin", transport, "--device-ordinal", index % 2, "--threads", 1]


class DeviceMemory(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="annulus-e2e-")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def verified(self, run, name, *arguments):
        """Runs and verifies forward and backward; the report, and how often each copy stands in the timeline."""
        report, trace = self.folder / f"{name}.json", self.folder / f"{name}.trace.json"
        result = run(*SHAPE, *arguments, "--backward", "--seed", 5, "--verify", "--report", report, "--trace", trace, "--output", self.folder / f"{name}.safetensors")
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
        self.assertTrue(any(event["cat"] == "compute" for event in events))
        copies = collections.Counter(event["name"].rsplit(" ", 1)[0] for event in events if event["cat"] == "copy")
        return json.loads(report.read_text()), copies

    def written(self, name):
        return (self.folder / f"{name}.safetensors").read_bytes()

    def test_nothing_is_copied_between_devices_that_reach_each_other(self):
        with Cluster(workers=4, flags_of=device_workers(APART)) as cluster:
            for layout in ("contiguous", "zigzag", "striped"):
                flags = [*RING, "--layout", layout, "--dtype", "bf16", "--compute-plugin", APART]
                report, copies = self.verified(cluster.run, layout, *flags)
                self.assertEqual("device", report["client_memory"]["place"])
                self.assertEqual("device", report["data_path"])
                for device in ("apart 0", "apart 1"):
                    self.assertIn(device, report["client_memory"]["devices"])
                self.assertEqual({}, dict(copies))
                report, copies = self.verified(cluster.run, "host", *flags, "--client-memory", "host")
                self.assertEqual({"place": "host", "reason": "--client-memory host"}, report["client_memory"])
                self.assertLess(0, copies["upload"], "what the device runs are free of")
                self.assertLess(0, copies["download"])
                self.assertEqual(self.written("host"), self.written(layout), "the same bytes wherever the tensors lie")

    def test_repetitions_run_on_the_same_memory_and_none_stays_leased(self):
        def mapped(cluster):
            """Blocks of device memory that the workers hold, their own and leased ones."""
            return sum(pathlib.Path(f"/proc/{worker.process.pid}/maps").read_text().count("memfd:apart") for worker in cluster.workers.values())

        with Cluster(workers=4, flags_of=device_workers(APART)) as cluster:
            flags = [*RING, "--compute-plugin", APART, "--repeat", 3, "--no-retain"]
            report, copies = self.verified(cluster.run, "first", *flags)
            self.assertEqual(3, len(report["repeat_wall_seconds"]))
            self.assertEqual({}, dict(copies))
            after_first = mapped(cluster)
            for _ in range(2):
                self.verified(cluster.run, "again", *flags)
            wait_until("leases to end with their client", lambda: mapped(cluster) <= after_first)

    def test_workers_of_its_own_over_a_transport_of_host_memory(self):
        report, copies = self.verified(lambda *flags: Cluster.command("run", *flags), "own", "--context-parallel-size", 3, "--compute-plugin", APART)
        self.assertEqual("device", report["client_memory"]["place"])
        # Blocks still travel through the host's memory; the tensors themselves do not.
        self.assertLessEqual(set(copies), {"to wire", "from wire"})

    def test_bench_ring_of_a_device_without_a_ceiling(self):
        result = Cluster.command("bench", "ring", *SHAPE, "--context-parallel-size", 2, "--compute-plugin", APART, "--backward", "--repeat", 2, "--format", "json")
        self.assertEqual(0, result.returncode, result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(("device", 1), (report["client_memory"]["place"], report["devices"]))
        for phase in (report["forward"], report["backward"]):
            self.assertIsNone(phase["share"])
            self.assertLess(0, phase["kernel_seconds"]["min"])
            self.assertLess(0, phase["ring_efficiency"]["min"])
        refused = Cluster.command("bench", "kernels", "--compute-plugin", APART)
        self.assertEqual(REFUSED, refused.returncode, refused.stderr)
        self.assertIn("no ceiling", refused.stderr)

    def test_where_it_cannot_be_the_reason_is_said(self):
        with Cluster(workers=2) as cluster:
            flags = ["--context-parallel-size", 2, "--compute-plugin", APART]
            report, _ = self.verified(cluster.run, "fallback", *flags)
            self.assertEqual("host", report["client_memory"]["place"])
            self.assertIn("names no device", report["client_memory"]["reason"])
            refused = cluster.run(*SHAPE, *flags, "--client-memory", "device")
            self.assertEqual(REFUSED, refused.returncode, refused.stderr)
            self.assertIn("names no device", refused.stderr)
            self.assertEqual("", cluster.run(*SHAPE, "--context-parallel-size", 2).stderr)

    def test_flags_that_exclude_each_other(self):
        for flags, word in ((["--device", "cpu"], "host's memory"), (["--compute-plugin", APART, "--data-path", "stream"], "--data-path stream")):
            result = Cluster.command("run", *SHAPE, "--client-memory", "device", *flags)
            self.assertEqual(USAGE, result.returncode, result.stderr)
            self.assertIn("--client-memory device", result.stderr)
            self.assertIn(word, result.stderr)


if __name__ == "__main__":
    APART = sys.argv.pop()
    unittest.main()
