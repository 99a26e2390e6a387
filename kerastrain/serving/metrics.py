"""Counts and times of a server, in Prometheus' text format.

    metrics = Metrics()
    metrics.observe_request("digits", "REST", "predict", "OK", 0.0012)
    metrics.observe_runtime("digits", 0.0002, rows=8)
    metrics.text()                # b'# TYPE :tensorflow:serving:request_count counter …'

The first three names are TensorFlow Serving's, latencies in microseconds; dashboards made
for it work. The format is written here because prometheus_client refuses a name that begins
with a colon: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Collection, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

REQUESTS = ":tensorflow:serving:request_count"
REQUEST_LATENCY = ":tensorflow:serving:request_latency"
RUNTIME_LATENCY = ":tensorflow:serving:runtime_latency"
BATCH_ROWS = "kerastrain_serving_batch_rows"
WAITING_REQUESTS = "kerastrain_serving_waiting_requests"

# 10 µs to 84 s, each 1.8 times the one before, as TensorFlow Serving's buckets.
_MICROSECONDS = tuple(10 * 1.8**i for i in range(28))
_ROWS = tuple(2**i for i in range(14))

_HELP = {
    REQUESTS: ("counter", "Requests by model and status."),
    REQUEST_LATENCY: ("histogram", "Microseconds from a request to its answer."),
    RUNTIME_LATENCY: ("histogram", "Microseconds in the model's function."),
    BATCH_ROWS: ("histogram", "Rows of one call of the model's function."),
    WAITING_REQUESTS: ("gauge", "Requests that wait for a call."),
}

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts of values up to each bound, as Prometheus wants them."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]):
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: Labels) -> list[str]:
        total, lines = 0, []
        for bound, count in zip([*map(_number, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            lines.append(_line(f"{name}_bucket", (*labels, ("le", bound)), total))
        return [
            *lines,
            _line(f"{name}_sum", labels, self._sum),
            _line(f"{name}_count", labels, total),
        ]


class Metrics:
    """All that is counted. Every method may be called by several threads.

    Args:
        models: the only names that are counted by themselves, so that clients who make up
            names cannot fill the memory; None: any.
    """

    def __init__(self, models: Collection[str] | None = None) -> None:
        self._lock = threading.Lock()
        self._models = None if models is None else frozenset(models)
        self._requests: dict[tuple[str, str, str, str], int] = {}
        self._histograms: dict[tuple[str, Labels], Histogram] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def observe_request(
        self, model: str, protocol: str, method: str, status: str, seconds: float
    ) -> None:
        """One request, answered or refused.

        Args:
            protocol: "REST" or "gRPC".
            method: "predict", "classify", …
            status: a canonical code, "OK" for instance.
        """
        if self._models is not None and model not in self._models:
            model = "unknown"
        labels = (("API", method), ("entrypoint", protocol), ("model_name", model))
        with self._lock:
            key = (model, protocol, method, status)
            self._requests[key] = self._requests.get(key, 0) + 1
            self._histogram(REQUEST_LATENCY, labels, _MICROSECONDS).add(seconds * 1e6)

    def observe_runtime(self, model: str, seconds: float, rows: int) -> None:
        """One call of a model's function with the rows of one or several requests."""
        labels = (("model_name", model),)
        with self._lock:
            self._histogram(RUNTIME_LATENCY, labels, _MICROSECONDS).add(seconds * 1e6)
            self._histogram(BATCH_ROWS, labels, _ROWS).add(rows)

    def set_gauge(self, name: str, value: Callable[[], float]) -> None:
        """What is asked for a value whenever the text is made."""
        self._gauges[name] = value

    def text(self) -> bytes:
        with self._lock:
            counts = [
                _line(REQUESTS, _request_labels(*key), count)
                for key, count in sorted(self._requests.items())
            ]
            lines = [*_header(REQUESTS), *counts]
            for name in (REQUEST_LATENCY, RUNTIME_LATENCY, BATCH_ROWS):
                lines += _header(name)
                for (own, labels), histogram in sorted(
                    self._histograms.items(), key=lambda item: item[0]
                ):
                    lines += histogram.lines(name, labels) if own == name else []
        for name, value in self._gauges.items():
            lines += [*_header(name), f"{name} {_number(value())}"]
        return ("\n".join(lines) + "\n").encode()

    def _histogram(self, name: str, labels: Labels, bounds: Sequence[float]) -> Histogram:
        histogram = self._histograms.get((name, labels))
        if histogram is None:
            histogram = self._histograms[name, labels] = Histogram(bounds)
        return histogram


def _request_labels(model: str, protocol: str, method: str, status: str) -> Labels:
    return (("model_name", model), ("status", status), ("API", method), ("entrypoint", protocol))


def _header(name: str) -> list[str]:
    kind, text = _HELP[name]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{shown}}} {_number(value)}"


def _number(value: float) -> str:
    return f"{value:.12g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
