"""Where a rollback leads, which checkpoints it leaves behind, and how much slower it makes."""

import keras
import numpy as np
import pytest

from kerastrain.errors import WorkdirError
from kerastrain.training.checkpoint_files import Record
from kerastrain.training.learning_rate import slow_down
from kerastrain.training.rollback import (
    Rollback,
    abandoned,
    forget_rollbacks,
    read_rollbacks,
    target_of,
    write_rollbacks,
)
from kerastrain.workdir import Workdir


@pytest.mark.parametrize(
    ("records", "target"),
    [
        ([Record(0), Record(5), Record(10, objective=0.5), Record(13)], 10),
        ([Record(10, objective=0.5), Record(20, objective=9.0)], 20),  # the last, not the best
        ([Record(0), Record(5)], 0),
        ([Record(5), Record(7)], 5),  # The user went back to it.
        ([], None),
    ],
)
def test_the_way_back_leads_to_the_last_evaluation_or_the_beginning(records, target):
    assert target_of(records) == target


def test_checkpoints_beyond_the_target_that_do_not_know_of_the_rollback_are_abandoned():
    rollbacks = [Rollback(bad_step=25, to_step=10), Rollback(bad_step=18, to_step=10)]
    records = [
        Record(5),
        Record(10),
        Record(20),  # before the first rollback
        Record(15, rollbacks=1),  # between the two
        Record(12, rollbacks=2),  # of the run as it is now
        Record(30, rollbacks=2),
    ]
    assert abandoned(records, rollbacks) == {20, 15}
    assert abandoned(records, []) == set()


def test_rollbacks_are_recorded(tmp_path):
    workdir = Workdir(tmp_path)
    assert read_rollbacks(workdir) == []
    write_rollbacks(workdir, [Rollback(7, 5)])
    assert read_rollbacks(workdir) == [Rollback(7, 5)]
    workdir.rollbacks_file.write_text("{")
    with pytest.raises(WorkdirError, match="cannot be read"):
        read_rollbacks(workdir)


def test_rollbacks_that_a_checkpoint_does_not_know_are_forgotten(tmp_path):
    workdir = Workdir(tmp_path)
    forget_rollbacks(workdir, known=0)
    write_rollbacks(workdir, [Rollback(7, 5), Rollback(9, 5)])
    forget_rollbacks(workdir, known=1)
    assert read_rollbacks(workdir) == [Rollback(7, 5)]


def test_a_learning_rate_that_a_function_gives_is_halved_too():
    optimizer = keras.optimizers.SGD(lambda: 0.8)
    for halvings in (1, 2):
        assert slow_down(optimizer, known=0, halvings=halvings) is True
    assert float(optimizer.learning_rate) == pytest.approx(0.2)


def test_a_learning_rate_is_halved_once_for_every_rollback_it_does_not_know():
    optimizer = keras.optimizers.SGD(0.8)
    assert slow_down(optimizer, known=1, halvings=3) is False
    assert float(optimizer.learning_rate) == np.float32(0.2)
    slow_down(optimizer, known=3, halvings=3)
    assert float(optimizer.learning_rate) == np.float32(0.2)


def test_of_a_schedule_every_value_is_halved():
    def schedule():
        return keras.optimizers.schedules.ExponentialDecay(0.8, 10, 0.5)

    optimizer, untouched = keras.optimizers.SGD(schedule()), schedule()
    for halvings in (1, 2):
        assert slow_down(optimizer, known=0, halvings=halvings) is True
        optimizer.iterations.assign(10)
        assert float(optimizer.learning_rate) == pytest.approx(float(untouched(10)) * 0.5**halvings)
    restored = keras.optimizers.SGD.from_config(keras.optimizers.SGD(schedule()).get_config())
    slow_down(restored, known=2, halvings=2)  # A start later on: its schedule knows of none.
    restored.iterations.assign(10)
    assert float(restored.learning_rate) == pytest.approx(0.1)
