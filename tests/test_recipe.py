import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from kerastrain.errors import OptionsError, RecipeError
from kerastrain.options import TableOptions, TrainOptions
from kerastrain.recipe import (
    STANDARD,
    Recipe,
    load_recipe,
    locate_recipe,
    location_in,
    modules_beside,
    shipped_recipes,
)

GOOD = """
from kerastrain import Recipe
def load(options): ...
def build(options, data): ...
RECIPE = Recipe(load, build, defaults={"max_epochs": 7}, settings={"hidden": 64})
"""


def recipe(**values) -> Recipe:
    return Recipe(load_data=lambda options: None, build_model=lambda options, data: None, **values)


@pytest.fixture
def written(tmp_path):
    """Writes a recipe file of the user's and returns its path as it is given with --recipe."""

    def write(source: str, name: str = "mine.py") -> str:
        path = tmp_path / name
        path.write_text(source, encoding="utf-8")
        return str(path)

    return write


# Defaults and settings


def test_the_user_decides_before_the_recipe_and_the_recipe_before_the_standard():
    resolved = recipe(defaults={"max_epochs": 7, "batch_size": 32}).resolve(
        TrainOptions(batch_size=64)
    )
    assert (resolved.batch_size, resolved.max_epochs) == (64, 7)
    assert resolved.patience == STANDARD["patience"]
    assert resolved.objective == "val_loss"


def test_a_patience_of_zero_is_not_taken_for_none():
    assert recipe(defaults={"patience": 3}).resolve(TrainOptions(patience=0)).patience == 0


def test_resolved_options_resolve_to_themselves():
    mine = recipe(defaults={"max_epochs": 7}, settings={"hidden": (64, 32), "rate": 0.5})
    once = mine.resolve(TrainOptions(settings={"rate": "0.25"}))
    assert mine.resolve(once) == once


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        (64, "256", 256),
        (0.5, "0.25", 0.25),
        (0.5, "1", 1.0),
        ("relu", "gelu", "gelu"),
        (True, "false", False),
        (False, "True", True),
        (False, "1", True),
        ((64, 32), "256,128,64", (256, 128, 64)),
        ((64, 32), "256", (256,)),
    ],
)
def test_a_setting_takes_the_type_of_its_default(default, text, value):
    resolved = recipe(settings={"it": default}).resolve(TrainOptions(settings={"it": text}))
    assert resolved.settings == {"it": value}
    assert type(resolved.settings["it"]) is type(default)


@pytest.mark.parametrize(
    ("default", "text"),
    [(64, "many"), (64, "2.5"), (0.5, ""), (True, "maybe"), ((64, 32), "64,x"), ((64, 32), "")],
)
def test_a_setting_of_another_type_is_refused(default, text):
    with pytest.raises(OptionsError, match="--set=it=.*: expected a value like the default"):
        recipe(settings={"it": default}).resolve(TrainOptions(settings={"it": text}))


def test_an_unknown_setting_is_refused_with_the_known_ones_listed():
    with pytest.raises(OptionsError, match=r"hidden=64, dropout=0.5\. Did you mean 'hidden'\?"):
        recipe(settings={"hidden": 64, "dropout": 0.5}).resolve(
            TrainOptions(settings={"hiden": "1"})
        )


def test_a_default_for_what_a_recipe_cannot_decide_is_refused():
    with pytest.raises(RecipeError, match="cannot hold 'max_epoch'.*Did you mean 'max_epochs'"):
        recipe(defaults={"max_epoch": 7})
    # It would never be used: the option is always set.
    with pytest.raises(RecipeError, match="cannot hold 'evaluate_every'"):
        recipe(defaults={"evaluate_every": "10steps"})


@pytest.mark.parametrize("default", [None, (), (1, "a"), [1, 2], {"a": 1}])
def test_a_setting_that_the_command_line_could_not_give_is_refused(default):
    with pytest.raises(RecipeError, match="setting 'it' has the default"):
        recipe(settings={"it": default})


# Finding and loading


def test_a_users_file_is_loaded_with_its_name_path_and_hash(written):
    path = written(GOOD)
    loaded = load_recipe(path)
    assert loaded.recipe.settings == {"hidden": 64}
    assert (loaded.name, loaded.path) == ("mine", Path(path).resolve())
    assert loaded.source_sha256 == hashlib.sha256(GOOD.encode()).hexdigest()


def test_shipped_recipes_are_found_by_name():
    assert shipped_recipes()
    for name in shipped_recipes():
        assert locate_recipe(name).name == f"{name}.py"


def test_shipped_recipes_are_found_in_a_checkout_that_is_not_installed(root, tmp_path):
    # -S: without site-packages, so without the editable install of the checkout.
    code = "from kerastrain.recipe import shipped_recipes; print(*shipped_recipes())"
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
    )
    assert result.stdout.split() == shipped_recipes()


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match=r"There is no recipe 'nonsuch'\. Known: .*with \.py"):
        locate_recipe("nonsuch")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"There is no recipe file '.*nonsuch\.py'"):
        locate_recipe(str(tmp_path / "nonsuch.py"))
    with pytest.raises(RecipeError, match="is no Python file; expected NAME.py"):
        locate_recipe(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        ("a = 1\ndef f(:\n", 2, "SyntaxError"),
        ("\n\nimport nonsuch_module\n", 3, "ModuleNotFoundError: No module named"),
        ("def f():\n    return 1 / 0\n\nf()\n", 2, "ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        (
            "from kerastrain import Recipe\nRECIPE = Recipe(None, None, defaults={'x': 1})\n",
            2,
            "A recipe's defaults cannot hold 'x'",
        ),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
    ],
)
def test_a_broken_file_gives_file_and_line(written, source, line, reason):
    path = written(source)
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert str(raised.value).startswith(f"{Path(path).resolve()}:{line}: {reason}")
    assert "kerastrain_recipe_mine" not in sys.modules


@pytest.mark.parametrize(("source", "found"), [("", "none"), ("RECIPE = {}", "dict")])
def test_a_file_without_a_recipe_is_told_what_is_expected(written, source, found):
    with pytest.raises(RecipeError, match=rf"expected a variable RECIPE = .*, found {found}\."):
        load_recipe(written(source))


def test_an_error_elsewhere_is_located_by_the_recipes_own_line(written):
    path = Path(written(GOOD.replace("def build(options, data): ...", "build = max")))
    build = load_recipe(str(path)).recipe.build_model
    with pytest.raises(TypeError) as raised:
        build(1)
    assert location_in(path, raised.value) == str(path)  # it passed no line of the file


# Modules beside a recipe


def with_helper(folder, units):
    folder.mkdir(exist_ok=True)
    (folder / "helper_beside.py").write_text(f"UNITS = {units}\n")
    body = GOOD.replace("def load", "from helper_beside import UNITS\ndef load")
    (folder / "mine.py").write_text(body.replace("64", "UNITS"))
    return str(folder / "mine.py")


@pytest.fixture
def module_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("helper_beside", None)


def test_a_recipe_finds_the_modules_beside_it(tmp_path, module_path):
    path = with_helper(tmp_path / "a", 16)
    assert load_recipe(path).recipe.settings == {"hidden": 16}
    assert sys.path[0] == str(tmp_path / "a")  # And so does the process that checks exports.
    assert modules_beside(Path(path)) == ["helper_beside.py"]


def test_a_module_is_the_one_beside_the_recipe_as_it_is_now(tmp_path, module_path):
    first, other = with_helper(tmp_path / "a", 16), with_helper(tmp_path / "b", 2)
    load_recipe(first)
    assert load_recipe(other).recipe.settings == {"hidden": 2}
    with_helper(tmp_path / "b", 300)
    assert load_recipe(other).recipe.settings == {"hidden": 300}


def test_shipped_recipes_change_no_path(module_path):
    before = list(sys.path)
    load_recipe("digits")
    assert sys.path == before


@pytest.mark.parametrize(
    ("reads", "message"),
    [(("data_dir",), "it reads --data_dir"), ((), "its data come along. Leave it out")],
)
def test_a_source_of_data_that_a_recipe_does_not_read_is_refused(reads, message):
    recipe = Recipe(load_data=lambda options: None, build_model=lambda o, d: None, reads=reads)
    with pytest.raises(OptionsError, match=f"does not read --data; {message}"):
        recipe.resolve(TrainOptions(recipe="mine", data="table.csv"))


def test_a_recipe_that_does_not_say_what_it_reads_takes_everything():
    recipe = Recipe(load_data=lambda options: None, build_model=lambda o, d: None)
    assert recipe.resolve(TrainOptions(data="table.csv", data_dir="x")).data == "table.csv"


@pytest.mark.parametrize(
    "given",
    [
        {"weights": "w"},
        {"balance": True},
        {"quantiles": (0.5,)},
        {"ignore_columns": ("a",)},
        {"header": False},
        {"schema": "s.json"},
        {"test_data": "t.csv"},
        {"encoding": "latin-1"},
    ],
)
def test_a_table_option_for_a_recipe_that_reads_no_table_is_refused(given):
    options = TrainOptions(recipe="mine", table=TableOptions(**given))
    images = recipe(reads=("data_dir",))
    with pytest.raises(OptionsError, match=f"does not read --{next(iter(given))}, which is for"):
        images.resolve(options)
    for reads in (None, ("data", "target", "table")):
        assert recipe(reads=reads).resolve(options).table == options.table


def test_a_recipe_that_reads_no_table_runs_without_table_options():
    assert recipe(reads=()).resolve(TrainOptions()).table == TableOptions()
