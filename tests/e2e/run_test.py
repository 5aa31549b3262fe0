#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`annulus run` and its neighbours as a person uses them, with a cluster of their own and against a running one."""
import json
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree

from cluster import Cluster

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "client/examples/data/licenses-1k.safetensors"
SHAPE = ["--seq-length", 300, "--num-heads", 4, "--num-kv-heads", 2, "--head-dim", 32, "--cp-attention-mask-type", "causal"]
RING = ["--context-parallel-size", 4, "--cp-window-size", 2]
REPORT_FIELDS = {"wall_seconds", "compute_seconds", "comm_seconds", "exposed_comm_seconds", "overlap_ratio", "relative_rmse", "lse_max_abs_error",
                 "gradient_relative_rmse", "plan_digest", "peak_bytes_per_worker", "bytes_moved"}


class Run(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="annulus-e2e-")
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def ok(self, result):
        self.assertEqual(0, result.returncode, result.stdout + result.stderr)
        return result.stdout

    def test_the_example_verifies_and_reports(self):
        report, trace = self.folder / "report.json", self.folder / "run.trace.json"
        out = self.ok(Cluster.command("run", "--input", EXAMPLE, *RING, "--cp-attention-mask-type", "causal", "--layout", "zigzag", "--backward", "--verify",
                                      "--report", report, "--trace", trace, "--output", self.folder / "out.safetensors"))
        self.assertIn("overlap", out)
        content = json.loads(report.read_text())
        self.assertLessEqual(REPORT_FIELDS, set(content))
        self.assertGreater(content["bytes_moved"]["inner"], 0)
        self.assertIn("memfd", json.dumps(content))
        svg = self.ok(Cluster.command("trace", trace, "--format=svg"))
        self.assertTrue(xml.etree.ElementTree.fromstring(svg).tag.endswith("svg"))
        events = json.loads(trace.read_text())["traceEvents"]
        self.assertEqual({0, 1, 2, 3}, {e["pid"] for e in events if e["ph"] == "X"})

    def test_ten_runs_give_the_same_bytes(self):
        with Cluster(workers=4) as cluster:
            outputs = set()
            for number in range(10):
                path = self.folder / f"{number}.safetensors"
                self.ok(cluster.run(*SHAPE, *RING, "--dtype", "bf16", "--backward", "--seed", 7, "--output", path))
                outputs.add(path.read_bytes())
            self.assertEqual(1, len(outputs))

    def test_every_data_path_and_transfer_mode_verifies(self):
        with Cluster(workers=4) as cluster:
            outputs = {}
            for name, flags in {"memfd": ["--data-path", "memfd"], "stream": ["--data-path", "stream"], "no-overlap": ["--no-use-cp-send-recv-overlap"]}.items():
                path, report = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
                self.ok(cluster.run(*SHAPE, *RING, "--backward", "--seed", 7, "--verify", "--output", path, "--report", report, *flags))
                outputs[name] = path.read_bytes()
                if "--data-path" in flags:
                    self.assertIn(flags[1], json.dumps(json.loads(report.read_text())["data_path"]))
            self.assertEqual(outputs["memfd"], outputs["no-overlap"])

    def test_workers_of_two_hosts_meet_over_tcp_and_are_fed_by_streams(self):
        def flags_of(index):
            return ["--host-id", f"host-{index // 2}", "--node", f"node-{index // 2}"]
        with Cluster(workers=4, flags_of=flags_of) as cluster:
            report = self.folder / "report.json"
            self.ok(cluster.run(*SHAPE, *RING, "--backward", "--verify", "--data-path", "stream", "--report", report))
            content = json.loads(report.read_text())
            self.assertGreater(content["bytes_moved"]["outer"], 0)

    def test_npy_in_and_out(self):
        first = self.folder / "first.safetensors"
        self.ok(Cluster.command("run", *SHAPE, *RING, "--seed", 3, "--output", first))
        self.ok(Cluster.command("run", *SHAPE, *RING, "--seed", 3, "--output", self.folder / "o.npy"))

    def test_json_for_programs(self):
        out = self.ok(Cluster.command("run", *SHAPE, *RING, "--verify", "--format", "json"))
        self.assertLessEqual(REPORT_FIELDS, set(json.loads(out)))

    def test_plan_and_check(self):
        for direction in ("forward", "backward"):
            plan = self.folder / f"{direction}.json"
            plan.write_text(self.ok(Cluster.command("plan", *SHAPE[:2], *RING, "--direction", direction, "--format=json")))
            self.ok(Cluster.command("check", plan))
        self.assertIn("step", self.ok(Cluster.command("plan", *SHAPE[:2], *RING)))

    def test_workers_and_groups(self):
        with Cluster(workers=2) as cluster:
            self.ok(cluster.run(*SHAPE, "--context-parallel-size", 2))
            self.assertIn("w0", self.ok(Cluster.command("workers", "--coordinator", cluster.address)))
            groups = json.loads(self.ok(Cluster.command("groups", "--coordinator", cluster.address, "--format", "json")))
            self.assertIsInstance(groups["groups"], list)


if __name__ == "__main__":
    unittest.main()
