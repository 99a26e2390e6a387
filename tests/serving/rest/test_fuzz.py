"""Whatever is sent, the answer is no 500, and a good request is answered afterwards."""

from __future__ import annotations

import gzip
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

anything = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

GOOD = json.dumps({"instances": [[1.0, 2.0]]}).encode()
GOOD_V2 = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]}
).encode()

PATHS = (
    "/v1/models/m:predict",
    "/v1/models/m/versions/1:predict",
    "/v1/models/m:classify",
    "/v1/models/m:regress",
    "/v2/models/m/infer",
)
KEYS = (
    "instances", "inputs", "outputs", "examples", "context", "signature_name", "parameters", "id",
    "name", "shape", "datatype", "data", "x", "age", "job", "n", "b64", "binary_data",
    "binary_data_size", "binary_data_output",
)  # fmt: skip
WORDS = (
    "serving_default", "person", "integers", "uneven", "half", "classify", "regress",
    "FP32", "FP16", "BYTES", "INT64", "x", "age", "job", "n", "y", "score", "YQ==", "ü", "\x00",
)  # fmt: skip

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=5)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=25,
)
documents = st.dictionaries(st.sampled_from(KEYS[:8]), values, max_size=4)


def nearly(good: bytes):
    """A good body with a piece of it replaced by other bytes."""

    def damaged(place):
        start, size, other = place
        return good[:start] + other + good[start + size :]

    tokens = st.sampled_from([b"NaN", b"1e999", b"-", b"[", b"]", b"{", b'"', b"\\ud800", b"\xff"])
    places = st.tuples(st.integers(0, len(good)), st.integers(0, 5), tokens | st.binary(max_size=4))
    return places.map(damaged)


bodies = (
    st.binary(max_size=60)
    | documents.map(lambda document: json.dumps(document).encode())
    | nearly(GOOD)
    | nearly(GOOD_V2)
)
header_values = st.sampled_from(
    ["gzip", "identity", "br", "0", "10", "1000000", "", "text/plain"]
) | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=5)
headers = st.dictionaries(
    st.sampled_from(
        ["content-encoding", "content-type", "accept-encoding", "inference-header-content-length"]
    ),
    header_values,
    max_size=2,
)


def check(server, reply):
    assert reply.status in (200, 400, 404, 405, 413, 415, 501), reply
    if reply.status != 200:
        assert isinstance(reply.error, str) and reply.error
    good = server.post("/v1/models/m:predict", GOOD)
    assert (good.status, good.json) == (200, {"predictions": [[3.0, 6.0]]})


@anything
@given(path=st.sampled_from(PATHS), body=bodies, sent=headers)
def test_whatever_body_comes_the_server_refuses_it_and_goes_on(server, path, body, sent):
    check(server, server.post(path, body, sent))


@anything
@given(path=st.sampled_from(PATHS), document=documents)
def test_whatever_document_comes_compressed_the_server_refuses_it_and_goes_on(
    server, path, document
):
    body = gzip.compress(json.dumps(document).encode(), compresslevel=1)
    check(server, server.post(path, body, {"content-encoding": "gzip"}))


@anything
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "X"]),
    path=st.lists(
        st.sampled_from(
            ["/", "v1", "v2", "models", "m", "versions", "1", "labels", "stable", ":predict",
             "metadata", "infer", "ready", "%", "%2F", "%00", "%ff", "..", ":", "?", "é", "V1",
             "healthz", "99999999999999999999"]
        ),
        max_size=10,
    ),
)  # fmt: skip
def test_whatever_path_comes_the_server_refuses_it_and_goes_on(server, method, path):
    reply = server.ask(method, "/" + "".join(path), GOOD)
    if method == "HEAD":
        assert reply.status < 500
    else:
        check(server, reply)
