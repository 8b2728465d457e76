"""Calls each method of a Workload API with `spiffe` of PyPI, and prints what came."""

import sys
import threading

import grpc
from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import SpiffeId, WorkloadApiClient
from spiffe._proto import workload_pb2, workload_pb2_grpc

TIMEOUT = 30


def show(*words):
    print(*words, flush=True)


def tail(svid):
    return svid.leaf.public_bytes(Encoding.DER)[-16:].hex()


def counts(bundles, authorities):
    return " ".join(sorted(f"{bundle.trust_domain.name}={len(authorities(bundle))}" for bundle in bundles))


def main(address):
    client = WorkloadApiClient(address, default_timeout=TIMEOUT)
    svid = client.fetch_x509_svid()
    show("svid", svid.spiffe_id, tail(svid))
    show("svids", *(svid.spiffe_id for svid in client.fetch_x509_svids()))
    show("bundles", counts(client.fetch_x509_bundles().bundles, lambda bundle: bundle.x509_authorities))
    show("jwt-bundles", counts(client.fetch_jwt_bundles().bundles, lambda bundle: bundle.jwt_authorities))
    token = client.fetch_jwt_svid({"reports"}, SpiffeId("spiffe://example.org/web"))
    show("jwt-svid", token.spiffe_id)
    show("jwt-svids", *(svid.spiffe_id for svid in client.fetch_jwt_svids({"reports"})))
    show("valid", client.validate_jwt_svid(token.token, "reports").spiffe_id)
    stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(grpc.insecure_channel(address))
    try:
        # Without the security header.
        next(stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), timeout=TIMEOUT))
        show("valid")
    except grpc.RpcError as error:
        show("invalid", error.code().name)

    ended = threading.Event()

    def on_error(error):
        show("ended", str(error).rpartition(".")[2])
        ended.set()

    handler = client.stream_x509_contexts(
        lambda context: show("update", tail(context.default_svid)), on_error, retry_connect=False
    )
    ended.wait()
    handler.cancel()
    client.close()


main(sys.argv[1])
