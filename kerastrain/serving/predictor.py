"""Asks the models, for every protocol: checks, limits, deadlines, batching.

    predictor = Predictor(models)
    answer = await predictor.predict("digits", {"image": images})
    answer.outputs["probabilities"]

A protocol whose decoding depends on the signature holds one version for both:

    with predictor.models.use("digits") as servable:
        signature = servable.signatures["serving_default"]
        outputs = await predictor.run(servable, signature, inputs)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kerastrain.serving.batching import Batching, Caller
from kerastrain.serving.failures import ServingError
from kerastrain.serving.input_checks import check_inputs, check_outputs
from kerastrain.serving.metrics import Metrics
from kerastrain.serving.models import Models
from kerastrain.serving.servable import DEFAULT_SIGNATURE, Servable, Signature


@dataclass(frozen=True)
class Limits:
    """What a single request may cost.

    Attributes:
        max_request_bytes: of a request's body, and of any tensor that it describes.
        max_rows: of one request.
        timeout_seconds: until an answer that is not there becomes DEADLINE_EXCEEDED.
    """

    max_request_bytes: int = 64 << 20
    max_rows: int = 65_536
    timeout_seconds: float = 30.0


@dataclass(frozen=True)
class Answer:
    """What a model said, and which version of it."""

    model: str
    version: int
    signature: Signature
    outputs: dict[str, np.ndarray]


class Predictor:
    """What all protocols call; lives on one event loop."""

    def __init__(
        self,
        models: Models,
        limits: Limits | None = None,
        batching: Batching | None = None,
        metrics: Metrics | None = None,
    ):
        self.models = models
        self.limits = limits or Limits()
        self.metrics = metrics or Metrics()
        self._caller = Caller(batching or Batching(), self.metrics)

    def signature(
        self, model: str, version: int | None = None, label: str | None = None, name: str = ""
    ) -> Signature | None:
        """A signature by name ("": serving_default); None when the version has none of it.

        Raises:
            ServingError: there is no such model, version or label.
        """
        with self.models.use(model, version, label) as servable:
            return servable.signatures.get(name or DEFAULT_SIGNATURE)

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray],
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        outputs: Sequence[str] = (),
    ) -> Answer:
        """Asks a model; `run` in one call.

        Raises:
            ServingError: as `run`; NOT_FOUND, no such model or version; FAILED_PRECONDITION,
                no such signature.
        """
        name = signature or DEFAULT_SIGNATURE
        with self.models.use(model, version, label) as servable:
            found = servable.signatures.get(name)
            if found is None:
                raise ServingError(
                    "FAILED_PRECONDITION", f'Serving signature key "{name}" not found.'
                )
            answers = await self.run(servable, found, inputs, outputs)
            return Answer(model, servable.version, found, answers)

    async def run(
        self,
        servable: Servable,
        signature: Signature,
        inputs: Mapping[str, np.ndarray],
        outputs: Sequence[str] = (),
        *,
        timeout_seconds: float | None = None,
    ) -> dict[str, np.ndarray]:
        """Asks one signature of a servable that the caller holds (`models.use`).

        Args:
            inputs: in the signature's dtypes; strings as object arrays of bytes.
            outputs: names of those wanted; none: all.
            timeout_seconds: the client's own, if it is shorter than the limit.

        Raises:
            ServingError: INVALID_ARGUMENT, the inputs or output names do not fit, or the model
                refuses the values; RESOURCE_EXHAUSTED, too much waits already;
                DEADLINE_EXCEEDED; UNAVAILABLE, the server is being shut down.
        """
        rows = check_inputs(signature, inputs)
        if rows is not None and rows > self.limits.max_rows:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"The request has {rows:,} rows; this server takes {self.limits.max_rows:,} at "
                "once (--max_rows). Send them in several requests.",
            )
        if outputs:
            check_outputs(signature, outputs)
        seconds = self.limits.timeout_seconds
        if timeout_seconds is not None:
            seconds = min(seconds, timeout_seconds)
        answers = await self._caller.call(
            servable, signature, inputs, rows, timeout_seconds=seconds
        )
        return {name: answers[name] for name in outputs} if outputs else answers

    async def close(self) -> None:
        """From now on requests are UNAVAILABLE; waits for the calls that are being made."""
        await self._caller.close()
