"""Codes and what they become."""

from __future__ import annotations

import grpc
import pytest

from kerastrain.serving.failures import CODES, ServingError, code_name


def test_numbers_are_those_of_grpc():
    assert {code.name: code.value[0] for code in grpc.StatusCode} == {
        name: number for name, (number, _) in CODES.items()
    }
    assert all(code_name(number) == name for name, (number, _) in CODES.items())
    assert code_name(99) == "UNKNOWN"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INVALID_ARGUMENT", 400), ("FAILED_PRECONDITION", 400), ("OUT_OF_RANGE", 400),
        ("UNAUTHENTICATED", 401), ("PERMISSION_DENIED", 403), ("NOT_FOUND", 404),
        ("ALREADY_EXISTS", 409), ("ABORTED", 409), ("RESOURCE_EXHAUSTED", 429),
        ("UNIMPLEMENTED", 501), ("UNAVAILABLE", 503), ("DEADLINE_EXCEEDED", 504),
        ("INTERNAL", 500), ("UNKNOWN", 500),
    ],
)  # fmt: skip
def test_http_statuses_are_tensorflow_servings(code, status):
    assert ServingError(code, "").http_status == status


def test_a_code_that_does_not_exist_is_a_bug():
    with pytest.raises(ValueError, match="canonical"):
        ServingError("NOT_THERE", "")
