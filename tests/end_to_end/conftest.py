"""Undisturbed runs, trained once for all tests that compare with them."""

import killing
import pytest


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """{flags: what remains of a run that nobody killed}, each trained once."""
    remains = {}

    def train(*flags):
        if flags not in remains:
            workdir = tmp_path_factory.mktemp("undisturbed") / "run"
            killing.finish(workdir, *flags)
            remains[flags] = killing.what_remains(workdir)
        return remains[flags]

    return train
