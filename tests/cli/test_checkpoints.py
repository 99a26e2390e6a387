"""`kerastrain checkpoints` on made-up work directories; only --verify needs real tensors."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from kerastrain.cli.checkpoint_list import age_text, best_of, size_text
from kerastrain.cli.main import main
from kerastrain.objective import Objective
from kerastrain.options import TrainOptions
from kerastrain.training.checkpoint_files import CheckpointFiles, Record
from kerastrain.workdir import Workdir, write_json

HOLDER = """
import sys, time
from kerastrain.workdir import Workdir
with Workdir(sys.argv[1]).lock():
    print("locked", flush=True)
    time.sleep(600)
"""


def make_run(path, *, objective="val_loss"):
    workdir = Workdir(path)
    workdir.create()
    options = TrainOptions(workdir=str(path), objective=objective).to_json()
    record = {
        "given": options,
        "resolved": options,
        "recipe": "digits",
        "recipe_sha256": None,
        "data_fingerprint": "",
        "environment": {},
        "model": {},
    }
    write_json(workdir.run_file, record)
    workdir.latest_checkpoints.mkdir(parents=True)
    return workdir


def add(workdir, step, *, objective=None, size=1000):
    files = CheckpointFiles(workdir.latest_checkpoints)
    for end in ("index", "data-00000-of-00001"):
        (files.folder / f"ckpt-{step}.{end}").write_bytes(bytes(size))
    files.commit(step, {"epoch": step / 100, "seconds": 1.0, "objective": objective})


@pytest.fixture
def workdir(tmp_path):
    """Three checkpoints: after an evaluation, after a better one, in the middle of a round."""
    made = make_run(tmp_path / "run")
    for step, objective in ((100, 0.75), (200, 0.5), (250, None)):
        add(made, step, objective=objective)
    return made


@pytest.fixture
def files(workdir):
    return CheckpointFiles(workdir.latest_checkpoints)


@pytest.fixture
def checkpoints(workdir, capsys):
    """Runs `kerastrain checkpoints --workdir=… ARGUMENTS…`; gives status, stdout, stderr."""

    def run(*arguments):
        status = main(["checkpoints", f"--workdir={workdir}", *arguments])
        return status, *capsys.readouterr()

    return run


def harm(files, step):
    (files.folder / f"ckpt-{step}.index").write_bytes(b"")


# The list


def test_the_list_has_a_line_for_every_checkpoint(checkpoints):
    status, out, err = checkpoints()
    assert (status, err) == (0, "")
    heading, *rows = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    assert heading == ["step", "epoch", "val_loss", "size", "age", "notes", "state"]
    assert [row[:3] for row in rows] == [
        ["100", "1.00", "0.75"],
        ["200", "2.00", "0.5"],
        ["250", "2.50", "-"],
    ]
    assert all(row[3].endswith(" kB") and row[4].endswith(" s") for row in rows)
    assert [row[5:] for row in rows] == [["intact"], ["best", "intact"], ["newest", "intact"]]


def test_columns_are_aligned(checkpoints):
    _, out, _ = checkpoints()
    heading, *rows = out.splitlines()
    assert {row.index("intact") for row in rows} == {heading.index("state")}
    assert {row.index("0  ") for row in rows} == {heading.index("p  ")}  # the end of "step"


def test_a_smaller_or_a_larger_objective_is_the_best_as_its_direction_says(tmp_path, capsys):
    workdir = make_run(tmp_path / "run", objective="val_score:max")
    for step, objective in ((1, 0.75), (2, 0.5), (3, 0.25)):
        add(workdir, step, objective=objective)
    assert main(["checkpoints", f"--workdir={workdir}"]) == 0
    heading, first, *_ = capsys.readouterr().out.splitlines()
    assert "val_score " in heading
    assert "best" in first


def test_of_equal_objectives_the_earlier_is_the_best_and_without_an_objective_none():
    records = [Record(1), Record(2, objective=0.5), Record(3, objective=0.5)]
    assert best_of(records, Objective.parse("val_loss")) is records[1]
    assert best_of(records, None) is None
    assert best_of(records[:1], Objective.parse("val_loss")) is None


def test_the_list_says_what_is_damaged_with_the_reason_and_still_ends_well(checkpoints, files):
    (files.folder / "ckpt-200.index").unlink()
    status, out, _ = checkpoints()
    assert status == 0
    assert out.splitlines()[2].endswith("damaged: ckpt-200.index is missing")


def test_a_list_in_a_pipe_has_no_colours_and_loses_nothing(run_kerastrain, workdir, files):
    (files.folder / "ckpt-200.index").write_bytes(b"x")
    reason = files.damage(200)
    result = run_kerastrain("checkpoints", f"--workdir={workdir}")
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout
    assert f"damaged: {reason}\n" in result.stdout
    assert "…" not in result.stdout


def test_what_lies_in_quarantine_and_aside_is_listed_below(checkpoints, files):
    files.put_in_quarantine(250, "its disk was wet")
    files.go_back_to(100)
    _, out, _ = checkpoints()
    assert out.splitlines()[2:] == [
        "in quarantine: ckpt-250: its disk was wet",
        "set aside: 200 (--restore=STEP brings one back)",
    ]


def test_a_pinned_checkpoint_is_marked(checkpoints, files):
    files.pin(250)
    _, out, _ = checkpoints()
    assert "pinned, newest" in out.splitlines()[3]


def test_a_checkpoint_that_a_trainer_removes_meanwhile_is_not_called_damaged(
    checkpoints, files, monkeypatch
):
    look = CheckpointFiles.damage

    def look_too_late(self, step):
        if step == 100:
            self.discard(step)
        return look(self, step)

    monkeypatch.setattr(CheckpointFiles, "damage", look_too_late)
    status, out, _ = checkpoints("--verify=false")
    assert status == 0
    assert "damaged" not in out
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_600, "1 MB"),
        (2.5e9, "2.5 GB"),
        (7e12, "7 TB"),
    ],
)
def test_sizes_are_for_people(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h")]
    + [(86_400, "1 d"), (40 * 86_400, "40 d")],
)
def test_ages_are_for_people(seconds, text):
    assert age_text(seconds) == text


def test_json_is_one_line_with_everything(checkpoints, files):
    files.pin(100)
    harm(files, 200)
    add(Workdir(files.folder.parents[1]), 300)
    files.put_in_quarantine(300, "for a test")
    status, out, _ = checkpoints("--json")
    assert status == 0
    assert out.count("\n") == 1
    values = json.loads(out)
    assert values["folder"] == str(files.folder)
    assert values["objective"] == "val_loss:min"
    assert values["quarantine"] == {"ckpt-300": "for a test"}
    assert values["set_aside"] == []
    first, second, third = values["checkpoints"]
    assert (first["step"], first["epoch"], first["objective"]) == (100, 1.0, 0.75)
    assert (first["pinned"], first["newest"], first["best"]) == (True, False, False)
    assert abs(first["written"] - time.time()) < 3600
    assert first["bytes"] > 2000
    assert first["damage"] is None
    assert second["best"] and "ckpt-200.index has" in second["damage"]
    assert third["newest"] and third["objective"] is None


# Verifying


def add_tensors(workdir, step, *, describe=None):
    """A checkpoint as training saves it: groups of variables, and the host's values as text."""
    import tensorflow as tf

    files = CheckpointFiles(workdir.latest_checkpoints)
    model = [tf.Variable(tf.zeros([64, 10])), tf.Variable(tf.zeros([10], tf.bfloat16))]
    optimizer = [tf.Variable(step, dtype=tf.int64)]
    checkpoint = tf.train.Checkpoint(
        host=tf.Variable("{}", dtype=tf.string), model=model, optimizer=optimizer, metrics=[]
    )
    checkpoint.write(str(files.folder / f"ckpt-{step}"))
    variables = describe or [
        ["model", "dense/kernel", [64, 10], "float32"],
        ["model", "dense/bias", [10], "bfloat16"],
        ["optimizer", "iteration", [], "int64"],
    ]
    files.commit(step, {"epoch": 1.0, "variables": variables})


@pytest.fixture
def saved(tmp_path):
    made = make_run(tmp_path / "saved")
    for step in (1, 2):
        add_tensors(made, step)
    return made


def verify(workdir, capsys, *arguments):
    status = main(["checkpoints", f"--workdir={workdir}", "--verify", *arguments])
    return status, *capsys.readouterr()


def test_verifying_intact_checkpoints_says_so(saved, capsys):
    status, out, _ = verify(saved, capsys)
    assert status == 0
    assert out.splitlines()[-1] == "2 checkpoints, all intact"


def test_verifying_ends_with_1_when_one_is_damaged(saved, capsys):
    harm(CheckpointFiles(saved.latest_checkpoints), 1)
    status, out, _ = verify(saved, capsys)
    assert status == 1
    assert "damaged: ckpt-1.index has sha256:" in out
    assert out.splitlines()[-1] == "1 of 2 checkpoints damaged"


@pytest.mark.parametrize(
    ("position", "variable", "reason"),
    [
        (
            0,
            ["model", "dense/kernel", [64, 11], "float32"],
            "float32[64, 10], recorded was float32[64, 11]",
        ),
        (1, ["model", "dense/bias", [10], "float32"], "bfloat16[10], recorded was float32[10]"),
        (2, ["optimizer", "iteration", [], "int32"], "int64[], recorded was int32[]"),
        (3, ["optimizer", "momentum", [5], "float32"], "missing, recorded was float32[5]"),
    ],
)
def test_verifying_compares_shapes_and_dtypes_with_the_record(
    saved, capsys, position, variable, reason
):
    variables = [
        ["model", "dense/kernel", [64, 10], "float32"],
        ["model", "dense/bias", [10], "bfloat16"],
        ["optimizer", "iteration", [], "int64"],
    ]
    variables[position : position + 1] = [variable]
    add_tensors(saved, 3, describe=variables)
    status, out, _ = verify(saved, capsys)
    assert status == 1
    assert f"damaged: {variable[0]} {variable[1]} is {reason}\n" in out


@pytest.mark.parametrize("end", ["index", "data-00000-of-00001"])
def test_verifying_reads_what_was_committed_damaged(saved, capsys, end):
    """Bytes that were wrong before their checksum was taken: only reading them shows it."""
    files = CheckpointFiles(saved.latest_checkpoints)
    path = files.folder / f"ckpt-2.{end}"
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    files.commit(2, {"epoch": 1.0, "variables": []})
    assert files.damage(2) is None
    status, out, _ = verify(saved, capsys, "--json")
    assert status == 1
    first, second = json.loads(out)["checkpoints"]
    assert first["damage"] is None
    assert second["damage"].startswith("it cannot be read (")


def test_a_record_without_variables_is_damage(saved, capsys):
    CheckpointFiles(saved.latest_checkpoints).commit(2, {"epoch": 1.0})
    status, out, _ = verify(saved, capsys)
    assert status == 1
    assert "KeyError: 'variables'" in out


# Pinning


@pytest.fixture
def trainer(workdir):
    """A process that holds the lock of the work directory."""
    command = [sys.executable, "-c", HOLDER, str(workdir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_pinning_works_while_the_run_trains(checkpoints, files, trainer):
    assert checkpoints("--pin=100")[:2] == (
        0, "The checkpoint of step 100 is kept until it is unpinned.\n"
    )  # fmt: skip
    assert files.records()[0].pinned
    assert checkpoints("--unpin=100")[0] == 0
    assert not files.records()[0].pinned


@pytest.mark.parametrize("flag", ["--pin", "--unpin", "--delete", "--restore"])
def test_a_step_that_is_not_there_is_an_error_that_names_those_that_are(checkpoints, flag):
    status, out, err = checkpoints(f"{flag}=7")
    assert (status, out) == (1, "")
    assert "There is no checkpoint of step 7" in err
    assert "100, 200, 250" in err


def test_unpinning_what_is_not_pinned_is_an_error(checkpoints):
    status, _, err = checkpoints("--unpin=100")
    assert status == 1
    assert "step 100 is not pinned" in err


# Deleting


def test_a_deleted_checkpoint_is_gone(checkpoints, files):
    status, out, _ = checkpoints("--delete=200")
    assert (status, out) == (0, "The checkpoint of step 200 is removed.\n")
    assert files.steps() == [100, 250]
    assert not list(files.folder.glob("ckpt-200*"))


def test_a_damaged_checkpoint_can_be_deleted(checkpoints, files):
    harm(files, 250)
    assert checkpoints("--delete=250")[0] == 0
    assert files.steps() == [100, 200]


def test_the_only_intact_checkpoint_is_not_deleted(checkpoints, files):
    harm(files, 100)
    harm(files, 250)
    status, _, err = checkpoints("--delete=200")
    assert status == 1
    assert "step 200 is not removed: no other one is intact" in err
    assert files.steps() == [100, 200, 250]


def test_the_last_checkpoint_is_not_deleted_even_if_it_is_damaged(checkpoints, files):
    files.discard_all_but(lambda records: {100})
    for _ in range(2):
        assert checkpoints("--delete=100")[0] == 1
        harm(files, 100)
    assert files.steps() == [100]


def test_a_pinned_checkpoint_is_not_deleted(checkpoints, files):
    files.pin(100)
    status, _, err = checkpoints("--delete=100")
    assert status == 1
    assert "give --unpin=100 first" in err
    assert files.steps() == [100, 200, 250]


@pytest.mark.parametrize("flag", ["--delete=100", "--restore=100"])
def test_nothing_is_removed_or_moved_while_the_run_trains(checkpoints, files, trainer, flag):
    status, _, err = checkpoints(flag)
    assert status == 1
    assert f"Another process already trains in {files.folder.parents[1]} (pid {trainer.pid}" in err
    assert files.steps() == [100, 200, 250]


# Going back


def test_going_back_says_what_was_set_aside_and_what_to_do_next(checkpoints, workdir, files):
    status, out, _ = checkpoints("--restore=100")
    assert status == 0
    assert out.splitlines() == [
        f"The run in {workdir} stands at step 100.",
        f"set aside: 200, 250 in {files.set_aside}",
        "           --restore=250 brings 250 back",
        "next:      run the same train command to go on from step 100",
    ]
    assert files.steps() == [100]


def test_the_latest_can_be_brought_back_as_it_was(checkpoints, files):
    checkpoints("--restore=100")
    status, out, _ = checkpoints("--restore=250")
    assert status == 0
    assert "set aside" not in out
    assert "go on from step 250" in out
    assert files.steps() == [100, 250]
    assert files.damage(250) is None


def test_a_finished_run_that_goes_back_is_no_longer_finished(checkpoints, workdir):
    write_json(workdir.result_file, {})
    assert checkpoints("--restore=200")[0] == 0
    assert not workdir.result_file.exists()


def test_a_finished_run_that_cannot_go_back_stays_finished(checkpoints, workdir, files):
    write_json(workdir.result_file, {})
    harm(files, 100)
    for step in (100, 7):
        assert checkpoints(f"--restore={step}")[0] == 1
    assert workdir.result_file.exists()
    assert files.steps() == [100, 200, 250]


# What cannot be done


def test_the_workdir_must_be_given(capsys):
    assert main(["checkpoints"]) == 2
    assert "--workdir is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--pin=100", "--delete=200"], "--pin and --delete are given; expected one of them"),
        (["--verify", "--restore=0"], "--restore and --verify are given"),
        (["--pin=100", "--json"], "--json goes with the list or --verify"),
        (["--pin=last"], "--pin is 'last'; expected a whole number."),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_changes_nothing(checkpoints, files, flags, message):
    status, out, err = checkpoints(*flags)
    assert (status, out) == (2, "")
    assert message in err
    assert files.steps() == [100, 200, 250]
    assert not any(record.pinned for record in files.records())


@pytest.mark.parametrize("flags", [[], ["--verify"], ["--pin=1"], ["--delete=1"], ["--restore=1"]])
def test_a_folder_without_a_run_is_refused_and_left_alone(tmp_path, capsys, flags):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    for name in ("foreign", "missing"):
        assert main(["checkpoints", f"--workdir={tmp_path / name}", *flags]) == 1
        assert f"{tmp_path / name} holds no run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["foreign", "thesis.tex"]


def test_a_record_of_something_else_is_named(tmp_path, capsys):
    (tmp_path / "run.json").write_text('{"resolved": []}')
    assert main(["checkpoints", f"--workdir={tmp_path}"]) == 1
    assert "lacks 'resolved'; it is not a run's record" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--json"], ["--verify"], ["--pin=1"]])
def test_a_run_without_checkpoints_says_so(tmp_path, capsys, flags):
    workdir = make_run(tmp_path / "run")
    assert main(["checkpoints", f"--workdir={workdir}", *flags]) == 1
    assert "There is no checkpoint" in capsys.readouterr().err
    workdir.latest_checkpoints.rmdir()
    assert main(["checkpoints", f"--workdir={workdir}", *flags]) == 1
    assert "has saved no checkpoint yet" in capsys.readouterr().err


def test_a_run_whose_checkpoints_all_lie_elsewhere_says_where(checkpoints, files):
    files.go_back_to(200)
    for step in (100, 200):
        files.put_in_quarantine(step, "wet")
    status, out, err = checkpoints()
    assert (status, out) == (1, "")
    assert "besides these:\n  in quarantine: ckpt-100: wet\n  in quarantine: ckpt-200: wet" in err
    assert "set aside: 250" in err
    assert checkpoints("--restore=250")[0] == 0
    assert files.steps() == [250]


def test_a_folder_that_cannot_be_changed_is_named(checkpoints, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    status, _, err = checkpoints("--pin=100")
    assert status == 1
    assert "cannot be changed: [Errno 13] Permission denied" in err
    assert "Traceback" not in err
