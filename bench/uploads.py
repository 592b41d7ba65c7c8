#!/usr/bin/env python3
"""Memory of the server while 64 (--uploads) objects of 1 GiB (--size) are uploaded at once, sampled ten times a second."""
import argparse
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/e2e"))
from node import BINARY, Node  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--uploads", type=int, default=64)
parser.add_argument("--size", default="1GiB")
parser.add_argument("--drive-size", default="24GiB")
parser.add_argument("--profile", default="ec:4+2", help="ec:6+0 needs a third less disk")
args = parser.parse_args()

with Node("--drives", "6", "--drive-size", args.drive_size, "--profile", args.profile, "--log-level", "warning") as node:
    samples = []
    done = threading.Event()

    def watch():
        while not done.is_set():
            for line in open(f"/proc/{node.process.pid}/status"):
                if line.startswith("VmRSS"):
                    samples.append(int(line.split()[1]) / 1024)
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run = subprocess.run([BINARY, "bench", "put", "--size", args.size, "--objects", str(args.uploads), "--connections", str(args.uploads), "--root", node.root, "--each-once",
                          "--keep", "--json"], capture_output=True, text=True)
    done.set()
    watcher.join()
    if run.returncode != 0:
        sys.exit(run.stdout + run.stderr)
    result = json.loads(run.stdout)
    third = max(1, len(samples) // 3)
    print(f"{result['requests']} uploads of {args.size} at {result['mib_per_second']:.0f} MiB/s: server memory peak {max(samples):.0f} MiB, "
          f"mean of the first third {sum(samples[:third]) / third:.0f} MiB, of the last third {sum(samples[-third:]) / third:.0f} MiB")
    sys.exit(0 if max(samples) < 1024 else 1)
