"""On the host: what the guest is given (the binary with its libraries, these scripts), and how it is booted."""
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
FILE_SYSTEMS = ["ext4", "xfs", "btrfs"]
# Each boot mounts an ext4 in one of these ways. The first is what Debian does; the last keeps file names in order but not their bytes.
MOUNT_OPTIONS = {"ext4": ["defaults", "data=ordered,barrier=1", "data=writeback"], "xfs": ["defaults"], "btrfs": ["defaults"]}


def arguments(parser, rounds):
    """What every script here takes."""
    parser.add_argument("--vm-run", default=os.environ.get("VM_RUN"), help="the program that boots the guest (default: $VM_RUN)")
    parser.add_argument("--quarry", default=os.path.join(here, "../../build/release/quarry"))
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bus", choices=["virtio", "nvme", "both"], default="both")
    parser.add_argument("--keep", action="store_true", help="leave the drives' images")


class Bench:
    """A folder with what the guest needs and the images of its disks."""

    def __init__(self, options, parser):
        if not options.vm_run:
            parser.error("say which program boots the guest: --vm-run PATH or the environment's VM_RUN (tests/power/README.md)")
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="quarry-power-", dir="/var/tmp")
        self.disks = os.path.join(self.folder, "disks")
        self.share = os.path.join(self.folder, "share")
        os.makedirs(self.disks)
        pack(os.path.realpath(options.quarry), self.share)

    def boot(self, rng, disks, program, what, cut=None, timeout=900):
        """Runs tests/power/PROGRAM in the guest, with `what` as JSON. disks: (bus, size, name); cut: (regular expression, seconds after it)."""
        command = [self.options.vm_run, "--keep-disks", self.disks, "--share", self.share + ":/share,ro", "--mem", "2G", "--timeout", str(timeout),
                   "--cut-seed", str(rng.randrange(1 << 30))]
        for bus, size, name in disks:
            command += ["--disk" if bus == "virtio" else "--nvme", f"{size},serial={name},volatile"]
        if cut:
            command += ["--kill-on", cut[0], "--kill-delay", f"{cut[1]:.2f}"]
        # The shared folder keeps nothing in the guest's memory: each start would fetch it again.
        script = ("mkdir /run/quarry && cp -r /share/lib /share/quarry.bin /run/quarry/ && export QUARRY=/share/quarry; "
                  f"exec python3 -u /share/tests/power/{program} {shlex.quote(json.dumps(what))}")
        return subprocess.run(command + [script], capture_output=True, text=True, errors="replace")

    def keep_output(self, process, **more):
        with open(os.path.join(self.folder, "failed-round.txt"), "w") as f:
            f.write(process.stdout + "\n--- stderr\n" + process.stderr)
        for name, content in more.items():
            with open(os.path.join(self.folder, name + ".json"), "w") as f:
                json.dump(content, f, default=sorted)

    def close(self, failed):
        if self.options.keep or failed:
            print("drives and output are left in", self.folder)
        else:
            shutil.rmtree(self.folder)


def whole_lines(process):
    """The words of each line that came whole: the last one may be cut."""
    return [line.split() for line in process.stdout.split("\n")[:-1] if line.split()]


def pack(binary, folder):
    """The binary with the libraries it needs, so that the guest needs none."""
    os.makedirs(os.path.join(folder, "lib"))
    os.makedirs(os.path.join(folder, "tests"))
    shutil.copy(binary, os.path.join(folder, "quarry.bin"))
    loader = None
    for line in subprocess.check_output(["ldd", binary], text=True).splitlines():
        match = re.search(r"(/\S+) \(0x", line)
        if match:
            shutil.copy(match[1], os.path.join(folder, "lib"))
            if "ld-linux" in match[1]:
                loader = os.path.basename(match[1])
    with open(os.path.join(folder, "quarry"), "w") as f:
        f.write(f'#!/bin/sh\nexec /run/quarry/lib/{loader} --library-path /run/quarry/lib /run/quarry/quarry.bin "$@"\n')
    os.chmod(os.path.join(folder, "quarry"), 0o755)
    for name in ("power", "e2e"):
        shutil.copytree(os.path.join(here, "..", name), os.path.join(folder, "tests", name))
