"""The access log: one line of JSON for each request, REST and gRPC alike.

    log = AccessLog.open("stderr")            # or the path of a file, or "off"
    log.write(protocol="REST", client="127.0.0.1", method="POST", path="/v1/models/m:predict",
              model="m", version=3, status=200, bytes=120, milliseconds=0.8)

`path` and everything else that a client chose is escaped as JSON, so one request
is one line whatever it holds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from kerastrain.errors import OptionsError

logger = logging.getLogger(__name__)

_ENCODER = json.JSONEncoder(default=str, separators=(",", ":"))


class AccessLog:
    """Writes lines to a stream; without one it writes nothing.

    Every line is one unbuffered write, so lines of several writers of one file stay whole.
    """

    def __init__(self, stream: BinaryIO | None = None):
        self._stream = stream

    @classmethod
    def open(cls, target: str) -> AccessLog:
        """Opens the log.

        Args:
            target: "stderr", "off", or the path of a file that is appended to.

        Raises:
            OptionsError: the file cannot be opened.
        """
        if target == "off":
            return cls()
        if target == "stderr":
            return cls(sys.stderr.buffer)
        try:
            return cls(Path(target).open("ab", buffering=0))
        except OSError as error:
            raise OptionsError(
                f"The access log '{target}' cannot be opened for appending: {error.strerror}. "
                "Give the path of a file in a folder that exists, 'stderr' or 'off'."
            ) from error

    def write(self, **fields: Any) -> None:
        """Writes {"time": …, **fields} as one line.

        A log that cannot be written (the disk is full, say) is told of once and then
        left: answering requests is worth more than noting them.
        """
        if self._stream is None:
            return
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = _ENCODER.encode({"time": time, **fields})
        try:
            self._stream.write(line.encode("ascii") + b"\n")
            self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            logger.warning("The access log ends here, it cannot be written: %s", error)
            self._stream = None

    def close(self) -> None:
        """Closes a file that `open` opened; stderr stays open."""
        stream, self._stream = self._stream, None
        if stream is not None and stream is not sys.stderr.buffer:
            with contextlib.suppress(OSError):
                stream.close()
