"""What each adapter carries: remembered, and never a reason to fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from serial.tools import list_ports

from provisioning import adapter


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "netzpuls" / "adapters.json"


def test_what_is_remembered(state: Path) -> None:
    assert adapter.speed("a") is None
    adapter.remember("a", 921600)
    adapter.remember("b", 2000000)
    adapter.remember("a", 460800)
    assert (adapter.speed("a"), adapter.speed("b"), adapter.speed(None)) == (460800, 2000000, None)
    adapter.remember(None, 115200)
    assert "115200" not in state.read_text()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"a": "fast"}', b'{"a": true}'])
def test_a_damaged_file_is_as_none(state: Path, content: bytes) -> None:
    state.parent.mkdir(parents=True)
    state.write_bytes(content)
    assert adapter.speed("a") is None
    adapter.remember("a", 921600)
    assert adapter.speed("a") == 921600


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    adapter.remember("a", 921600)
    assert adapter.speed("a") is None


def test_an_adapter_is_known_by_its_serial_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [
        SimpleNamespace(device="/dev/ttyUSB0", vid=0x10C4, pid=0xEA60, serial_number="0001",
                        location="1-1"),
        SimpleNamespace(device="/dev/ttyUSB1", vid=0x1A86, pid=0x7523, serial_number=None,
                        location="1-2"),
        SimpleNamespace(device="/dev/ttyS0", vid=None, pid=None, serial_number=None, location=None),
    ]  # fmt: skip
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    assert adapter.name("/dev/ttyUSB0") == "10c4:ea60 0001"
    assert adapter.name("/dev/ttyUSB1") == "1a86:7523 1-2"
    assert adapter.name("/dev/ttyS0") is None
    assert adapter.name("/dev/pts/7") is None
    assert adapter.name("rfc2217://127.0.0.1:4000") is None
