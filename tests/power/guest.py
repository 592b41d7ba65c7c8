#!/usr/bin/env python3
"""Runs inside the guest: mounts the drives' file systems, starts a node on them, reads back everything that is there, checks the store, looks
at the mountpaths with the node stopped, then writes, overwrites and deletes until the power goes. What it says: guest_load.py."""
import json
import os
import subprocess
import sys
import time

import guest_disks
from guest_load import BUCKETS, Writers, abort_uploads, bucket_of, contents, listed, read_back, say, versions_of

from node import Node  # found by guest_load's path


def start(node):
    say("BOOT")
    began = time.time()
    log = os.path.join(node.root, "node.log")
    node.log_begins = os.path.getsize(log) if os.path.exists(log) else 0
    node.start()
    say("UP", round(time.time() - began, 1))


def nothing_was_masked(node):
    """Redundancy hides what one drive lost. So: every stored byte is checked, every chunk is looked for, and nothing had to be repaired."""
    before = node.admin("GET", "/v1/status")["scrub"]["last_complete"]
    node.cli("scrub")
    deadline = time.time() + 300
    while True:
        status = node.admin("GET", "/v1/status")
        if status["scrub"]["last_complete"] != before and status["scrub"]["state"] == "idle":
            break
        assert time.time() < deadline, f"the scrub does not end: {status['scrub']}"
        time.sleep(0.3)
    counts = {f"repair: {name}": status["repair"][name] for name in ("repaired_writes", "lost_writes", "changed_writes")}
    counts |= {f"scrub: {name}": status["scrub"][name] for name in ("damaged", "repaired")}
    counts |= {f"drive {d['number']}: {name}": d[name] for d in status["drives"] for name in ("read_errors", "write_errors", "checksum_errors")}
    for name, count in counts.items():
        if count:
            say("WRONG", "-", f"{name}: {count}: something was lost, and redundancy hid it")
    with open(os.path.join(node.root, "node.log"), errors="replace") as f:
        f.seek(node.log_begins)
        for line in f:
            if "level=warning" in line or "level=error" in line:
                say("WARNED", line.strip()[:400])


def comes_to_rest(node, hidden, mountpaths, seconds=120):
    """Until repair is done, and what uncommitted writes left is swept."""
    deadline = time.time() + seconds
    while True:
        status = node.admin("GET", "/v1/status")
        waiting = sum(len(guest_disks.must("find", f"{m}/.quarry/hidden", "-type", "f").split()) for m in mountpaths) if hidden is not None else 0
        if status["repair"]["pending_writes"] == 0 and status["repair"]["activity"] == "idle" and waiting == (hidden or 0):
            return
        if time.time() > deadline:
            say("FAIL", f"no rest after {seconds} s: {json.dumps(status['repair'])[:600]}, {waiting} files are hidden instead of {hidden}")
            sys.exit(1)
        time.sleep(0.5)


def compare_trees(node, what, found, older):
    """With the node stopped. Returns whether there are mountpaths."""
    mountpaths = [f"{guest_disks.MOUNTED}/{d['name']}/store" for d in what["drives"] if d["kind"] == "dir"]
    if not mountpaths:
        return False
    whole = what["copies"] is not None  # every object is a file, on so many drives
    hidden = older * what["copies"] if whole else None
    abort_uploads(node)
    comes_to_rest(node, hidden, mountpaths)
    assert node.stop() == 0, "SIGTERM does not end the node cleanly"
    expected = {f"{bucket_of(key)}/{key}": contents(key, *one) for key, one in found.items()}
    complaints, files = guest_disks.complaints_of_trees(mountpaths, expected, what["copies"], hidden)
    for path, complaint in complaints[:20]:
        say("WRONG", path.replace(" ", "_"), complaint)
    say("TREE", files)
    return True


def make_buckets(node, mirrored):
    for bucket in BUCKETS:
        if node.s3("HEAD", f"/{bucket}")[0] == 200:
            continue
        node.create_bucket(bucket)
        if bucket == "versions":
            # In a mixed pool only mirrored objects are files.
            node.cli("bucket", "set", bucket, "--versioning", "enabled", *(["--redundancy", "mirror:2", "--inline-limit", "0"] if mirrored else []))
        say("ACK", "-" + bucket, 0, 0)


def put_away(node, what, mountpaths):
    """At the end: everything is deleted, and then nothing is left."""
    for bucket in BUCKETS:
        for key in listed(node, bucket) or []:
            assert node.s3("DELETE", f"/{bucket}/{key}")[0] == 204
    for key, version in versions_of(node, "versions"):
        assert node.s3("DELETE", f"/versions/{key}", query=f"versionId={version}")[0] == 204
    comes_to_rest(node, 0 if mountpaths else None, mountpaths)
    node.fsck()
    assert node.stop() == 0, "SIGTERM does not end the node cleanly"
    for drive in what["devices"]:
        kind = drive.split(":")[0]
        guest_disks.must(os.environ["QUARRY"], "device", "fsck", drive)
        if kind == "dir":
            complaints, files = guest_disks.complaints_of_trees([drive[4:]], {}, None, 0)
            for path, complaint in complaints:
                say("WRONG", path, f"all was deleted, and {complaint}")


def main():
    what = json.loads(sys.argv[1])
    os.makedirs("/run/root", exist_ok=True)
    if what["kept_root"]:
        fresh = subprocess.run(["blkid", guest_disks.disk("root")], capture_output=True).returncode != 0
        try:
            os.symlink(guest_disks.mount("root", "ext4", "defaults", fresh), "/run/root/disk")
        except AssertionError:  # cut while it was made
            os.symlink(guest_disks.mount("root", "ext4", "defaults", True), "/run/root/disk")
    root = "/run/root/disk/node" if what["kept_root"] else "/run/root/node"
    os.makedirs(root, exist_ok=True)
    what["devices"] = [guest_disks.prepare(d, what["fresh"]) for d in what["drives"]]
    more = ["--profile", what["profile"]] if what["profile"] else []
    node = Node(*[a for d in what["devices"] for a in ("--device", d)], *more, root=root)
    node.patience_s = 300
    start(node)
    found, older = read_back(node)
    node.fsck()
    nothing_was_masked(node)
    stopped = compare_trees(node, what, found, older)
    say("CHECKED", len(found))
    if what["last"]:
        if stopped:
            start(node)
        put_away(node, what, [d[4:] for d in what["devices"] if d.startswith("dir:")] if what["copies"] is not None else [])
        for drive in what["drives"]:
            if drive["kind"] != "raw":
                guest_disks.check_file_system(drive["name"], drive["fs"], f"{guest_disks.MOUNTED}/{drive['name']}")
        say("STOPPED")
        return
    if stopped:
        start(node)
    make_buckets(node, what["mirrored"])
    say("LOAD")
    Writers(node, what["workers"], what["seed"], what["first_version"]).join()


try:
    main()
except Exception as error:  # noqa: BLE001: the host reports it
    say("FAIL", repr(error)[:1500].replace("\n", " "))
    subprocess.run(["sh", "-c", "dmesg | tail -5 >&2"])
    sys.exit(1)
