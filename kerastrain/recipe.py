"""Recipe: what to train, as a value; and how recipes are found.

A recipe file holds one `RECIPE`:

    RECIPE = Recipe(load_data=load, build_model=build, defaults={"max_epochs": 20})

Those in `models/` go by name (`--recipe=mnist_cnn`), a user's own by its path
(`--recipe=my/recipe.py`).
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerastrain.errors import KerastrainError, OptionsError, RecipeError, suggestion
from kerastrain.options import TrainOptions
from kerastrain.schedules import parse_schedule

if TYPE_CHECKING:
    import keras

    from kerastrain.data.source import Data


@dataclass(frozen=True)
class Recipe:
    """What to train.

    Attributes:
        load_data: options -> Data. Called once, after the options are resolved.
        build_model: (options, data) -> a *compiled* keras.Model that takes
            `data.train.inputs` (batched) and returns what its loss expects.
        objective: what decides which weights are best: "val_loss", "val_f1:max".
        step: one training step (`kerastrain.training.steps`); None: the standard one.
        defaults: values for the fields of TrainOptions that the user leaves out.
        reads: which of --data, --data_dir and --target `load_data` reads, and "table" for
            what TableOptions says; giving another one is then an error. None: it is not said,
            all are allowed.
        settings: the recipe's own settings with their default values
            (`--set=hidden=256`): bool, int, float, str, or a tuple of one of those
            (`--set=hidden=256,128`). Values keep the type of the default.

    Raises:
        RecipeError: a default or a setting is none that a recipe can have.
    """

    load_data: Callable[[TrainOptions], Data]
    build_model: Callable[[TrainOptions, Data], keras.Model]
    objective: str = "val_loss"
    step: Callable[..., Any] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.defaults:
            if name not in DECIDABLE:
                raise RecipeError(
                    f"A recipe's defaults cannot hold '{name}'; expected some of "
                    f"{', '.join(DECIDABLE)}.{suggestion(name, DECIDABLE)}"
                )
        for name, default in self.settings.items():
            if not _is_setting(default):
                raise RecipeError(
                    f"The recipe's setting '{name}' has the default {default!r}; expected a "
                    "bool, an int, a float, a text, or a tuple of at least one of those."
                )

    def resolve(self, options: TrainOptions) -> TrainOptions:
        """The options with every default filled in and every setting typed.

        Raises:
            OptionsError: an unknown setting, one whose value has the wrong type, or an option
                that the recipe does not read.
        """
        sources = ("data", "data_dir", "target")
        reads = sources if self.reads is None else self.reads
        for name in sources:
            if getattr(options, name) is not None and name not in reads:
                read = " and ".join(f"--{source}" for source in reads if source in sources)
                raise OptionsError(
                    f"The recipe {options.recipe} does not read --{name}; "
                    + (f"it reads {read}." if read else "its data come along. Leave it out.")
                )
        if self.reads is not None and "table" not in self.reads:
            for field_ in dataclasses.fields(options.table):
                if getattr(options.table, field_.name) != field_.default:
                    raise OptionsError(
                        f"The recipe {options.recipe} does not read --{field_.name}, which is for "
                        "tables. Leave it out."
                    )
        fallbacks: dict[str, Any] = {"objective": self.objective, **STANDARD, **self.defaults}
        if "stop" in self.defaults or options.stop is not None:
            fallbacks.pop("patience", None)  # They decide the same thing.
        if options.patience is not None:
            fallbacks.pop("stop", None)
        filled = {
            name: value for name, value in fallbacks.items() if getattr(options, name) is None
        }
        resolved = dataclasses.replace(
            options, **filled, settings={**self.settings, **self._typed(options.settings)}
        )
        return _with_schedule(resolved)

    def _typed(self, given: Mapping[str, Any]) -> dict[str, Any]:
        typed = {}
        for name, value in given.items():
            if name not in self.settings:
                known = ", ".join(f"{n}={v!r}" for n, v in self.settings.items()) or "none"
                raise OptionsError(
                    f"The recipe has no setting '{name}'. Its settings, with their defaults: "
                    f"{known}.{suggestion(name, self.settings)}"
                )
            typed[name] = _convert(name, value, self.settings[name])
        return typed


# Used for fields that neither the user nor the recipe decides.
STANDARD: dict[str, Any] = {"max_epochs": 100, "batch_size": 128, "patience": 5}


# The options that a recipe may decide: those that are None unless the user says them.
DECIDABLE = tuple(
    option.name for option in dataclasses.fields(TrainOptions) if option.default is None
)


def _with_schedule(options: TrainOptions) -> TrainOptions:
    """The length of the run is part of a schedule that depends on it."""
    if options.schedule is None:
        return options
    schedule = parse_schedule(options.schedule).with_length(
        max_epochs=options.max_epochs, max_steps=options.max_steps
    )
    return dataclasses.replace(options, schedule=str(schedule))


def _is_setting(default: Any) -> bool:
    if isinstance(default, tuple):
        return bool(default) and all(
            _is_setting(item) and type(item) is type(default[0]) for item in default
        )
    return isinstance(default, (bool, int, float, str))


def _convert(name: str, value: Any, default: Any) -> Any:
    """Turns the text of --set into the type of the setting's default."""
    if not isinstance(value, str) or isinstance(default, str):
        return value
    try:
        if isinstance(default, tuple):
            return tuple(_convert(name, item, default[0]) for item in value.split(","))
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        return type(default)(value)
    except (ValueError, KeyError):
        raise OptionsError(
            f"--set={name}={value}: expected a value like the default, "
            f"{default!r} ({type(default).__name__})."
        ) from None


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with where it came from: `name` for folders, `source_sha256` to notice edits."""

    recipe: Recipe
    name: str
    path: Path
    source_sha256: str


def shipped_recipes() -> list[str]:
    """The names of the recipes in `models/`."""
    return sorted(
        path.stem for path in _models_folder().glob("*.py") if not path.stem.startswith("_")
    )


def locate_recipe(name_or_path: str) -> Path:
    """The file of a recipe, found without running it.

    Raises:
        RecipeError: there is no such file, or no such recipe in `models/`.
    """
    if name_or_path.endswith(".py") or "/" in name_or_path:
        path = Path(name_or_path)
        if path.exists() and not (path.is_file() and name_or_path.endswith(".py")):
            raise RecipeError(f"The recipe '{name_or_path}' is no Python file; expected NAME.py.")
        if not path.is_file():
            raise RecipeError(f"There is no recipe file '{name_or_path}'.")
        return path.resolve()
    names = shipped_recipes()
    if name_or_path not in names:
        raise RecipeError(
            f"There is no recipe '{name_or_path}'. Known: {', '.join(names)}; "
            f"your own file is given by its path, with .py.{suggestion(name_or_path, names)}"
        )
    return _models_folder() / f"{name_or_path}.py"


def is_own(name_or_path: str) -> bool:
    """Whether a recipe is a file of the user's, and none of those in `models/`."""
    return name_or_path.endswith(".py") or "/" in name_or_path


def source_sha256(path: Path) -> str:
    """The hash of a recipe's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_sha256(path: Path) -> str | None:
    """The hash of what a file says to Python: comments, docstrings and layout left out.

    None for one that is no Python. Equal in one version of Python; others name things otherwise.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def modules_beside(path: Path) -> list[str]:
    """The files that a recipe's own modules were imported from, seen from its folder."""
    folder = path.parent
    return [str(file.relative_to(folder)) for _, file in _own_modules() if folder in file.parents]


def _own_modules() -> list[tuple[str, Path]]:
    """Name and file of the imported modules that are no library's, no recipe's and not ours."""
    paths = sysconfig.get_paths()
    libraries = {paths["stdlib"], paths["platstdlib"], os.path.dirname(__file__)}
    found = [
        (name, Path(file).resolve())
        for name, module in list(sys.modules.items())
        if (file := getattr(module, "__file__", None))
        and not name.startswith(("kerastrain", "__main__"))
    ]
    return [
        (name, file)
        for name, file in found
        if file.suffix == ".py"
        and not {"site-packages", "dist-packages"} & set(file.parts)
        and not any(str(parent) in libraries for parent in file.parents)
    ]


def load_recipe(name_or_path: str) -> LoadedRecipe:
    """Runs a recipe's file and returns its RECIPE.

    The modules beside one of the user's own are found from here on, as a script finds them.

    Raises:
        RecipeError: not found, fails when it is run (file and line are named),
            or holds no RECIPE.
    """
    path = locate_recipe(name_or_path)
    if is_own(name_or_path):
        _find_modules_beside(path)
    module_name = f"kerastrain_recipe_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None  # a .py file always has a spec
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Registered under its name, so that classes of the recipe can be saved and found again.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except KerastrainError as error:
        del sys.modules[module_name]
        raise RecipeError(f"{location_in(path, error)}: {error}") from error
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise RecipeError(f"{location_in(path, error)}: {_described(error)}") from error
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            f"{path}: expected a variable RECIPE = kerastrain.Recipe(load_data=…, build_model=…), "
            f"found {'none' if recipe is None else type(recipe).__name__}."
        )
    return LoadedRecipe(recipe, path.stem, path, source_sha256(path))


def _find_modules_beside(path: Path) -> None:
    """Puts the recipe's folder first on the path; modules by the names of its files are new."""
    folder = path.parent
    sys.path[:] = [str(folder), *(place for place in sys.path if place != str(folder))]
    importlib.invalidate_caches()
    beside = {entry.stem for entry in folder.iterdir()}
    for name, _ in _own_modules():
        # Of another recipe's folder, or as it was before an edit.
        if name.partition(".")[0] in beside:
            del sys.modules[name]


def location_in(path: Path, error: BaseException) -> str:
    """ "file:line" of the deepest place within the recipe's file that the error passed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _models_folder() -> Path:
    spec = importlib.util.find_spec("kerastrain.models")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    # Not installed but run from its checkout, where they lie beside the package.
    beside = Path(__file__).parents[1] / "models"
    if beside.is_dir():
        return beside
    raise RecipeError("The package kerastrain.models is not installed with kerastrain.")
