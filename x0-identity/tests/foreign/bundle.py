"""Fetches a bundle endpoint, and reads both kinds of its keys with `spiffe` of PyPI, which has no parser of whole bundles."""

import base64
import json
import ssl
import sys
import urllib.request

from spiffe import JwtBundle, TrustDomain, X509Bundle


def main(url, roots, name):
    context = ssl.create_default_context(cafile=roots)
    # Without the proxies of the environment: the endpoint is on this machine.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=20) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        document = json.load(answer)
    trust_domain = TrustDomain(name)
    of_use = lambda use: [key for key in document["keys"] if key["use"] == use]
    certificates = b"".join(base64.b64decode(key["x5c"][0]) for key in of_use("x509-svid"))
    x509 = X509Bundle.parse_raw(trust_domain, certificates)
    jwt = JwtBundle.parse(trust_domain, json.dumps({"keys": of_use("jwt-svid")}).encode())
    print(
        x509.trust_domain.name,
        f"x509={len(x509.x509_authorities)}",
        f"jwt={','.join(jwt.jwt_authorities)}",
        f"sequence={document['spiffe_sequence']}",
        f"hint={document['spiffe_refresh_hint']}",
    )


main(*sys.argv[1:])
