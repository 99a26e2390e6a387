"""`kerastrain serve`: published models, asked over REST and gRPC, in TensorFlow Serving's shape.

    kerastrain serve --model=runs/digits
    kerastrain serve --model=digits=exports/digits,adult=exports/adult --rest_port=8501
    kerastrain serve --model=exports/digits --version_policy=latest:2 --version_labels=stable=3

A model is a folder of versions named by integers, or the work directory of a finished run. Its
name is that folder's.
New versions are found by themselves. SIGTERM or Ctrl-C ends the server when the requests that
it has are answered; its exit status is then 0, and 1 when some had to be cut off.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from absl import flags

from kerastrain.cli.command_line import Folders
from kerastrain.cli.served_models import model_bases, model_specs
from kerastrain.errors import KerastrainError, UsageError

if TYPE_CHECKING:
    from kerastrain.serving.models import ModelSpec
    from kerastrain.serving.server import Settings

SUMMARY = "Answer requests to published models over REST and gRPC, as TensorFlow Serving does."
FLAGS = flags.FlagValues()

# What the extra "serve" installs: the modules that are imported.
_NEEDED = ("starlette", "uvicorn", "httptools", "orjson", "grpc", "tensorflow_serving")


def _define(kind: str, name: str, default: object, text: str) -> None:
    getattr(flags, f"DEFINE_{kind}")(name, default, text, flag_values=FLAGS)


flags.DEFINE(
    Folders(),
    "model",
    [],
    "What to serve: folders of versions, or work directories of finished runs, separated by "
    "commas; NAME=FOLDER gives a name other than the folder's.",
    flag_values=FLAGS,
)
_define(
    "string",
    "host",
    "127.0.0.1",
    "The address to listen on. The default answers this machine only; 0.0.0.0 answers everybody "
    "who can reach it, without asking who they are.",
)
_define("integer", "rest_port", 8501, "The port of REST and of the page; 0: none, -1: any free.")
_define("integer", "grpc_port", 8500, "The port of gRPC; 0: none, -1: any free.")
_define(
    "multi_string",
    "version_policy",
    [],
    "Which versions are served: latest, latest:N, all, or specific:N,N,…; MODEL/POLICY for one "
    "of several models. Default: latest.",
)
_define(
    "list",
    "version_labels",
    [],
    "Names of versions, LABEL=VERSION (of several models: MODEL/LABEL=VERSION), separated by "
    "commas. Such a version is served whatever the policy says.",
)
_define("float", "poll_seconds", 1.0, "How often the folders are looked at for new versions.")
_define(
    "boolean",
    "enable_batching",
    True,
    "Put the rows of requests that come at the same time into one call of the model.",
)
_define("integer", "max_batch_size", 128, "Rows of such a call.")
_define(
    "integer",
    "batch_timeout_micros",
    5000,
    "How long requests that are not alone wait for more at most, in microseconds; they wait "
    "only while more do come.",
)
_define(
    "integer",
    "max_enqueued_batches",
    128,
    "Full batches (without batching: requests) that may wait; the next request is refused "
    "(429, RESOURCE_EXHAUSTED).",
)
_define(
    "integer",
    "num_batch_threads",
    0,
    "Calls of models that are made at the same time; 0: one for each processor.",
)
_define("integer", "max_request_bytes", 64 << 20, "Size of a request.")
_define("integer", "max_rows", 65_536, "Rows of a request.")
_define("integer", "max_connections", 1000, "REST connections, and as many gRPC calls, at a time.")
_define("float", "timeout_seconds", 30.0, "How long a request may take.")
_define(
    "float",
    "shutdown_seconds",
    30.0,
    "How long requests that are being answered are waited for when the server is stopped.",
)
_define(
    "string",
    "access_log",
    "off",
    "Where each request is noted as a line of JSON: a file, stderr, or off.",
)
_define("boolean", "page", True, "Serve a page for browsers at / of the REST port.")

_AT_LEAST = {
    "rest_port": -1,
    "grpc_port": -1,
    "poll_seconds": 0.01,
    "max_batch_size": 1,
    "batch_timeout_micros": 0,
    "max_enqueued_batches": 1,
    "num_batch_threads": 0,
    "max_request_bytes": 1024,
    "max_rows": 1,
    "max_connections": 1,
    "timeout_seconds": 0.001,
    "shutdown_seconds": 0,
}


def run(values: flags.FlagValues) -> int:
    """Serves until a signal; returns the exit status."""
    _check_numbers(values)
    _check_installed()
    if not values.model:
        raise UsageError(f"--model is missing: {FLAGS['model'].help}")
    bases = model_bases(values.model)
    specs = model_specs(bases, values.version_policy, values.version_labels)
    from kerastrain.serving.server import serve

    settings = _settings(values, specs)
    if _event_loop().run(serve(settings)):
        return 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # a call that has not ended by now would keep the process from ending


def _event_loop() -> ModuleType:
    """uvloop where it is installed, an event loop in C; else asyncio's own."""
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    return importlib.import_module("uvloop" if has_uvloop else "asyncio")


def _check_numbers(values: flags.FlagValues) -> None:
    for name, least in _AT_LEAST.items():
        if not values[name].value >= least:  # NaN too
            raise UsageError(f"--{name}={values[name].value}; expected {least:g} or more.")
    for name in ("rest_port", "grpc_port"):
        if values[name].value > 65_535:
            raise UsageError(f"--{name}={values[name].value}; expected at most 65535.")
    if values.rest_port == 0 and values.grpc_port == 0:
        raise UsageError("--rest_port=0 and --grpc_port=0 leave nothing to ask the server by.")


def _check_installed() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise KerastrainError(
            f"'kerastrain serve' needs packages that are not installed ({', '.join(missing)}). "
            "Install them by: pip install 'kerastrain[serve]'"
        )


def _settings(values: flags.FlagValues, specs: list[ModelSpec]) -> Settings:
    from kerastrain.serving.batching import Batching
    from kerastrain.serving.predictor import Limits
    from kerastrain.serving.server import Settings

    return Settings(
        specs,
        host=values.host,
        rest_port=_port(values.rest_port),
        grpc_port=_port(values.grpc_port),
        limits=Limits(values.max_request_bytes, values.max_rows, values.timeout_seconds),
        batching=Batching(
            values.enable_batching,
            values.max_batch_size,
            values.batch_timeout_micros,
            values.max_enqueued_batches,
            values.num_batch_threads,
        ),
        access_log=values.access_log,
        page=values.page,
        poll_seconds=values.poll_seconds,
        max_connections=values.max_connections,
        shutdown_seconds=values.shutdown_seconds,
    )


def _port(given: int) -> int | None:
    """The flag's 0 (none, as in TensorFlow Serving) and -1 (any) as the server has them."""
    return None if given == 0 else max(given, 0)
