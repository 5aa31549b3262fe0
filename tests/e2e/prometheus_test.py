#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Both daemons' /metrics pass promtool, and a real Prometheus that scrapes a run sees the overlap that the run's report gives."""
import json
import pathlib
import socket
import subprocess
import time
import unittest
import urllib.parse
import urllib.request

from cluster import Cluster, wait_until

# One long run, on links slow enough that a good part of the communication is exposed: an overlap of 1 would prove little.
RUN = ["--context-parallel-size", 4, "--cp-window-size", 4, "--seq-length", 8192, "--num-heads", 4, "--num-kv-heads", 4, "--head-dim", 64,
       "--backward", "--ranks-per-node", 2, "--emulate-link", "inner=8MB/s,outer=4MB/s", "--deadline", 60]
OVERLAP = "1 - sum(rate(annulus_exposed_comm_seconds_total[1m])) / sum(rate(annulus_step_comm_seconds_total[1m]))"


def fetch(address, path):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
        return answer.read().decode()


class PrometheusServer:
    def __init__(self, folder, targets):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        config = folder / "prometheus.yml"
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [{"job_name": "annulus", "static_configs": [{"targets": targets}]}]}))
        self.process = subprocess.Popen(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                                         f"--web.listen-address={self.address}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def query(self, expression):
        answer = json.loads(fetch(self.address, "/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        result = answer["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def up(self, count):
        try:
            return self.query("sum(up)") == count
        except OSError:
            return False

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


class Metrics(unittest.TestCase):
    def test_scraped_overlap_equals_the_report(self):
        with Cluster(workers=4) as cluster:
            daemons = [cluster.coordinator, *cluster.workers.values()]
            targets = [d.addresses()["metrics"] for d in daemons]
            server = PrometheusServer(cluster.folder, targets)
            self.addCleanup(lambda: server.process.poll() is None and server.process.kill())
            wait_until("Prometheus to scrape every daemon", lambda: server.up(len(targets)), 60)
            report = cluster.folder / "report.json"
            run = cluster.run(*RUN, "--report", report)
            self.assertEqual(0, run.returncode, run.stdout + run.stderr)
            reported = json.loads(report.read_text())["overlap_ratio"]
            scraped_at = time.monotonic()
            # Two more scrapes after the run's end, so that its last counters are in.
            wait_until("the last scrape", lambda: time.monotonic() > scraped_at + 2.5)
            scraped = server.query(OVERLAP)
            print(f"overlap: report {reported:.3f}, Prometheus {scraped:.3f}")
            self.assertGreater(reported, 0.02)
            self.assertLess(reported, 0.98)
            self.assertAlmostEqual(reported, scraped, delta=0.05)
            for daemon, target in zip(daemons, targets):
                text = fetch(target, "/metrics")
                lint = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
                self.assertEqual(0, lint.returncode, f"{daemon.name}: {lint.stdout}{lint.stderr}")
                self.assertIn("annulus_build_info", text)
                self.assertIn("ok", fetch(target, "/healthz"))
            server.stop()


if __name__ == "__main__":
    unittest.main()
