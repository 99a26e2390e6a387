"""The order of the layers: a module imports only from those before it, and nothing goes round."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kerastrain

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kerastrain"
LAYERS = (
    "errors",
    "best_effort",
    "text_table",
    "arguments",
    "expression",
    "objective",
    "options",
    "workdir",
    "optimizers",
    "schedules",
    "recipe",
    "data",
    "networks",
    "training",
    "sources",
    "callbacks",
    "export",
    "outcome",
    "preflight",
    "job",
    "assembly",
    "inspection",
    "fitting",
    "session",
    "continuation",
    "run",
    "prediction",
    "resume_check",
    "serving",
    "search",
    "plots",
    "report",
    "cli",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
# The package itself maps public names to modules, and __main__ starts the command.
LAYERED = {
    name: path
    for name, path in MODULES.items()
    if name not in ("kerastrain", "kerastrain.__main__")
}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports_below(node: ast.AST) -> Iterator[str]:
    """Every module that is imported at run time, in functions too: "kerastrain.data.source"."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import in line {child.lineno}"
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in MODULES else str(child.module)
        else:
            yield from imports_below(child)


def imports_of(path: Path) -> set[str]:
    return set(imports_below(ast.parse(path.read_text(encoding="utf-8"))))


def layer(name: str) -> int:
    return LAYERS.index(name.split(".")[1])


@pytest.mark.parametrize("name", LAYERED)
def test_a_module_belongs_to_a_layer_and_imports_only_from_earlier_ones(name):
    assert name.split(".")[1] in LAYERS, f"{name} belongs to no layer of {LAYERS}"
    for imported in imports_of(LAYERED[name]):
        if imported.startswith("kerastrain."):
            assert layer(imported) <= layer(name), f"{name} imports {imported}, a later layer"


def test_no_imports_go_round():
    graph = {name: imports_of(path) & set(LAYERED) for name, path in LAYERED.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_there_is_no_utils_module():
    assert not [name for name in MODULES if name.rpartition(".")[2] in ("utils", "util", "misc")]


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.py")), ids=lambda path: path.stem)
def test_a_recipe_imports_only_public_names_errors_data_and_networks(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "kerastrain":
            assert {alias.name for alias in node.names} <= set(kerastrain.__all__)
    ours = {name for name in imports_of(path) if name.split(".")[0] == "kerastrain"}
    public = ("kerastrain", "kerastrain.errors")
    packages = ("kerastrain.data.", "kerastrain.networks.")
    assert all(name in public or name.startswith(packages) for name in ours), ours


def test_every_public_name_is_where_the_package_says():
    for name in kerastrain.__all__:
        assert getattr(kerastrain, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = kerastrain.trian


@pytest.mark.parametrize(
    "statement",
    [
        "import kerastrain; kerastrain.TrainOptions; kerastrain.Recipe; kerastrain.Data",
        "import kerastrain.cli.main, kerastrain.cli.train, kerastrain.cli.evaluate",
        "import kerastrain.cli.checkpoints",
        "from kerastrain.cli.main import main; main([]); main(['--help']); main(['--version'])",
        "from kerastrain.cli.main import main; main(['train', '--help'])",
    ],
)
def test_what_needs_no_tensorflow_does_not_import_it(statement):
    check = "import sys; print({'tensorflow', 'keras', 'pyarrow', 'sklearn'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{check}"], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "set()"
