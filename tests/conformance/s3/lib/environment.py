"""Where tools live and what environment they get."""
import os
import pathlib
import shutil
import tempfile


def repository():
    return pathlib.Path(__file__).resolve().parents[4]


def folder():
    return pathlib.Path(__file__).resolve().parents[1]


def cache():
    return pathlib.Path(os.environ.get("QUARRY_TOOLS") or pathlib.Path.home() / ".cache/quarry-tools")


def scratch(prefix, parent=None):
    """A new folder for drives and files. Not /tmp: that may be small, or in memory."""
    return pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent or os.environ.get("TMPDIR") or "/var/tmp"))


def tool(name):
    """The path of an installed program: our cache's, else the system's."""
    path = cache() / "bin" / name
    if path.exists():
        return str(path)
    if found := shutil.which(name):
        return found
    raise RuntimeError(f"{name} is not installed: run {folder().name}/install for this suite")


def python(venv):
    path = cache() / f"venv-{venv}" / "bin/python"
    if not path.exists():
        raise RuntimeError(f"no Python environment '{venv}': run {folder().name}/install for this suite")
    return str(path)


def clean():
    """The environment without what bends S3 clients: certificate bundles break some SDKs, AWS_* and proxies redirect others."""
    dropped = {"CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MC_", "RESTIC_", "RCLONE_")) and k.upper() not in dropped}
    return {"TMPDIR": "/var/tmp", **kept}  # clients keep whole uploads there
