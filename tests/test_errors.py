import pytest

from kerastrain import errors
from kerastrain.errors import Declined, Interrupted, KerastrainError, UsageError, suggestion

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, KerastrainError)
    if kind not in (Declined, Interrupted)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_shows_its_message_and_ends_with_1_or_for_usage_with_2(kind):
    error = kind("received this; expected that")
    assert str(error) == "received this; expected that"
    assert error.exit_status == (2 if kind is UsageError else 1)


def test_an_interruption_carries_the_exit_status_of_its_signal():
    error = Interrupted("Stopped by SIGTERM.", exit_status=143)
    assert (str(error), error.exit_status) == ("Stopped by SIGTERM.", 143)


def test_a_declined_version_has_an_exit_status_of_its_own():
    error = Declined("accuracy > deployed: does not hold", decision=None)
    assert (str(error), error.exit_status) == ("accuracy > deployed: does not hold", 3)


def test_the_nearest_name_is_suggested():
    assert suggestion("val_los", ["loss", "val_loss"]) == " Did you mean 'val_loss'?"


def test_nothing_is_suggested_when_nothing_is_near():
    assert suggestion("zebra", ["loss", "val_loss"]) == ""
    assert suggestion("zebra", []) == ""
