#!/usr/bin/env python3
"""Runs inside the guest: `quarry kfs` on its own, one store on each of several file systems. First what is there is verified and read back, then
files are written and unlinked until the power goes. It says, besides BOOT, LOAD and FAIL (STORE is the file system):

    FILE STORE HASH SIZE         listed, and its bytes have this hash
    WRONG STORE REASON
    SWEPT STORE COUNT            leftovers of interrupted writes that were found and removed
    CHECKED FILES                all were read, verify found every store sound
    TRY STORE write|unlink HASH  about to be started
    ACK STORE write|unlink HASH  it ended with status 0
"""
import hashlib
import json
import os
import random
import subprocess
import sys
import threading

import guest_disks
from guest_load import say

SIZES = [0, 100, 65_536, 65_537, 300_000, 1_500_000, 8_388_608, 9_000_001, 20_000_000]
QUARRY = os.environ["QUARRY"]


class Store:
    def __init__(self, fs, what):
        self.fs = fs
        self.where = guest_disks.mount(fs, fs, what["mount"][fs], what["fresh"])
        self.path = os.path.join(self.where, "store")
        self.rng = random.Random(f"{what['seed']} {fs}")
        self.files = set()

    def kfs(self, *command, input=None, check=True):
        done = subprocess.run([QUARRY, "kfs", *command, "--store", self.path], capture_output=True, input=input)
        if check and done.returncode != 0:
            raise AssertionError(f"{self.fs}: kfs {' '.join(command)}: status {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
                                 f" {done.stdout.decode(errors='replace')[-500:]}")
        return done

    def made(self):
        """The first write makes the store; cut before its end there may be none."""
        return os.path.exists(os.path.join(self.path, "kfs.store"))

    def check(self):
        """Returns the number of files."""
        if not self.made():
            return 0
        found = json.loads(self.kfs("verify", "--json").stdout)
        say("SWEPT", self.fs, found["leftovers_removed"])
        if not found["sound"] or found["damaged"] or found["repaired"]:
            say("WRONG", self.fs, f"verify finds {json.dumps(found)[:600]}")
        listed = {one["hash"]: one["size"] for one in json.loads(self.kfs("list", "--json").stdout)}
        for name, size in listed.items():
            content = self.kfs("read", name).stdout
            if hashlib.sha256(content).hexdigest() != name or len(content) != size:
                say("WRONG", self.fs, f"{name} reads as {len(content)} bytes of hash {hashlib.sha256(content).hexdigest()}, listed with {size}")
            say("FILE", self.fs, name, size)
        stat = json.loads(self.kfs("stat", "--json").stdout)
        if (stat["files"], stat["payload_bytes"]) != (len(listed), sum(listed.values())) or stat["failures"]:
            say("WRONG", self.fs, f"{len(listed)} files of {sum(listed.values())} bytes are listed, and stat says {json.dumps(stat)[:300]}")
        again = json.loads(self.kfs("verify", "--shallow", "--json").stdout)
        if again["leftovers_removed"] or not again["sound"]:
            say("WRONG", self.fs, f"a second verify still finds {json.dumps(again)[:300]}")
        self.files = set(listed)
        return len(listed)

    def work(self):
        gone = []  # what it was made from, to be written again
        made_from = {}
        try:
            while True:
                dice = self.rng.random()
                if dice < 0.05:
                    self.kfs("compact")
                elif dice < 0.4 and self.files:
                    name = self.rng.choice(sorted(self.files))
                    say("TRY", self.fs, "unlink", name)
                    self.kfs("unlink", name)
                    say("ACK", self.fs, "unlink", name)
                    self.files.discard(name)
                    gone += [made_from[name]] if name in made_from else []
                else:
                    # Sometimes one that is there already, or was there.
                    again = self.rng.random() < 0.2 and (gone or list(made_from.values()))
                    seed, size = self.rng.choice(again) if again else (self.rng.randrange(1 << 40), self.rng.choice(SIZES))
                    content = random.Random(seed).randbytes(size)
                    name = hashlib.sha256(content).hexdigest()
                    made_from[name] = (seed, size)
                    say("TRY", self.fs, "write", name)
                    said = self.kfs("write", "-", input=content).stdout.split()[0].decode()
                    assert said == name, f"{self.fs}: write says {said} instead of {name}"
                    say("ACK", self.fs, "write", name)
                    self.files.add(name)
        except Exception as error:  # noqa: BLE001: the host reports it
            say("FAIL", repr(error)[:1500].replace("\n", " "))

    def put_away(self):
        """At the end: everything is unlinked, and the space comes back."""
        if not self.made():
            return
        for name in self.files:
            self.kfs("unlink", name)
        self.kfs("compact")
        self.check()
        buckets = os.path.join(self.path, "buckets")
        if os.path.exists(buckets):
            left, number = int(guest_disks.must("du", "-s", "--block-size=1", buckets).split()[0]), len(os.listdir(buckets))
            if left > number * (256 << 10):
                say("WRONG", self.fs, f"all was unlinked and compacted, and {left} bytes are left in {number} buckets")
        guest_disks.check_file_system(self.fs, self.fs, self.where)


def side_by_side(calls):
    results, threads = [None] * len(calls), []

    def one(i, call):
        try:
            results[i] = call()
        except Exception as error:  # noqa: BLE001: the host reports it
            say("FAIL", repr(error)[:1500].replace("\n", " "))
    for i, call in enumerate(calls):
        threads.append(threading.Thread(target=one, args=(i, call)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return results


def main():
    what = json.loads(sys.argv[1])
    stores = [Store(fs, what) for fs in what["mount"]]
    say("BOOT")
    counts = side_by_side([store.check for store in stores])
    if None in counts:
        sys.exit(1)
    say("CHECKED", sum(counts))
    if what["last"]:
        side_by_side([store.put_away for store in stores])
        return
    say("LOAD")
    side_by_side([store.work for store in stores])


try:
    main()
except Exception as error:  # noqa: BLE001: the host reports it
    say("FAIL", repr(error)[:1500].replace("\n", " "))
    sys.exit(1)
