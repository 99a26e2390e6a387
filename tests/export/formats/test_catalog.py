from __future__ import annotations

import pytest

from kerastrain.errors import ExportError, OptionsError
from kerastrain.export.formats import catalog
from kerastrain.export.formats.catalog import FORMATS, check_installed, parse_formats


def test_the_saved_model_is_always_among_them():
    assert parse_formats([]) == ("savedmodel",)
    assert parse_formats(["onnx", " Keras "]) == ("savedmodel", "keras", "onnx")


def test_all_are_all():
    assert parse_formats(["all"]) == parse_formats(["onnx", "all"]) == tuple(FORMATS)


def test_an_unknown_format_is_refused_with_those_there_are_and_a_suggestion():
    with pytest.raises(OptionsError, match=r"no format 'litert_in8'.*Did you mean 'litert_int8'"):
        parse_formats(["litert_in8"])


def test_no_two_formats_share_a_file():
    files = [file for one in FORMATS.values() for file in (one.file, *one.also)]
    assert len(set(files)) == len(files)


def test_a_missing_package_is_named_with_how_to_install_it(monkeypatch):
    find = catalog.importlib.util.find_spec
    monkeypatch.setattr(
        catalog.importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    with pytest.raises(ExportError, match=r"openvino needs openvino.*kerastrain\[formats\]"):
        check_installed(["savedmodel", "openvino"])
    check_installed(["savedmodel", "keras"])
