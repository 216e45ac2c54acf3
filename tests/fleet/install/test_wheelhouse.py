from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fleet.errors import ConfigurationError
from fleet.install.wheelhouse import TARGETS, Target, Wheelhouse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wheel").mkdir()
    wheels = {}
    for name in ("click-8.5.1-py3-none-any.whl", "netzpuls-0.1.0-py3-none-any.whl"):
        (tmp_path / "wheel" / name).write_text(name)
        wheels[name] = hashlib.sha256(name.encode()).hexdigest()
    manifest = {
        "version": "0.1.0",
        "lock": "0" * 64,
        "wheels": wheels,
        "targets": {"3.11-amd64": sorted(wheels)},
    }
    (tmp_path / "wheelhouse.json").write_text(json.dumps(manifest))
    return tmp_path


def test_a_release_is_named_by_what_is_in_it(folder: Path) -> None:
    release = Wheelhouse(folder).release(Target("3.11", "amd64"))
    assert release.id.startswith("0.1.0-")
    assert release.requirements.splitlines()[0].startswith("click==8.5.1 --hash=sha256:")
    path = folder / "wheelhouse.json"
    other = json.loads(path.read_text())
    (folder / "wheel/click-8.5.1-py3-none-any.whl").write_text("another")
    other["wheels"]["click-8.5.1-py3-none-any.whl"] = hashlib.sha256(b"another").hexdigest()
    path.write_text(json.dumps(other))
    assert Wheelhouse(folder).release(Target("3.11", "amd64")).id != release.id


def test_a_package_that_was_changed_or_lost_is_noticed(folder: Path) -> None:
    wheel = folder / "wheel/click-8.5.1-py3-none-any.whl"
    for damage in (lambda: wheel.write_text("other"), wheel.unlink):
        damage()
        with pytest.raises(ConfigurationError, match=r"click-8\.5\.1.* is missing or was changed"):
            Wheelhouse(folder).release(Target("3.11", "amd64"))


def test_a_host_for_which_it_has_nothing(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing for Python 3\.13 on amd64") as error:
        Wheelhouse(folder).release(Target("3.13", "amd64"))
    assert "--target 3.13-amd64" in error.value.hint


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"version": 1}', "\x00"])
def test_a_damaged_manifest(folder: Path, text: str) -> None:
    (folder / "wheelhouse.json").write_text(text)
    with pytest.raises(ConfigurationError, match="is damaged"):
        Wheelhouse(folder)


def test_a_path_is_no_name_of_a_package(folder: Path) -> None:
    path = folder / "wheelhouse.json"
    manifest = json.loads(path.read_text())
    manifest["wheels"]["../../x.whl"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(ConfigurationError, match="is damaged"):
        Wheelhouse(folder)


def test_there_are_targets_for_both_debians() -> None:
    assert {each.python for each in TARGETS} == {"3.11", "3.13"}
    assert {each.architecture for each in TARGETS} == {"amd64", "arm64"}
