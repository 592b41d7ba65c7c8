"""The guide stays true: every block marked sh in docs/guide/*.md is run, page by page, against a fresh node; a block that cannot run says why
in the line before it: <!-- not run: REASON -->."""
import glob
import os
import re
import shutil
import subprocess

from node import BINARY, Node, random_bytes, scratch

GUIDE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/guide")
BLOCK = re.compile(r"^(<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.S | re.M)


def test_every_command_of_the_guide_is_marked_as_one():
    for page in sorted(glob.glob(os.path.join(GUIDE, "*.md"))):
        text = open(page).read()
        outside = BLOCK.sub("", text)
        indented = [line for line in outside.splitlines() if line.startswith("    ")]
        assert not indented, f"{page}: put commands into a block marked sh, so that this test runs them: {indented[0].strip()}"
        for block in BLOCK.finditer(text):
            assert block["kind"], f"{page}: a block without a kind: {block['text'][:60]}"


def test_the_commands_of_the_guide_work():
    ran = 0
    for page in sorted(glob.glob(os.path.join(GUIDE, "*.md"))):
        blocks = [b["text"] for b in BLOCK.finditer(open(page).read()) if b["kind"] == "sh" and not b["why"]]
        if not blocks:
            continue
        home = scratch()
        try:
            os.makedirs(os.path.join(home, "bin"))
            os.symlink(os.path.abspath(BINARY), os.path.join(home, "bin/quarry"))
            work = os.path.join(home, "work")
            for name, count in (("set", 40), ("other", 3)):
                for i in range(count):
                    path = os.path.join(work, name, f"d{i % 3}", f"file {i}")
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as f:
                        f.write(random_bytes(i * 1000, i))
            with open(os.path.join(work, "big.tar"), "wb") as f:
                f.write(random_bytes(50_000_000, 7))
            os.makedirs(os.path.join(home, "quarry"))
            with Node("--drives", "4", "--drive-size", "512MiB", root=os.path.join(home, "quarry")):
                environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "QUARRY_"))}
                environment.update(HOME=home, PATH=os.path.join(home, "bin") + ":" + os.environ["PATH"])
                script = "set -euo pipefail\n" + "\n".join(blocks)
                done = subprocess.run(["bash", "-x"], input=script, text=True, cwd=work, env=environment, capture_output=True, timeout=300)
                assert done.returncode == 0, f"{os.path.basename(page)}: {done.stderr[-1500:]}"
                ran += len(blocks)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    assert ran >= 5, ran
