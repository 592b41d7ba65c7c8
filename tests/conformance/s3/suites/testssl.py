"""testssl.sh: protocols, ciphers and server defaults. The node is started with --tls; a finding of MEDIUM or worse fails."""
import json

from lib import environment
from lib.harness import FAILED, PASSED

TLS = True
CASES_MIN = 20
# What any server with a certificate made for a test shows.
ABOUT_THE_TEST_CERTIFICATE = {"cert_chain_of_trust", "cert_trust", "cert_caIssuers", "cert_revocation", "cert_crlDistributionPoints", "cert_ocspURL",
                              "cert_expirationStatus", "cert_notAfter", "DNS_CAArecord", "cert_extlifeSpan", "cert_commonName_wo_SNI", "OCSP_stapling",
                              "cert_signatureAlgorithm", "certificate_transparency", "cert_serialNumberLen", "cert_subjectAltName", "cert_keySize"}


def run(context):
    url, report = context.server.client().url, context.work / "testssl.json"
    if url.scheme != "https":
        raise RuntimeError("testssl wants an https endpoint")
    context.run([environment.tool("testssl"), "--quiet", "--color", "0", "--warnings", "off", "--fast", "-p", "-S", "-P", "--jsonfile", report,
                 f"{url.hostname}:{url.port}"], timeout=600, check=False, stdin=-3)
    for finding in json.loads(report.read_text()):
        name = finding["id"].replace(" ", "_")
        if name.split("_<")[0] in ABOUT_THE_TEST_CERTIFICATE or not context.wants(name):
            continue
        bad = finding["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")
        context.report(name, FAILED if bad else PASSED, f"{finding['severity']}: {finding['finding']}")
    if not any(c == "TLS1_3" and "offered" in r[2] and "not offered" not in r[2] for c, r in context.results.items()) and not context.partial():
        context.report("TLS1_3_is_offered", FAILED, "TLS 1.3 must be offered")
