"""h2spec over TLS: how the server speaks HTTP/2. The node is started with --tls."""
import xml.etree.ElementTree as ElementTree

from lib import environment
from lib.harness import FAILED, PASSED, SKIPPED

TLS = True
CASES_MIN = 140


def run(context):
    url, report = context.server.client().url, context.work / "h2spec.xml"
    tls = ["-t", "-k"] if url.scheme == "https" else []
    context.run([environment.tool("h2spec"), "-h", url.hostname, "-p", str(url.port), *tls, "-o", "4", "-j", report], timeout=600, check=False)
    if not report.exists():
        raise RuntimeError("h2spec left no report: the server does not speak HTTP/2 there")
    seen = {}
    for case in ElementTree.parse(report).iter("testcase"):
        section = case.get("package")
        seen[section] = seen.get(section, 0) + 1
        failure, skipped = case.find("failure"), case.find("skipped")
        error = case.find("error")
        problem = failure if failure is not None else error
        status = FAILED if problem is not None else SKIPPED if skipped is not None else PASSED
        name = f"{section}/{seen[section]}"
        if context.wants(name):
            detail = f"{problem.text or problem.get('message') or ''}" if problem is not None else ""
            context.report(name, status, f"{case.get('classname')}: {detail}", float(case.get("time") or 0))
