"""In the guest: file systems on virtual disks, and what a person finds in a mountpath when no quarry runs."""
import hashlib
import os
import subprocess

MOUNTED = "/run/drives"
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}


def must(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}: {done.stderr[-600:]} {done.stdout[-300:]}")
    return done.stdout


def disk(name):
    return os.path.realpath(f"/dev/disk/by-serial/{name}")


def mount(name, fs, options, fresh):
    """Mounts the disk's file system, made before if it is fresh. Returns where."""
    where = os.path.join(MOUNTED, name)
    os.makedirs(where, exist_ok=True)
    must("modprobe", fs)
    if fresh:
        must(*MAKE[fs], disk(name))
    must("mount", "-t", fs, "-o", options, disk(name), where)
    return where


def check_file_system(name, fs, where):
    """Its own checker finds nothing. Unmounts it."""
    must("umount", where)
    if fs == "ext4":
        must("e2fsck", "-fn", disk(name))
    elif fs == "xfs":
        must("xfs_repair", "-n", disk(name))
    else:
        must("btrfs", "check", disk(name))


def prepare(drive, fresh):
    """The --device of a drive {kind, name, fs, options}."""
    if drive["kind"] == "raw":
        return f"/dev/disk/by-serial/{drive['name']}"  # the same on every bus, as udev's names are
    return f"{drive['kind']}:{os.path.join(mount(drive['name'], drive['fs'], drive['options'], fresh), 'store')}"


def visible(mountpath):
    """What sha256sum says of every file outside .quarry: path -> digest in hex."""
    listed = must("sh", "-c", "find . -path ./.quarry -prune -o -type f -print0 | sort -z | xargs -0 -r sha256sum", cwd=mountpath)
    return {line[66:].removeprefix("./"): line[:64] for line in listed.splitlines()}


def complaints_of_trees(mountpaths, expected, copies, hidden):
    """The visible trees hold exactly the current versions. expected: path as bucket/key -> bytes; copies: files of each, None: at most two;
    hidden: files that may wait unseen in all of them, None: not counted. Returns (path, complaint) and the number of files looked at."""
    complaints, seen, files, waiting = [], {}, 0, 0
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in expected.items()}
    for mountpath in mountpaths:
        for path, digest in visible(mountpath).items():
            files += 1
            name = path.removesuffix("%=")  # the plain name is taken by a directory
            seen[name] = seen.get(name, 0) + 1
            if name not in digests:
                complaints.append((path, f"is visible in {mountpath} and is no current object"))
            elif digest != digests[name]:
                complaints.append((path, f"has other bytes in {mountpath} than the object"))
        own = os.path.join(mountpath, ".quarry")
        for name in os.listdir(os.path.join(own, "unfinished")):
            complaints.append((name, f"is left in {own}/unfinished"))
        if os.path.isdir(os.path.join(own, "displaced")):
            complaints += [(name, f"is in {own}/displaced, and nobody else writes here") for name in os.listdir(os.path.join(own, "displaced"))]
        empty = must("sh", "-c", "find . -path ./.quarry -prune -o -mindepth 1 -type d -empty -print", cwd=mountpath).split()
        complaints += [(name, f"is an empty directory in {mountpath}") for name in empty]
        waiting += len(must("find", os.path.join(own, "hidden"), "-type", "f").split())
    for path in digests:
        if copies is not None and seen.get(path, 0) != copies:
            complaints.append((path, f"is visible {seen.get(path, 0)} times instead of {copies}"))
        elif seen.get(path, 0) > 2:
            complaints.append((path, f"is visible {seen[path]} times"))
    if hidden is not None and waiting != hidden:
        complaints.append(("-", f"{waiting} files are hidden instead of {hidden}: something leaked"))
    return complaints, files
