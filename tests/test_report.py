"""The report's folder and its page."""

from __future__ import annotations

import html.parser
import json

import numpy as np
import pytest

from kerastrain import plots
from kerastrain.data.source import Classification, Regression
from kerastrain.errors import WorkdirError
from kerastrain.export.evaluation import evaluate
from kerastrain.export.importance import ColumnImportance, Importance
from kerastrain.report import number, write_evaluation, write_importance
from kerastrain.workdir import Workdir

IMPORTANCE = Importance(
    "loss",
    0.31,
    500,
    5,
    (ColumnImportance("<b>age</b> & $x$", 0.1, 0.01), ColumnImportance("sex", -0.001, 0.002)),
    (("a", "b", 0.97),),
)


def classes(names=("<=50K", "a & b")):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, len(names), 400)
    p = rng.dirichlet(np.ones(len(names)), 400) + np.eye(len(names))[targets]
    p /= p.sum(1, keepdims=True)
    return evaluate(Classification(names), {"probabilities": p}, targets, resamples=100)


def numbers(rows=400):
    targets = np.random.default_rng(0).normal(size=rows)
    return evaluate(Regression(), {"prediction": targets + 0.1}, targets, resamples=50)


class Page(html.parser.HTMLParser):
    """The cells, pictures and tags of a page; every tag must be closed."""

    def __init__(self, path):
        super().__init__()
        self.open, self.cells, self.pictures, self.tags = [], [], [], set()
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.pictures.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "a run & more"
    folder.mkdir()
    return Workdir(folder)


def test_the_page_is_one_file_that_shows_numbers_as_they_are_and_pictures(workdir):
    pytest.importorskip("matplotlib")
    found = classes()
    page = write_evaluation(workdir, found, model="export/weather/1")
    assert page == workdir.path / "report" / "index.html"
    write_importance(workdir, IMPORTANCE, model="export/weather/1")
    read = Page(page)
    assert {"<=50K", "a & b", "<b>age</b> & $x$", number(found.metrics["loss"])} <= set(read.cells)
    assert "<title>a run &amp; more</title>" in page.read_text()
    assert not {"script", "link", "b"} & read.tags
    assert len(read.pictures) == 3
    assert all(p["src"].startswith("data:image/png;base64,iVBOR") for p in read.pictures)
    names = {path.name for path in page.parent.iterdir()}
    assert names == {"evaluation.json", "importance.json", "confusion.png", "calibration.png",
                     "importance.png", "index.html"}  # fmt: skip


def test_the_json_files_hold_all_numbers(workdir):
    found = numbers()
    folder = write_evaluation(workdir, found, model="export/weather/1").parent
    content = json.loads((folder / "evaluation.json").read_text())
    assert content["metrics"] == found.metrics and content["model"] == "export/weather/1"
    assert content["intervals"]["rmse"] == list(found.intervals["rmse"])
    assert content["confusion"] is None and content["calibration"] is None


def test_without_matplotlib_there_are_tables_and_no_pictures_of_another_model(workdir, monkeypatch):
    pytest.importorskip("matplotlib")
    write_evaluation(workdir, classes(), model="export/weather/1")
    monkeypatch.setattr(plots, "has_matplotlib", lambda: False)
    page = write_evaluation(workdir, classes(("a", "b", "c")), model="export/weather/2")
    write_importance(workdir, IMPORTANCE, model="export/weather/2")
    assert not list(page.parent.glob("*.png"))
    read = Page(page)
    assert not read.pictures and {"a", "b", "c", "sex"} <= set(read.cells)


def test_the_same_numbers_give_the_same_bytes(workdir):
    def written():
        folder = write_evaluation(workdir, numbers(), model="m").parent
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert written() == written()


@pytest.mark.parametrize(
    "found",
    [classes(tuple(range(30))), classes(tuple(range(120))), numbers(rows=1), numbers(rows=6000)],
    ids=["30 classes", "120 classes", "one row", "6,000 rows"],
)
def test_large_and_small_evaluations_are_drawn_too(workdir, found):
    page = write_evaluation(workdir, found, model="m")
    assert Page(page).cells


def test_a_model_without_a_task_has_a_page_without_metrics(workdir):
    found = evaluate(None, {"output": np.zeros(3)}, np.zeros(3), resamples=10)
    assert Page(write_evaluation(workdir, found, model="m")).cells == ["metric", "value"]


def test_a_folder_that_cannot_be_made_is_told(workdir):
    (workdir.path / "report").write_text("in the way")
    with pytest.raises(WorkdirError, match="report cannot be written to"):
        write_importance(workdir, IMPORTANCE, model="m")


@pytest.mark.parametrize(
    ("value", "like", "shown"),
    [(0.86012, None, "0.8601"), (54944.6, None, "54,945"), (0.00012, 0.1073, "0.0001"),
     (0.0, None, "0.000"), (1.5e-9, None, "1.5e-09"), (-3.25, None, "-3.250")],
)  # fmt: skip
def test_numbers_show_four_digits(value, like, shown):
    assert number(value, like=like) == shown
