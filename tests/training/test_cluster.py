"""TF_CONFIG: one process trains; several are refused before anything is trained."""

import json

import pytest

from kerastrain.errors import OptionsError
from kerastrain.options import TrainOptions
from kerastrain.run import run_recipe
from kerastrain.training.cluster import check_alone

TWO = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1"], "ps": []}}',
        '{"cluster": null}',
    ],
)
def test_one_process_by_itself_trains(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    check_alone()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (TWO, r"\(worker a:1, b:2\)"),
        ({"cluster": {"chief": ["a:1"], "worker": ["b:2"]}}, r"\(chief a:1; worker b:2\)"),
        ({"cluster": {"worker": {"0": "a:1", "3": "b:2"}}}, r"\(worker a:1, b:2\)"),
        ({"cluster": {"worker": ["a:1"], "ps": ["c:3"]}}, r"ps c:3"),
    ],
)
def test_several_processes_are_named_and_refused(monkeypatch, config, named):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(OptionsError, match=f"several processes {named}|several .*{named}"):
        check_alone()


@pytest.mark.parametrize(
    "text", ["{", "[]", '"worker"', '{"cluster": [1]}', '{"cluster": {"a": 3}}']
)
def test_what_cannot_be_read_is_an_error_in_one_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(OptionsError, match="cannot be read .*; expected a JSON object") as raised:
        check_alone()
    assert "\n" not in str(raised.value)


def test_several_workers_are_refused_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setenv("TF_CONFIG", json.dumps(TWO))
    with pytest.raises(OptionsError, match="each of these would train the whole run"):
        run_recipe(TrainOptions(workdir=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
