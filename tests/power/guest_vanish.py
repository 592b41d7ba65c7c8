#!/usr/bin/env python3
"""Runs inside the guest: a node whose drives vanish under load, one after another, and come back. Each way is one that the kernel has:

    pull       the PCI function of a virtio or NVMe disk is removed, and found again by a rescan
    unbind     the driver lets go of a virtio disk, and takes it again
    delete     a SCSI disk is deleted, and found again by a scan of its host (scsi_debug: the disk is memory of the guest)
    error      the device mapper's table becomes `error`: each access fails
    flakey     it becomes `flakey`, up for a second and down for three

For each: the node says why the drive is out of use, writes go on, it is enabled again, and takes data. At the end every object is read, fsck and a
scrub find nothing, and once more after a restart. It says what guest_load.py says, and

    GONE WAY DRIVE SECONDS REASON   out of use so long after it vanished
    BACK WAY DRIVE SECONDS          in use again so long after the device was back
"""
import glob
import json
import os
import subprocess
import sys
import time

import guest_disks
from guest_load import BUCKETS, Writers, read_back, say

from node import Node  # found by guest_load's path

BY_NAME = "/run/by-name"  # what udev would keep: names that stay, whatever the kernel calls the device this time


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def wait_for(what, seconds, told):
    deadline = time.time() + seconds
    while True:
        found = what()
        if found:
            return found
        if time.time() > deadline:
            raise AssertionError(f"not within {seconds} s: {told() if callable(told) else told}")
        time.sleep(0.3)


def block_of(serial):
    """The block device with this serial number, or None."""
    for block in glob.glob("/sys/block/vd*") + glob.glob("/sys/block/nvme*n*"):
        for place in ("serial", "device/serial"):
            try:
                with open(f"{block}/{place}") as f:
                    if f.read().strip() == serial:
                        return block
            except OSError:
                pass
    return None


class Pulled:
    """The PCI function goes: all that the machine knows of the disk."""
    way = "pull"

    def __init__(self, serial):
        self.serial = serial
        self.device = f"/dev/{os.path.basename(block_of(serial))}"

    def function(self):
        where = os.path.realpath(f"{block_of(self.serial)}/device")
        while not os.path.exists(f"{where}/rescan"):
            where = os.path.dirname(where)
        return where

    def vanish(self):
        write(f"{self.function()}/remove", "1")

    def come_back(self):
        write("/sys/bus/pci/rescan", "1")
        block = wait_for(lambda: block_of(self.serial), 30, f"{self.serial} is not found again")
        self.device = f"/dev/{os.path.basename(block)}"


class Unbound(Pulled):
    way = "unbind"

    def vanish(self):
        self.virtio = os.path.basename(os.path.realpath(f"{block_of(self.serial)}/device"))
        write("/sys/bus/virtio/drivers/virtio_blk/unbind", self.virtio)

    def come_back(self):
        write("/sys/bus/virtio/drivers/virtio_blk/bind", self.virtio)
        super().come_back()


class Deleted:
    way = "delete"

    def __init__(self, mib):
        guest_disks.must("modprobe", "sd_mod")
        guest_disks.must("modprobe", "scsi_debug", f"dev_size_mb={mib}", "delay=0")
        self.find()

    def find(self):
        block = wait_for(lambda: glob.glob("/sys/block/sd*"), 30, "there is no SCSI disk")[0]
        self.device = f"/dev/{os.path.basename(block)}"

    def vanish(self):
        write(f"/sys/block/{os.path.basename(self.device)}/device/delete", "1")

    def come_back(self):
        for scan in glob.glob("/sys/class/scsi_host/host*/scan"):
            write(scan, "- - -")
        self.find()


class Mapped:
    """A linear mapping of a disk whose table is exchanged."""

    def __init__(self, serial, way):
        self.way, self.below = way, guest_disks.disk(serial)
        self.sectors = int(guest_disks.must("blockdev", "--getsz", self.below))
        guest_disks.must("modprobe", "dm-mod")
        guest_disks.must("modprobe", "dm-flakey")
        self.name = f"mapped-{serial}"
        # The disk below is never free: a node would find its drive there, and take it.
        guest_disks.must("dmsetup", "create", f"held-{serial}", "--table", f"0 {self.sectors} linear {self.below} 0")
        guest_disks.must("dmsetup", "create", self.name, "--table", f"0 {self.sectors} linear {self.below} 0")
        self.device = f"/dev/mapper/{self.name}"

    def load(self, table):
        guest_disks.must("dmsetup", "suspend", "--noflush", "--nolockfs", self.name)
        guest_disks.must("dmsetup", "load", self.name, "--table", f"0 {self.sectors} {table}")
        guest_disks.must("dmsetup", "resume", self.name)

    def vanish(self):
        self.load("error" if self.way == "error" else f"flakey {self.below} 0 1 3")

    def come_back(self):
        self.load(f"linear {self.below} 0")


class Drive:
    """A drive of the node on a disk that can vanish, raw or in a directory on a file system."""

    def __init__(self, disk, kind, name, fs="ext4"):
        self.disk, self.kind, self.fs = disk, kind, fs
        self.link = os.path.join(BY_NAME, name)
        self.where = os.path.join(guest_disks.MOUNTED, name)
        self.name_device()
        if kind != "raw":
            os.makedirs(self.where, exist_ok=True)
            guest_disks.must("modprobe", fs)
            guest_disks.must(*guest_disks.MAKE[fs], self.link)
            guest_disks.must("mount", "-t", fs, self.link, self.where)
        self.device = self.link if kind == "raw" else f"{kind}:{self.where}/store"

    def name_device(self):
        if os.path.islink(self.link):
            os.unlink(self.link)
        os.symlink(self.disk.device, self.link)

    def come_back(self):
        if self.kind != "raw":
            guest_disks.must("umount", self.where)
        self.disk.come_back()
        self.name_device()
        if self.kind != "raw":
            guest_disks.must("mount", "-t", self.fs, self.link, self.where)


class Watched:
    """The node, and the drive that vanishes now."""

    def __init__(self, node, number, drive, load):
        self.node, self.number, self.drive, self.load = node, number, drive, load
        self.label = f"{drive.disk.way} {number}:{drive.kind}"

    def state(self):
        return next(d for d in self.node.admin("GET", "/v1/status")["drives"] if d["number"] == self.number)

    def out_of_use(self):
        state = self.state()
        return state if state["reason"] and (state["state"] == "disabled" or self.drive.kind == "raw") else None

    def goes_on(self, count=8, seconds=90):
        goal = self.load.acknowledged + count
        wait_for(lambda: self.load.acknowledged >= goal, seconds, lambda: f"{self.label}: only {self.load.acknowledged - goal + count} of {count} requests "
                 f"were acknowledged; the drive: {self.state()}")

    def enable(self):
        done = self.node.cli("device", "enable", str(self.number), check=False)
        self.refused = done.stderr
        return done.returncode == 0

    def go_through(self):
        self.goes_on()
        self.drive.disk.vanish()
        began = time.time()
        state = wait_for(self.out_of_use, 60, lambda: f"{self.label}: the node does not say why the drive is out of use: {self.state()}")
        say("GONE", *self.label.split(), round(time.time() - began, 1), state["state"], state["reason"])
        assert state["reason"] in self.node.cli("status", check=False).stdout, "quarry status does not say why"
        self.goes_on()
        if self.drive.disk.way != "flakey":  # it works now and then
            refused = self.node.cli("device", "enable", str(self.number), check=False)
            assert refused.returncode != 0 and refused.stderr, f"{self.label}: a drive that is not there was enabled: {self.state()}"
        if self.drive.kind != "raw":  # the node has let go of it, so it can be unmounted
            wait_for(lambda: subprocess.run(["fuser", "-sm", self.drive.where]).returncode != 0, 30, f"{self.label}: its files stay open")
        self.drive.come_back()
        began = time.time()
        wait_for(self.enable, 40, lambda: f"{self.label}: it cannot be enabled: {self.refused}")
        self.is_used()
        say("BACK", *self.label.split(), round(time.time() - began, 1))

    def is_used(self):
        """It takes new data, and its state says nothing bad."""
        lowest = self.state()["used_bytes"]

        def more():
            nonlocal lowest
            self.goes_on(3)
            state = self.state()
            lowest, grown = min(lowest, state["used_bytes"]), state["used_bytes"] > lowest
            return grown and state["state"] == "active" and not state["reason"]
        wait_for(more, 120, lambda: f"{self.label}: it takes no data: {self.state()}")


def rest(node, seconds=240):
    def idle():
        repair = node.admin("GET", "/v1/status")["repair"]
        return repair["pending_writes"] == 0 and repair["activity"] == "idle"
    wait_for(idle, seconds, lambda: f"no rest: {node.admin('GET', '/v1/status')['repair']}")


def scrub(node):
    """All bytes are right, and no chunk is missing."""
    before = node.admin("GET", "/v1/status")["scrub"]["last_complete"]
    node.cli("scrub")
    status = wait_for(lambda: (lambda s: s if s["last_complete"] != before and s["state"] == "idle" else None)(node.admin("GET", "/v1/status")["scrub"]), 300,
                      "the scrub does not end")
    if status["damaged"]:
        say("WRONG", "-", f"the scrub finds {status}")


def main():
    what = json.loads(sys.argv[1])
    os.makedirs(BY_NAME)
    os.makedirs("/run/root")
    kinds = what["kinds"]  # of the drives that vanish
    disks = [Pulled("virtio-a"), Unbound("virtio-b"), Pulled("nvme-a"), Deleted(512), Mapped("mapped-a", "error"), Mapped("mapped-b", "flakey")]
    drives = [Drive(disk, kinds[i % len(kinds)], f"drive-{i}", what["fs"]) for i, disk in enumerate(disks)]
    node = Node(*[a for d in drives for a in ("--device", d.device)], root="/run/root/node")
    os.makedirs(node.root)
    node.patience_s = 300
    say("BOOT")
    node.start()
    for bucket in BUCKETS:
        node.create_bucket(bucket)
        say("ACK", "-" + bucket, 0, 0)
    node.cli("bucket", "set", "versions", "--versioning", "enabled", "--redundancy", "mirror:3", "--inline-limit", "0")
    say("LOAD")
    load = Writers(node, what["workers"], what["seed"], 1000, refused=lambda status, text: status == 503)
    for i in what["order"]:
        Watched(node, i + 1, drives[i], load).go_through()
    load.stop.set()
    load.join()
    for again in (False, True):
        if again:
            assert node.stop() == 0, "SIGTERM does not end the node cleanly"
            node.start()
        rest(node)
        found, _ = read_back(node)
        node.fsck()
        scrub(node)
        say("CHECKED", len(found))
    assert node.stop() == 0, "SIGTERM does not end the node cleanly"


try:
    main()
except Exception as error:  # noqa: BLE001: the host reports it
    say("FAIL", repr(error)[:1500].replace("\n", " "))
    subprocess.run(["sh", "-c", "tail -n 15 /run/root/node/node.log >&2; dmesg | tail -5 >&2"])
    sys.exit(1)
