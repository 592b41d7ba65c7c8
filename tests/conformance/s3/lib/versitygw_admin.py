"""Answers the few `versitygw admin` commands that versitygw's cases run, by the server's own means."""
import argparse
import pathlib
import sys

from lib import servers


def main(state, arguments):
    server = object.__new__(servers.KINDS[state["name"]]) if state["name"] in servers.KINDS else servers.Server()
    server.endpoint, server.access_key, server.secret_key = state["endpoint"], state["access_key"], state["secret_key"]
    server.root, server.binary, server.region = pathlib.Path(state["root"]), pathlib.Path(state["binary"]), "us-east-1"
    if "create-user" not in arguments:
        sys.exit("XAdminNotImplemented: only create-user has a counterpart here")
    p = argparse.ArgumentParser()
    for short, name in (("-a", "access"), ("-s", "secret"), ("-r", "role")):
        p.add_argument(short, dest=name)
    user, _ = p.parse_known_args(arguments[arguments.index("create-user") + 1:])
    try:
        server.add_user(user.access, user.secret, user.role)
    except Exception as e:
        sys.exit(f"XAdminFailed: {e}")
