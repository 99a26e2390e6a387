"""kerastrain: train, stop, survive and publish Keras models.

    import kerastrain
    result = kerastrain.train(model, (x, y), validation=(xv, yv), workdir="runs/mine")
    model.fit(..., callbacks=[kerastrain.EarlyStopping(monitor="val_loss", patience=5)])
    kerastrain.train(..., stop=kerastrain.stopping.GL(5) & kerastrain.stopping.After(epochs=3))

Names are imported when they are first used: `import kerastrain` alone does not
import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Classification": "kerastrain.data.source",
    "Data": "kerastrain.data.source",
    "EarlyStopping": "kerastrain.callbacks.early_stopping",
    "Examples": "kerastrain.data.source",
    "KerastrainError": "kerastrain.errors",
    "Objective": "kerastrain.objective",
    "Recipe": "kerastrain.recipe",
    "Regression": "kerastrain.data.source",
    "TrainOptions": "kerastrain.options",
    "TrainResult": "kerastrain.run",
    "build_optimizer": "kerastrain.optimizers",
    "supervised_step": "kerastrain.training.steps",
    "train": "kerastrain.run",
}

# Modules under a shorter name: kerastrain.stopping.Patience(5).
_MODULES = {"stopping": "kerastrain.training.stopping"}

__all__ = sorted([*_HOMES, *_MODULES])

if TYPE_CHECKING:
    from kerastrain.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from kerastrain.data.source import Classification as Classification
    from kerastrain.data.source import Data as Data
    from kerastrain.data.source import Examples as Examples
    from kerastrain.data.source import Regression as Regression
    from kerastrain.errors import KerastrainError as KerastrainError
    from kerastrain.objective import Objective as Objective
    from kerastrain.optimizers import build_optimizer as build_optimizer
    from kerastrain.options import TrainOptions as TrainOptions
    from kerastrain.recipe import Recipe as Recipe
    from kerastrain.run import TrainResult as TrainResult
    from kerastrain.run import train as train
    from kerastrain.training import stopping as stopping
    from kerastrain.training.steps import supervised_step as supervised_step


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'kerastrain' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
