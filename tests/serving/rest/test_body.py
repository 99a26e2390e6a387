"""Bodies: limits of size and time, compression both ways."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from kerastrain.serving.failures import ServingError
from kerastrain.serving.rest.body import gunzip

PATH = "/v1/models/m:predict"
ROW = json.dumps({"instances": [[1.0, 2.0]]}).encode()
GZIPPED = {"Content-Encoding": "gzip"}
LIMIT = 100_000


def test_gzip_requests_are_accepted(server):
    reply = server.post(PATH, gzip.compress(ROW), GZIPPED)
    assert reply.json == {"predictions": [[3.0, 6.0]]}


def test_a_gzip_bomb_stops_at_the_limit(server):
    bomb = gzip.compress(b" " * 5_000_000)
    assert len(bomb) < LIMIT
    reply = server.post(PATH, bomb, GZIPPED)
    assert reply.status == 413 and "after decompression" in reply.error


def test_truncated_gzip_is_told(server):
    for cut in (1, 9, 10, 15, len(gzip.compress(ROW)) - 1):
        reply = server.post(PATH, gzip.compress(ROW)[:cut], GZIPPED)
        assert reply.status == 400 and "gzip" in reply.error


def test_corrupt_gzip_is_told(server):
    damaged = bytearray(gzip.compress(ROW))
    damaged[-6] ^= 1  # the checksum
    for body in (bytes(damaged), b"", ROW, zlib.compress(ROW), gzip.compress(ROW) + b"more"):
        reply = server.post(PATH, body, GZIPPED)
        assert reply.status == 400 and "gzip" in reply.error


def test_no_more_than_the_limit_is_ever_decompressed():
    assert gunzip(gzip.compress(b"x" * 100), limit_bytes=100) == b"x" * 100
    with pytest.raises(ServingError, match="larger than 99 bytes after decompression"):
        gunzip(gzip.compress(b"x" * 100), limit_bytes=99)


def test_another_compression_is_refused(server):
    reply = server.post(PATH, ROW, {"Content-Encoding": "br"})
    assert (reply.status, reply.error[:21]) == (415, "Content-Encoding 'br'")


def test_large_answers_are_compressed_for_those_who_ask(server):
    body = {"instances": [[1.0, 2.0]] * 1000}
    reply = server.post(PATH, body, {"Accept-Encoding": "br, gzip;q=0.5"})
    assert reply.headers["content-encoding"] == "gzip"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert json.loads(gzip.decompress(reply.body)) == {"predictions": [[3.0, 6.0]] * 1000}
    assert "content-encoding" not in server.post(PATH, body).headers
    small = server.post(PATH, ROW, {"Accept-Encoding": "gzip"})
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize("accepted", ["gzip;q=0", "br", "", "gzip; q=0.0", "notgzip"])
def test_answers_are_not_compressed_for_those_who_do_not_take_it(server, accepted):
    body = {"instances": [[1.0, 2.0]] * 1000}
    reply = server.post(PATH, body, {"Accept-Encoding": accepted})
    assert "content-encoding" not in reply.headers and reply.headers["vary"] == "Accept-Encoding"


def test_a_body_in_pieces_is_one_body(server):
    pieces = tuple(ROW[index : index + 1] for index in range(len(ROW)))
    assert server.post(PATH, pieces).json == {"predictions": [[3.0, 6.0]]}


def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not(server):
    assert server.post(PATH, ROW.ljust(LIMIT)).status == 200
    reply = server.post(PATH, ROW.ljust(LIMIT + 1))
    assert reply.status == 413
    assert reply.error == (
        "The request's body is larger than 100,000 bytes, the limit of this server; "
        "send fewer rows at once."
    )
    assert reply.headers["connection"] == "close"


def test_a_body_without_end_is_cut_off(server):
    endless = (b"x" * 50_000,) * 1000
    reply = server.post(PATH, endless)
    assert reply.status == 413


def test_a_client_that_does_not_deliver_its_body_is_told_so(server):
    reply = server.post(PATH, (ROW[:5], 1.0, ROW[5:]))
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert reply.error == "The request's body did not arrive within 0.2 seconds."


def test_a_client_that_leaves_is_only_logged(server):
    server.logged.clear()
    reply = server.post(PATH, ())
    assert reply.body == b"" and server.logged[0]["status"] == 499
    assert server.post(PATH, ROW).status == 200
