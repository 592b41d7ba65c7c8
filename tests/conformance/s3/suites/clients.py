"""Ordinary work by ordinary clients, each result compared byte for byte with what was written."""
import filecmp
import json
import os
import random
import shutil
import subprocess

from lib import environment
from lib.harness import FAILED, PASSED

CASES_MIN = 26


def run(context):
    tree = make_tree(context.folder("tree"))
    scripted(context, "boto3", "boto3", {"BUCKET": context.bucket("boto3"), "VERSIONED_BUCKET": context.bucket("boto3-versions")})
    scripted(context, "analytics", "analytics", {"BUCKET": context.bucket("analytics")})
    for client in (awscli, rclone, s3cmd, mc, restic):
        client(context, tree)


def scripted(context, name, venv, variables):
    """A script that prints a JSON line a case; a script that ends early fails as a case of its own."""
    if context.partial() and not context.options.only_failed and not context.wants(name + ".") and not context.options.filter.startswith(name):
        return
    done = context.run([environment.python(venv), "-W", "ignore", environment.folder() / f"tools/clients/{name}_cases.py"], variables=variables,
                       check=False, stderr=subprocess.PIPE, timeout=600)
    for line in done.stdout.splitlines():
        result = json.loads(line)
        case = f"{name}.{result['case']}"
        if context.wants(case):
            context.report(case, FAILED if result["message"] else PASSED, result["message"], result["seconds"])
    if done.returncode != 0:
        context.report(f"{name}.script", FAILED, f"the script ended with {done.returncode}")


# --- data ---------------------------------------------------------------------------------------------------------------------------


def make_tree(root):
    """Small and large files, odd names, empty files; the same every time."""
    random_bytes = random.Random(7).randbytes
    for folder, names in {"docs": 40, "docs/deep/er": 15, "with space/and ü": 10, "big": 0}.items():
        (root / folder).mkdir(parents=True)
        for n in range(names):
            (root / folder / f"file {n} +%&=.txt").write_bytes(random_bytes(n * n * 31))
    (root / "empty").write_bytes(b"")
    (root / "big/9MiB").write_bytes(random_bytes(9 << 20))
    (root / "big/40MiB and a bit").write_bytes(random_bytes((40 << 20) + 4321))
    return root


def same_tree(left, right):
    files = [sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) for root in (left, right)]
    assert files[0] == files[1], f"files differ: {sorted(set(files[0]) ^ set(files[1]))[:5]}"
    assert len(files[0]) > 60
    _, wrong, errors = filecmp.cmpfiles(left, right, files[0], shallow=False)
    assert not wrong and not errors, f"contents differ: {(wrong + errors)[:5]}"


def wanted(context, client, *cases):
    """Cases of one client build on each other, so a filter selects all of a client's."""
    return any(context.wants(f"{client}.{case}") for case in cases)


# --- clients ------------------------------------------------------------------------------------------------------------------------


def awscli(context, tree):
    if not wanted(context, "awscli", "copy", "stream", "sync", "list", "large", "remove"):
        return
    bucket, work = context.bucket("awscli"), context.folder("awscli")
    program = environment.cache() / "venv-boto3/bin/aws"

    def aws(*arguments, **options):
        return context.run([program, "--no-verify-ssl", *arguments], stderr=subprocess.PIPE, **options).stdout

    def copy():
        aws("s3", "cp", tree / "big/9MiB", f"s3://{bucket}/copied")
        aws("s3", "cp", f"s3://{bucket}/copied", work / "copied")
        assert filecmp.cmp(tree / "big/9MiB", work / "copied", shallow=False)
        aws("s3", "cp", "--recursive", "--quiet", tree, f"s3://{bucket}/tree/")
        aws("s3", "cp", "--recursive", "--quiet", f"s3://{bucket}/tree/", work / "tree")
        same_tree(tree, work / "tree")

    def stream():
        text = "through a pipe\n" * 99
        aws("s3", "cp", "-", f"s3://{bucket}/pipe", input=text)
        assert aws("s3", "cp", f"s3://{bucket}/pipe", "-") == text

    def sync():
        changed = context.folder("awscli-changed")
        shutil.copytree(tree, changed, dirs_exist_ok=True)
        (changed / "docs/new file").write_text("new")
        (changed / "empty").unlink()
        output = aws("s3", "sync", "--delete", changed, f"s3://{bucket}/tree/")
        assert "upload" in output and "new file" in output and "delete" in output, output[-300:]
        aws("s3", "sync", "--delete", "--quiet", f"s3://{bucket}/tree/", work / "tree")
        same_tree(changed, work / "tree")
        assert aws("s3", "sync", "--size-only", changed, f"s3://{bucket}/tree/").strip() == ""

    def listing():
        lines = [line for line in aws("s3", "ls", "--recursive", f"s3://{bucket}/tree/docs/").splitlines() if line]
        want = {f"tree/docs/{p.relative_to(tree / 'docs')}": p.stat().st_size for p in (tree / "docs").rglob("*") if p.is_file()}
        got = {line[31:]: int(line[20:31]) for line in lines}
        got.pop("tree/docs/new file", None)
        assert got == want, sorted(set(got) ^ set(want))[:5]
        assert f" {bucket}" in aws("s3", "ls")

    def large():
        path = work / "large"
        with open(path, "wb") as f:
            generator = random.Random(11)
            for _ in range(150):
                f.write(generator.randbytes(1 << 20))
        aws("s3", "cp", "--quiet", path, f"s3://{bucket}/large")
        head = json.loads(aws("s3api", "head-object", "--bucket", bucket, "--key", "large", "--checksum-mode", "ENABLED"))
        assert head["ContentLength"] == 150 << 20 and '-19"' in head["ETag"], head
        aws("s3", "cp", "--quiet", f"s3://{bucket}/large", work / "large.back")
        assert filecmp.cmp(path, work / "large.back", shallow=False)

    def remove():
        aws("s3", "rm", "--recursive", "--quiet", f"s3://{bucket}/")
        assert aws("s3", "ls", "--recursive", f"s3://{bucket}/").strip() == ""
        aws("s3", "rb", f"s3://{bucket}")
        assert f" {bucket}" not in aws("s3", "ls")

    for action in (copy, stream, sync, listing, large, remove):
        context.check(f"awscli.{action.__name__}", action)


def rclone(context, tree):
    if not wanted(context, "rclone", "sync_and_check", "changes", "server_side_copy"):
        return
    bucket, work = context.bucket("rclone"), context.folder("rclone")
    variables = {"RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_S_TYPE": "s3", "RCLONE_CONFIG_S_PROVIDER": "Other",
                 "RCLONE_CONFIG_S_ENDPOINT": context.server.endpoint, "RCLONE_CONFIG_S_ACCESS_KEY_ID": context.server.access_key,
                 "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": context.server.secret_key, "RCLONE_CONFIG_S_REGION": context.server.region,
                 "RCLONE_CONFIG_S_UPLOAD_CUTOFF": "8M", "RCLONE_CONFIG_S_CHUNK_SIZE": "5M", "RCLONE_CONFIG_S_FORCE_PATH_STYLE": "true",
                 "RCLONE_NO_CHECK_CERTIFICATE": "true"}

    def call(*arguments):
        return context.run([environment.tool("rclone"), *arguments], variables=variables).stdout

    def sync_and_check():
        call("sync", tree, f"s:{bucket}/tree")
        assert "0 differences found" in call("check", "--download", tree, f"s:{bucket}/tree")
        call("copy", f"s:{bucket}/tree", work / "tree")
        same_tree(tree, work / "tree")

    def changes():
        changed = context.folder("rclone-changed")
        shutil.copytree(tree, changed, dirs_exist_ok=True)
        (changed / "docs/added").write_text("added")
        (changed / "empty").unlink()
        assert "differences found" in context.run([environment.tool("rclone"), "check", changed, f"s:{bucket}/tree"], variables=variables, check=False).stdout
        call("sync", changed, f"s:{bucket}/tree")
        assert "0 differences found" in call("check", changed, f"s:{bucket}/tree")

    def server_side_copy():
        call("copy", f"s:{bucket}/tree", f"s:{bucket}/second")
        assert "0 differences found" in call("check", "--download", f"s:{bucket}/tree", f"s:{bucket}/second")
        call("purge", f"s:{bucket}/second")
        assert call("lsf", "-R", f"s:{bucket}").count("second") == 0

    for action in (sync_and_check, changes, server_side_copy):
        context.check(f"rclone.{action.__name__}", action)


def s3cmd(context, tree):
    if not wanted(context, "s3cmd", "put_get", "sync", "copy_and_remove"):
        return
    bucket, work = context.bucket("s3cmd"), context.folder("s3cmd")
    url = context.server.client().url
    options = [f"--host={url.netloc}", f"--host-bucket={url.netloc}", f"--access_key={context.server.access_key}",
               f"--secret_key={context.server.secret_key}", f"--region={context.server.region}", "--config=/dev/null", "--no-progress",
               "--no-check-certificate", "--ssl" if url.scheme == "https" else "--no-ssl", "--multipart-chunk-size-mb=15"]

    def call(*arguments):
        return context.run([environment.tool("s3cmd"), *options, *arguments]).stdout

    def put_get():
        call("put", tree / "big/40MiB and a bit", f"s3://{bucket}/big")  # in parts
        call("get", f"s3://{bucket}/big", work / "big")
        assert filecmp.cmp(tree / "big/40MiB and a bit", work / "big", shallow=False)

    def sync():
        call("sync", f"{tree}/", f"s3://{bucket}/tree/")
        (work / "tree").mkdir()
        call("sync", f"s3://{bucket}/tree/", f"{work}/tree/")
        same_tree(tree, work / "tree")

    def copy_and_remove():
        call("cp", f"s3://{bucket}/tree/big/9MiB", f"s3://{bucket}/copy")
        call("get", f"s3://{bucket}/copy", work / "copy")
        assert filecmp.cmp(tree / "big/9MiB", work / "copy", shallow=False)
        call("rm", "--recursive", "--force", f"s3://{bucket}/")
        assert call("ls", f"s3://{bucket}/").strip() == ""

    for action in (put_get, sync, copy_and_remove):
        context.check(f"s3cmd.{action.__name__}", action)


def mc(context, tree):
    if not wanted(context, "mc", "mirror", "diff", "stat_cat_remove"):
        return
    bucket, work = context.bucket("mc"), context.folder("mc")
    scheme, rest = context.server.endpoint.split("://")
    variables = {"MC_HOST_q": f"{scheme}://{context.server.access_key}:{context.server.secret_key}@{rest}"}

    def call(*arguments, check=True):
        return context.run([environment.tool("mc"), "--config-dir", work / "config", "--quiet", "--insecure", "--no-color", *arguments],
                           variables=variables, check=check).stdout

    def mirror():
        call("mirror", tree, f"q/{bucket}/tree")
        call("mirror", f"q/{bucket}/tree", work / "tree")
        same_tree(tree, work / "tree")

    def diff():
        assert call("diff", tree, f"q/{bucket}/tree").strip() == ""
        changed = context.folder("mc-changed")
        shutil.copytree(tree, changed, dirs_exist_ok=True)
        (changed / "docs/added").write_text("added")
        assert "docs/added" in call("diff", changed, f"q/{bucket}/tree", check=False)

    def stat_cat_remove():
        described = json.loads(call("stat", "--json", f"q/{bucket}/tree/big/9MiB").splitlines()[0])
        assert described["size"] == 9 << 20, described
        copied = context.run([environment.tool("mc"), "--config-dir", work / "config", "--insecure", "cp", "--quiet", f"q/{bucket}/tree/big/9MiB", work / "back"],
                             variables=variables)
        assert copied.returncode == 0 and filecmp.cmp(tree / "big/9MiB", work / "back", shallow=False)
        call("rm", "--recursive", "--force", f"q/{bucket}/tree")
        assert call("ls", "--recursive", f"q/{bucket}").strip() == ""

    for action in (mirror, diff, stat_cat_remove):
        context.check(f"mc.{action.__name__}", action)


def restic(context, tree):
    if not wanted(context, "restic", "backup", "check", "restore", "forget_and_prune"):
        return
    bucket, work = context.bucket("restic"), context.folder("restic")
    variables = {"RESTIC_REPOSITORY": f"s3:{context.server.endpoint}/{bucket}/repository", "RESTIC_PASSWORD": "conformance",
                 "RESTIC_CACHE_DIR": str(work / "cache")}

    def call(*arguments, **options):
        return context.run([environment.tool("restic"), "--insecure-tls", *arguments], variables=variables, **options).stdout

    def backup():
        call("init")
        call("backup", ".", cwd=tree)

    def check():
        assert "no errors were found" in call("check", "--read-data")

    def restore():
        call("restore", "latest", "--target", work / "restored")
        same_tree(tree, work / "restored")

    def forget_and_prune():
        changed = context.folder("restic-changed")
        (changed / "one").write_bytes(os.urandom(3 << 20))
        call("backup", ".", cwd=changed)
        call("forget", "--keep-last", "1", "--group-by", "host", "--prune")
        assert len(json.loads(call("snapshots", "--json"))) == 1
        assert "no errors were found" in call("check", "--read-data")

    for action in (backup, check, restore, forget_and_prune):
        context.check(f"restic.{action.__name__}", action)


