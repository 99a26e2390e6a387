"""Runs on tables, from the command to the published model, in this process."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from checked_here import check_here

from kerastrain.cli import evaluate, explain
from kerastrain.cli.command_line import parse_flags
from kerastrain.errors import ResumeError
from kerastrain.export.asking import load_export
from kerastrain.export.manifest import read_manifest
from kerastrain.options import TableOptions, TrainOptions
from kerastrain.run import run_recipe

N = 300


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    check_here(monkeypatch)


def write(path, *, seed=0, rows=N) -> str:
    random = np.random.default_rng(seed)
    size, soil = random.normal(size=rows).round(3), random.choice(["clay", "sand"], rows)
    lines = [f"{s},{k},{'yes' if s > 0 else 'no'}" for s, k in zip(size, soil, strict=True)]
    path.write_text("\n".join(["size,soil,grows", *lines]))
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with test rows of their own: its options."""
    folder = tmp_path_factory.mktemp("runs")
    table = TableOptions(test_data=write(folder / "test.csv", seed=1, rows=80))
    options = TrainOptions(
        recipe="tabular_linear",
        data=write(folder / "data.csv"),
        target="grows",
        workdir=str(folder / "run"),
        max_epochs=3,
        jit="off",
        table=table,
    )
    with pytest.MonkeyPatch.context() as patch:
        check_here(patch)
        run_recipe(options)
    return options


def changed(options: TrainOptions, **table) -> TrainOptions:
    values = options.to_json()
    return TrainOptions.from_json({**values, "table": {**values["table"], **table}})


def test_a_run_leaves_its_schema_and_what_its_rows_were_like(finished, tmp_path):
    schema = json.loads((tmp_path.joinpath(finished.workdir) / "schema.json").read_text())
    assert [column["name"] for column in schema["columns"]] == ["size", "soil"]
    version = tmp_path.joinpath(finished.workdir) / "export" / "tabular_linear" / "1"
    data = read_manifest(version)["data"]
    assert data["schema"] == schema and data["statistics"]["rows"] == 240


def test_a_finished_run_is_not_one_on_other_test_rows(finished, tmp_path):
    assert run_recipe(finished).already_finished
    other = write(tmp_path / "other.csv", seed=2, rows=80)
    with pytest.raises(ResumeError, match="other data"):
        run_recipe(changed(finished, test_data=other))


def test_a_finished_run_is_not_one_on_a_file_that_was_replaced(finished, tmp_path):
    shutil.copytree(finished.workdir, tmp_path / "run")
    # Categories of other names are encoded to the same numbers.
    for names in (("sand", "SAND"), ("SAND", "sand")):
        replace_text(Path(finished.data), *names)
        options = dataclasses.replace(finished, workdir=str(tmp_path / "run"))
        if names[1] == "SAND":
            with pytest.raises(ResumeError, match=r"data: data.csv has other content\nBegin anew"):
                run_recipe(options)
            assert run_recipe(options, override=True).already_finished
            result = run_recipe(options, new_version=True)
            assert result.export.name == "2" and not result.already_finished
            assert run_recipe(options, new_version=True).already_finished
    assert run_recipe(finished).already_finished


def replace_text(path, old, new):
    before = path.stat()
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_finished_run_of_an_earlier_version_says_what_it_does_not_know(
    finished, tmp_path, caplog
):
    shutil.copytree(finished.workdir, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    recorded = json.loads(file.read_text())
    del recorded["files"]
    file.write_text(json.dumps(recorded))
    options = dataclasses.replace(finished, workdir=str(tmp_path / "run"))
    assert run_recipe(options).already_finished
    assert "without what its files hold" in caplog.text


def test_data_that_are_gone_leave_a_finished_run_finished(finished, tmp_path, caplog):
    path = Path(finished.data)
    path.rename(tmp_path / "gone.csv")
    assert run_recipe(finished).already_finished
    assert "is not there; whether the data changed is not known" in caplog.text
    (tmp_path / "gone.csv").rename(path)


def test_a_finished_run_is_one_on_the_same_rows_elsewhere(finished, tmp_path):
    same = write(tmp_path / "moved.csv", seed=1, rows=80)
    assert run_recipe(changed(finished, test_data=same)).already_finished


def test_a_finished_run_knows_its_own_schema(finished, tmp_path):
    own = tmp_path.joinpath(finished.workdir) / "schema.json"
    assert run_recipe(changed(finished, schema=str(own))).already_finished
    edited = json.loads(own.read_text())
    del edited["columns"][1]
    (tmp_path / "edited.json").write_text(json.dumps(edited))
    with pytest.raises(ResumeError, match="other data"):
        run_recipe(changed(finished, schema=str(tmp_path / "edited.json")))


def test_numbers_far_from_zero_are_learned_measured_and_served(tmp_path):
    random = np.random.default_rng(0)
    seconds = 1.7e9 + random.permutation(N) * 3
    cents = 1e9 + (seconds - 1.7e9) / 100 + random.normal(size=N)
    lines = [f"{s:.0f},{c!r}" for s, c in zip(seconds, cents.tolist(), strict=True)]
    (tmp_path / "data.csv").write_text("\n".join(["seconds,cents", *lines]))
    options = TrainOptions(
        recipe="tabular_linear",
        data=str(tmp_path / "data.csv"),
        target="cents",
        workdir=str(tmp_path / "run"),
        max_epochs=60,
        batch_size=16,
        learning_rate=0.05,
        jit="off",
    )
    metrics = read_manifest(run_recipe(options).export)["metrics"]
    assert 0.8 < metrics["rmse"] < 1.5 and 0.8 < metrics["r2"] < 0.95
    model = load_export(tmp_path / "run" / "export" / "tabular_linear" / "1")
    asked = {"seconds": np.array([1.7e9, 1.7e9 + 3 * N])}
    low, high = model.ask(asked)["prediction"].tolist()
    assert 1e9 - 2 < low < 1e9 + 2 and 7 < high - low < 11


@pytest.mark.parametrize("command", [evaluate, explain])
def test_test_rows_may_have_moved(finished, tmp_path, command, capsys):
    same = write(tmp_path / "moved.csv", seed=1, rows=80)
    arguments = [f"--workdir={finished.workdir}", f"--test_data={same}", "--json"]
    assert command.run(parse_flags("command", command.FLAGS, arguments)) == 0
    assert json.loads(capsys.readouterr().out)
