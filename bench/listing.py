#!/usr/bin/env python3
"""Listing: a bucket of 1,000,000 keys (--keys), pages of 1,000: the time of the first and the last page, cold and warm, as one client sees it."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/e2e"))
from node import BINARY, Node  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--keys", type=int, default=1_000_000)
parser.add_argument("--runs", type=int, default=20)
args = parser.parse_args()

with Node("--drives", "4", "--drive-size", "8GiB", "--log-level", "warning") as node:
    started = time.time()
    loaded = subprocess.run([BINARY, "bench", "put", "--size", "16", "--objects", str(args.keys), "--connections", "64", "--threads", "2", "--root", node.root,
                             "--bucket", "million", "--each-once", "--keep", "--json"], check=True, capture_output=True, text=True)
    print(f"{args.keys} keys put in {time.time() - started:.0f} s ({json.loads(loaded.stdout)['requests_per_second']:.0f}/s)")

    def cpu_seconds():
        fields = open(f"/proc/{node.process.pid}/stat").read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def page(query):
        start = time.perf_counter()
        status, _, body = node.s3("GET", "/million", query=query)
        elapsed = (time.perf_counter() - start) * 1e3
        assert status == 200, body[:300]
        return elapsed, body

    marker = f"bench%2F996%2F{0:08d}"
    for name, query in [("first page", "list-type=2&max-keys=1000"), ("last page", "list-type=2&max-keys=1000&start-after=" + marker)]:
        times = []
        before = cpu_seconds()
        for _ in range(args.runs):
            elapsed, body = page(query)
            times.append(elapsed)
        cpu = (cpu_seconds() - before) / args.runs * 1e3
        print(f"{name}: {body.count(b'<Key>')} keys, median {statistics.median(times):.2f} ms, best {min(times):.2f} ms, first {times[0]:.2f} ms, worst {max(times):.2f} ms (with connection and one signature); server CPU {cpu:.2f} ms a page")
