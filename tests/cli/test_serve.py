"""The flags of `kerastrain serve`."""

from __future__ import annotations

import pytest

from kerastrain.cli import serve
from kerastrain.cli.command_line import parse_flags
from kerastrain.cli.served_models import model_bases, model_specs
from kerastrain.errors import KerastrainError, UsageError


@pytest.fixture
def exports(tmp_path):
    """Two folders of versions, a finished run and one that is not."""
    versions = ("run/export/mnist/1", "run2/export/mnist/1", "other/run/export/mnist/1")
    for folder in ("digits/1", "adult/1", *versions, "unfinished", "a=b/1"):
        (tmp_path / folder).mkdir(parents=True)
    for run in ("run", "run2", "other/run", "unfinished"):
        (tmp_path / run / "run.json").write_text("{}")
    (tmp_path / "digits" / "1" / "saved_model.pb").write_text("")
    return tmp_path


def asked(*arguments, at=None):
    """The settings that a command line means."""
    values = parse_flags("serve", serve.FLAGS, list(arguments))
    bases = model_bases([name.replace("@", f"{at}/") for name in values.model])
    specs = model_specs(bases, values.version_policy, values.version_labels)
    return serve._settings(values, specs)


def test_models_are_named_by_their_folders_or_as_they_are_told(exports):
    models = asked("--model=@digits,b=@adult/,@run", at=exports).models
    assert [(model.name, model.base) for model in models] == [
        ("digits", exports / "digits"),
        ("b", exports / "adult"),
        ("run", exports / "run" / "export" / "mnist"),
    ]
    models = asked("--model=@run,@run2/,first=@other/run", at=exports).models
    assert [model.name for model in models] == ["run", "run2", "first"]
    (model,) = asked("--model=@a=b", at=exports).models
    assert (model.name, model.base) == ("a=b", exports / "a=b")


def test_policies_and_labels_are_for_all_models_or_one(exports):
    one, other = asked(
        "--model=@digits,@adult",
        "--version_policy=latest:2",
        "--version_policy=adult/specific:1,4",
        "--version_labels=digits/stable=1,digits/canary=2",
        at=exports,
    ).models
    assert one.policy.latest == 2 and one.labels == {"stable": 1, "canary": 2}
    assert other.policy.specific == {1, 4} and other.labels == {}
    (single,) = asked("--model=@digits", "--version_labels=stable=1", at=exports).models
    assert single.labels == {"stable": 1}


def test_every_flag_reaches_the_settings(exports):
    settings = asked(
        "--model=@digits", "--host=0.0.0.0", "--rest_port=0", "--grpc_port=-1", "--nopage",
        "--noenable_batching", "--max_batch_size=7", "--batch_timeout_micros=8",
        "--max_enqueued_batches=9", "--num_batch_threads=3", "--max_request_bytes=2048",
        "--max_rows=11", "--max_connections=12", "--timeout_seconds=1.5", "--poll_seconds=2.5",
        "--shutdown_seconds=0", "--access_log=log.jsonl",
        at=exports,
    )  # fmt: skip
    assert (settings.host, settings.rest_port, settings.grpc_port) == ("0.0.0.0", None, 0)
    batching, limits = settings.batching, settings.limits
    assert (batching.enabled, batching.max_batch_size, batching.batch_timeout_micros) == (
        False, 7, 8
    )  # fmt: skip
    assert (batching.max_enqueued_batches, batching.num_batch_threads) == (9, 3)
    assert (limits.max_request_bytes, limits.max_rows, limits.timeout_seconds) == (2048, 11, 1.5)
    assert (settings.max_connections, settings.poll_seconds) == (12, 2.5)
    assert (settings.shutdown_seconds, settings.access_log, settings.page) == (
        0, "log.jsonl", False
    )  # fmt: skip


def test_by_default_only_this_machine_is_answered(exports):
    settings = asked("--model=@digits", at=exports)
    assert (settings.host, settings.rest_port, settings.grpc_port) == ("127.0.0.1", 8501, 8500)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["--model=@gone"], KerastrainError, "There is no folder '.*gone'"),
        (["--model=@digit"], KerastrainError, "Did you mean 'digits'"),
        (["--model=@digits/1"], KerastrainError, "is a single version; expected .*digits."),
        (["--model=@unfinished"], KerastrainError, "its run is not finished"),
        (["--model=@digits,digits=@adult"], UsageError, "names 'digits' twice"),
        (["--model=@run,@other/run"], UsageError, "twice .* as in --model=run=…,run_2=.*other/run"),
        (["--model==@digits"], UsageError, "expected FOLDER or NAME=FOLDER"),
        (["--model=x="], UsageError, "expected FOLDER or NAME=FOLDER"),
        (["--model=@digits", "--version_policy=new"], UsageError, "expected latest, latest:N"),
        (["--model=@digits", "--version_policy=x/all"], UsageError, "there is no model 'x'"),
        (["--model=@digits", "--version_labels=a"], UsageError, "expected LABEL=VERSION"),
        (["--model=@digits", "--version_labels=a=b"], UsageError, "expected LABEL=VERSION"),
        (
            ["--model=@digits,@adult", "--version_labels=a=1"],
            UsageError,
            "expected MODEL/LABEL=VERSION",
        ),
    ],
)
def test_what_cannot_be_served_is_told(exports, arguments, error, text):
    with pytest.raises(error, match=text):
        asked(*arguments, at=exports)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--rest_port=-2", "--rest_port=-2; expected -1 or more"),
        ("--grpc_port=70000", "expected at most 65535"),
        ("--max_batch_size=0", "expected 1 or more"),
        ("--timeout_seconds=nan", "expected 0.001 or more"),
        ("--model=", "--model is missing"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(argument, text):
    with pytest.raises(UsageError, match=text):
        serve.run(parse_flags("serve", serve.FLAGS, [argument]))


def test_a_server_without_a_port_is_refused():
    values = parse_flags("serve", serve.FLAGS, ["--model=x", "--rest_port=0", "--grpc_port=0"])
    with pytest.raises(UsageError, match="nothing to ask the server by"):
        serve.run(values)


def test_packages_that_are_not_installed_are_named_with_what_installs_them(monkeypatch):
    monkeypatch.setattr(serve, "_NEEDED", ("json", "no_such_package"))
    with pytest.raises(
        KerastrainError, match=r"\(no_such_package\).*pip install 'kerastrain\[serve\]'"
    ):
        serve.run(parse_flags("serve", serve.FLAGS, ["--model=x"]))
