#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`annulus bench kernels` and `annulus bench ring`: what they report is complete and plausible. Nothing here asserts a speed."""
import itertools
import json
import pathlib
import tempfile
import unittest

from cluster import Cluster

USAGE, REFUSED = 2, 3
QUICK = ["--rounds", 1, "--min-time", 0]
RING = ["--context-parallel-size", 2, "--seq-length", 96, "--num-heads", 4, "--num-kv-heads", 2, "--head-dim", 32, "--cp-attention-mask-type", "causal",
        "--repeat", 2]
# A window of microseconds may fall into a moment in which the machine does nothing but this; above 1 is noise, far above 1 an error.
SHARE_MAX = 1.2


def forward_flops(queries, keys, heads, head_dim, causal, batch=1):
    cells = sum(not causal or key <= query + keys - queries for query in range(queries) for key in range(keys))
    return 4 * batch * heads * cells * head_dim


class Bench(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="annulus-e2e-")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def ok(self, *arguments):
        result = Cluster.command("bench", *arguments)
        self.assertEqual(0, result.returncode, f"{arguments}\n{result.stdout}{result.stderr}")
        return result.stdout

    def refused(self, code, arguments, *words):
        result = Cluster.command("bench", *arguments)
        self.assertEqual(code, result.returncode, f"{arguments}\n{result.stdout}{result.stderr}")
        self.assertEqual("", result.stdout)
        for word in words:
            self.assertIn(word, result.stderr, f"{arguments}")

    def assert_share(self, share):
        self.assertGreater(share, 0)
        self.assertLessEqual(share, SHARE_MAX)

    def assert_spread(self, spread):
        self.assertLess(0, spread["min"])
        self.assertLessEqual(spread["min"], spread["median"])
        self.assertLessEqual(spread["median"], spread["max"])

    def test_every_case_is_there_with_its_flops(self):
        report = json.loads(self.ok("kernels", "--seq-length", "33,64", "--head-dim", "16,40", "--num-kv-heads", "4,2", "--batch-size", 2, "--threads", "1,2",
                                    *QUICK, "--format", "json"))
        self.assertEqual("annulus.bench.kernels.v1", report["schema"])
        self.assertEqual([1, 2], [device["threads"] for device in report["devices"]])
        for device in report["devices"]:
            self.assertIn("thread", device["description"])
            self.assertGreater(device["multiply_add_flops_per_second"], 0)
            self.assertGreater(device["memory_read_bytes_per_second"], 0)
        found = {}
        for case in report["cases"]:
            key = tuple(case[name] for name in ("threads", "seq_length", "head_dim", "num_kv_heads", "mask", "direction"))
            self.assertNotIn(key, found)
            found[key] = case
            flops = forward_flops(case["seq_length"], case["kv_seq_length"], 4, case["head_dim"], case["mask"] == "causal", batch=2)
            self.assertEqual(flops * (2.5 if case["direction"] == "backward" else 1), case["flops"], key)
            self.assertEqual(2 * 2 * case["kv_seq_length"] * case["num_kv_heads"] * case["head_dim"] * 4, case["kv_bytes"], key)
            self.assert_share(case["share"])
            self.assert_share(case["limit"])
            self.assert_spread(case["window_share"])
            self.assert_spread(case["flops_per_second"])
        self.assertEqual(set(itertools.product((1, 2), (33, 64), (16, 40), (4, 2), ("full", "causal"), ("forward", "backward"))), set(found))

    def test_one_query_over_many_keys(self):
        report = json.loads(self.ok("kernels", "--seq-length", "1,3", "--kv-seq-length", 500, "--head-dim", 64, "--dtype", "f32,bf16", "--num-kv-heads", 1,
                                    "--direction", "forward", "--cp-attention-mask-type", "causal", *QUICK, "--format", "json"))
        self.assertEqual(4, len(report["cases"]))
        for case in report["cases"]:
            self.assertEqual(forward_flops(case["seq_length"], 500, 4, 64, True), case["flops"])
            self.assertEqual(2 * 500 * 64 * (4 if case["dtype"] == "f32" else 2), case["kv_bytes"])

    def test_a_table_for_people_into_a_file(self):
        path = self.folder / "kernels.txt"
        self.assertEqual("", self.ok("kernels", "--seq-length", 64, "--head-dim", 32, *QUICK, "--output", path))
        text = path.read_text()
        for word in ("share", "limit", "causal", "backward", "GFLOP/s"):
            self.assertIn(word, text)
        self.assertEqual([path], list(self.folder.iterdir()), "nothing beside the file")

    def test_a_refused_run_leaves_the_old_file(self):
        path = self.folder / "kernels.txt"
        path.write_text("old")
        self.refused(USAGE, ["kernels", "--head-dim", 12, "--output", path], "--head-dim", "12", "16 to 256")
        self.assertEqual("old", path.read_text())

    def test_bad_flags(self):
        self.refused(USAGE, [], "subcommand")
        self.refused(USAGE, ["kernels", "--seq-length", "64,0"], "--seq-length", "0")
        self.refused(USAGE, ["kernels", "--seq-length", "64,64"], "--seq-length", "twice")
        self.refused(USAGE, ["kernels", "--num-kv-heads", "4,3"], "--num-kv-heads", "3", "multiple")
        self.refused(USAGE, ["kernels", "--dtype", "f32,f64"], "--dtype", "f64")
        self.refused(USAGE, ["kernels", "--threads", 0], "--threads", "0")
        self.refused(USAGE, ["kernels", "--rounds", 0], "--rounds", "0")
        self.refused(USAGE, ["kernels", "--min-time", "long"], "--min-time", "long")
        self.refused(USAGE, ["kernels", "--compute-plugin", "absent"], "--compute-plugin", "absent")
        self.refused(USAGE, ["kernels", "--compute-provider", "absent"], "--compute-provider", "absent", "vectors")
        self.refused(USAGE, ["kernels", "--output", self.folder / "no/such/folder/x"], "--output", "no/such/folder")
        self.refused(USAGE, ["ring", *RING, "--input", "x.safetensors"], "--input")
        self.refused(USAGE, ["ring", *RING, "--cp-window-size", 3], "window", "3")
        self.refused(USAGE, ["ring", *RING, "--coordinator", "127.0.0.1:1"], "--threads", "--coordinator")

    def assert_phase(self, phase, flops):
        self.assertEqual(flops, phase["flops"])
        self.assert_share(phase["share"])
        for name in ("wall_seconds", "flops_per_second", "window_share", "kernel_seconds", "ring_efficiency"):
            self.assert_spread(phase[name])
        self.assertAlmostEqual(flops, phase["wall_seconds"]["min"] * phase["flops_per_second"]["max"], delta=1e-6 * flops)
        self.assertTrue(0 <= phase["overlap_ratio"] <= 1)

    def test_a_provider_by_name(self):
        for arguments in (["kernels", "--seq-length", 64, "--head-dim", 16, *QUICK], ["ring", *RING, "--threads", 1]):
            report = json.loads(self.ok(*arguments, "--compute-provider", "vectors", "--format", "json"))
            for device in report["devices"] if arguments[0] == "kernels" else [report["device"]]:
                self.assertNotIn(" with ", device["description"])
        self.refused(USAGE, ["ring", *RING, "--threads", 1, "--compute-provider", "absent"], "absent", "vectors")

    def test_a_ring_of_its_own(self):
        path = self.folder / "ring.json"
        self.assertEqual("", self.ok("ring", *RING, "--backward", "--threads", 2, "--format", "json", "--output", path))
        report = json.loads(path.read_text())
        self.assertEqual("annulus.bench.ring.v1", report["schema"])
        self.assertEqual((2, 4), (report["worker_threads"], report["device"]["threads"]))
        self.assertEqual((2, 96, "causal"), tuple(report["shape"][name] for name in ("context_parallel_size", "seq_length", "mask")))
        flops = forward_flops(96, 96, 4, 32, True)
        self.assert_phase(report["forward"], flops)
        self.assert_phase(report["backward"], 2.5 * flops)

    def test_a_ring_that_runs(self):
        with Cluster(workers=2) as cluster:
            out = self.ok("ring", *RING, "--coordinator", cluster.address, "--threads", 1)
            for word in ("ring efficiency", "overlap", f"coordinator {cluster.address}"):
                self.assertIn(word, out)
            groups = json.loads(Cluster.command("groups", "--coordinator", cluster.address, "--format", "json").stdout)
            self.assertEqual([], groups["groups"], "its own group is gone")


if __name__ == "__main__":
    unittest.main()
