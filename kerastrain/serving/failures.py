"""What a client is told when its request fails: a canonical code and a text.

    raise ServingError("NOT_FOUND", "Servable not found for request: Latest(m)")
    error.http_status   # 404
    error.grpc_code     # 5

The codes are those of gRPC (google/rpc/code.proto); which HTTP status each becomes is
TensorFlow Serving's choice (tensorflow_serving/model_servers/http_rest_api_util.cc).
"""

from __future__ import annotations

# Canonical code: (its number in gRPC, the HTTP status).
CODES = {
    "OK": (0, 200),
    "CANCELLED": (1, 500),
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "DEADLINE_EXCEEDED": (4, 504),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "RESOURCE_EXHAUSTED": (8, 429),
    "FAILED_PRECONDITION": (9, 400),
    "ABORTED": (10, 409),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
    "DATA_LOSS": (15, 500),
    "UNAUTHENTICATED": (16, 401),
}
_NAMES = {number: name for name, (number, _) in CODES.items()}


class ServingError(Exception):
    """A request that cannot be answered.

    Attributes:
        code: a canonical name, "INVALID_ARGUMENT" for instance.
        message: what was received, what was expected; goes to the client as it is.
    """

    def __init__(self, code: str, message: str):
        if code not in CODES:
            raise ValueError(f"{code!r} is no canonical code; expected one of {', '.join(CODES)}.")
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        return CODES[self.code][1]

    @property
    def grpc_code(self) -> int:
        return CODES[self.code][0]


def code_name(number: int) -> str:
    """The canonical name of gRPC's (and TensorFlow's) code number; "UNKNOWN" for any other."""
    return _NAMES.get(number, "UNKNOWN")
