from __future__ import annotations

import json

import pytest

from kerastrain.errors import ExportError
from kerastrain.export.manifest import NAME, read_manifest, write_manifest


def test_a_manifest_that_names_files_outside_of_its_version_is_refused(tmp_path):
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "secret").write_text("secret")
    content = write_manifest(folder, {})
    assert read_manifest(folder) == content
    content["files"]["../secret"] = content["files"]["saved_model.pb"]
    (folder / NAME).write_text(json.dumps(content))
    with pytest.raises(ExportError, match=r"names \.\./secret, which is not in the version"):
        read_manifest(folder)
