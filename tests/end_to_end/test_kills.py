"""Promise 2: a run killed at any instant ends exactly as one that never was.

Real processes of the real command get SIGKILL in the middle of an epoch, of an
evaluation and of a save, and are started again until they finish. Every byte of
every variable, the history, the logs and the stopping step are compared with an
undisturbed run's.
"""

import random

import killing
import pytest
from killing import CNN, MLP, assert_same

TABLE = ("--recipe=tabular_mlp", "--target=median_house_value", "--max_epochs=12")


def kill_and_go_on(workdir, flags, conditions, environment=None):
    """Kills one start of the run per condition, then lets it finish. Returns the kills."""
    kills = 0
    for condition in conditions:
        process = killing.start(workdir, *flags, environment=environment)
        kills += killing.kill_when(condition(), process)
    killing.finish(workdir, *flags, environment=environment)
    return kills


@pytest.mark.parametrize(
    ("flags", "longest"),
    [
        pytest.param(MLP, 0.8, id="mlp"),
        # A kill in an evaluation is of this one, in the fast suite too.
        pytest.param(CNN, 1.0, id="cnn", marks=pytest.mark.slow),
    ],
)
def test_resumed_run_matches_uninterrupted_run_exactly(tmp_path, undisturbed, flags, longest):
    whole = undisturbed(*flags)
    workdir, rng = tmp_path / "run", random.Random(20)
    instants = [lambda: killing.random_instant(workdir, rng, longest)] * 2
    # On a fast machine the run may be over before the last kill. (Many: in the slow suite.)
    assert kill_and_go_on(workdir, flags, instants) >= 1
    assert_same(killing.what_remains(workdir), whole)
    assert whole["result: ended"] == ("stopped" if flags == MLP else "budget")


@pytest.mark.parametrize(
    "flags", [pytest.param(MLP, id="mlp"), pytest.param(CNN, id="cnn", marks=pytest.mark.slow)]
)
def test_a_kill_in_the_middle_of_a_save_loses_nothing_but_the_save(tmp_path, undisturbed, flags):
    workdir = tmp_path / "run"
    in_saves = [
        lambda: killing.both(killing.training_has_begun(workdir), killing.in_a_save(workdir))
    ]
    assert kill_and_go_on(workdir, flags, in_saves) == 1
    assert_same(killing.what_remains(workdir), undisturbed(*flags))


@pytest.mark.slow  # kills in steps and in saves are in the fast suite
def test_a_kill_in_the_middle_of_an_evaluation_loses_nothing(tmp_path, undisturbed):
    marker = tmp_path / "evaluating"
    environment = {"EVALUATION_MARKER": str(marker)}
    workdir = tmp_path / "run"
    flags = (*CNN, "--max_epochs=8")
    in_evaluations = [lambda: killing.appears(marker)]
    assert kill_and_go_on(workdir, flags, in_evaluations, environment) == 1
    assert_same(killing.what_remains(workdir), undisturbed(*flags))


@pytest.mark.slow
@pytest.mark.parametrize("flags", [MLP, CNN], ids=["mlp", "cnn"])
def test_many_kills_change_nothing(tmp_path, undisturbed, flags):
    workdir, rng = tmp_path / "run", random.Random(1)
    instants = [lambda: killing.random_instant(workdir, rng, 0.4)] * 20
    assert kill_and_go_on(workdir, flags, instants) >= 10
    assert_same(killing.what_remains(workdir), undisturbed(*flags))


@pytest.mark.slow
def test_a_table_with_strings_survives_kills_too(tmp_path, undisturbed, real_data):
    data = real_data / "tabular" / "california-housing.csv.gz"
    flags = (*TABLE, f"--data={data}", "--jit=off", "--checkpoint_every=20steps")
    workdir, rng = tmp_path / "run", random.Random(2)
    instants = [lambda: killing.random_instant(workdir, rng, 1.0)] * 4
    assert kill_and_go_on(workdir, flags, instants) >= 3
    assert_same(killing.what_remains(workdir), undisturbed(*flags))


@pytest.mark.slow
def test_a_table_that_is_streamed_survives_kills_too(tmp_path, undisturbed, real_data):
    data = real_data / "tabular" / "adult.parquet"
    flags = ("--recipe=tabular_mlp", f"--data={data}", "--target=income", "--max_epochs=4")
    flags = (
        *flags,
        "--ignore_columns=split",
        "--stream",
        "--jit=off",
        "--checkpoint_every=20steps",
    )
    workdir, rng = tmp_path / "run", random.Random(4)
    instants = [lambda: killing.random_instant(workdir, rng, 1.0)] * 4
    assert kill_and_go_on(workdir, flags, instants) >= 2
    assert_same(killing.what_remains(workdir), undisturbed(*flags))


@pytest.mark.slow
def test_examples_on_disk_survive_kills_too(tmp_path, undisturbed):
    flags = (
        f"--recipe={killing.RECIPES / 'stored.py'}", "--jit=off", "--checkpoint_every=70steps"
    )  # fmt: skip
    workdir, rng = tmp_path / "run", random.Random(3)
    instants = [lambda: killing.random_instant(workdir, rng, 0.5)] * 4
    assert kill_and_go_on(workdir, flags, instants) >= 2
    assert_same(killing.what_remains(workdir), undisturbed(*flags))


# The same proof by the command that a user has for it.
