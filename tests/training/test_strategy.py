"""One device or several: the same losses, within float tolerance."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerastrain.errors import KerastrainError, OptionsError
from kerastrain.training.strategy import make_strategy

SCRIPT = Path(__file__).parent / "mirrored_run.py"


def trained(name, model, tmp_path):
    out = tmp_path / f"{name}.json"
    subprocess.run([sys.executable, SCRIPT, name, model, out], check=True, capture_output=True)
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    "model",
    [
        "clipped",
        pytest.param("adam", marks=pytest.mark.slow),
        pytest.param("embedding", marks=pytest.mark.slow),
    ],
)
def test_two_logical_devices_give_the_losses_of_one(model, tmp_path):
    one = trained("one_device", model, tmp_path)
    two = trained("mirrored", model, tmp_path)
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    for mine, theirs in zip(two["weights"], one["weights"], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)
    # 201 rows do not divide by two replicas; each must be counted once all the same.
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    # What a run records of its model, the optimizer's settings included.
    assert two["described"] == one["described"]
    assert any(name.startswith("optimizer") for name in two["described"])


def test_mirrored_on_a_single_device_says_what_to_use():
    with pytest.raises(OptionsError, match="needs two devices or more.*one_device"):
        make_strategy("mirrored")


def test_unknown_names_are_refused():
    with pytest.raises(KerastrainError, match="expected auto, one_device or mirrored"):
        make_strategy("both")
