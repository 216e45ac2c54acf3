from pathlib import Path

import pytest

from fleet.errors import ConfigurationError
from fleet.gateway import keyring, settings
from fleet.gateway.settings import Folder, Limits

BOARD = "np-240ac4000001"


def written(folder: Path, text: str) -> Folder:
    (folder / "gateway.toml").write_text(text, encoding="utf-8")
    return Folder(folder)


def test_the_template_is_good_and_its_comments_are_the_defaults(tmp_path: Path) -> None:
    text = settings.render("gw-mitte", listen="127.0.0.1", port=8883)
    plain = settings.load(written(tmp_path, text))
    spoken = text.replace("# program", "## program")
    spoken = "\n".join(
        line.removeprefix("# ") if " = " in line else line for line in spoken.split("\n")
    )
    assert settings.load(written(tmp_path, spoken)) == plain
    assert plain.limits == Limits()
    assert all(f"# {name} = {value} " in text for name, value in Limits().model_dump().items())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[limits]\nbatch_report = 1", "unknown key limits.batch_report"),
        ('[broker]\nlisten = "everywhere"', "broker.listen"),
        ("[broker]\nport = 0", "broker.port"),
        ("[broker]\nport = 1\nport = 2", "twice"),
        ("[limits]\nmessage_bytes = 10", "limits.message_bytes"),
        ("= 1", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        settings.load(written(tmp_path, f'version = 1\nid = "gw"\n{line}\n'))


def test_a_folder_that_is_no_gateways_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no gateway's folder") as caught:
        settings.load(Folder(tmp_path))
    assert "netzpuls gateway prepare" in caught.value.hint


def test_keys_come_back(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(keyring.render({BOARD: {1: bytes(32), 12: bytes([7]) * 32}}))
    found = keyring.load(path)
    assert BOARD in found
    assert found.latest_key_id(BOARD) == 12
    assert found.seal(BOARD, 12).tag(b"x") != found.seal(BOARD, 1).tag(b"x")
    assert found.seal(BOARD, 2) is None
    assert found.latest_key_id("np-240ac4000002") is None


@pytest.mark.parametrize(
    "entry",
    [
        '[board.gw.keys]\n1 = "00"',
        f'[board.{BOARD}.keys]\n1 = "c0ffee"',
        f'[board.{BOARD}.keys]\n0 = "{"c0" * 32}"',
        f'[board.{BOARD}.keys]\n70000 = "{"c0" * 32}"',
        f'[board.{BOARD}]\nkey = "{"c0" * 32}"',
    ],
)
def test_a_wrong_key_file_is_refused_without_showing_a_key(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(f"version = 1\n{entry}\n")
    with pytest.raises(ConfigurationError, match=r"boards\.toml") as caught:
        keyring.load(path)
    assert "c0" not in caught.value.message + caught.value.hint
