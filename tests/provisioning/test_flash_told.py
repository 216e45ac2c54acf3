"""What a technician is told while a board is flashed, and what nobody is."""

from __future__ import annotations

import json
import logging
import subprocess
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

import fleet.cli
from provisioning import image
from provisioning.flash import FlashRequest
from tests.provisioning import bench
from tests.provisioning.bench import BOARD, WLAN_KEY, Board


def _secrets(board: Board) -> list[str]:
    files = bench.files(board)
    key = serialization.load_der_private_key(files["identity/board.key.der"], None)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return [
        WLAN_KEY,
        json.loads(files["config.json"])["hash_key"],
        files["identity/report.key"].hex(),
        repr(files["identity/report.key"])[2:-1],
        files["identity/board.key.der"].hex(),
        *pem.splitlines()[1:-1],
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_secrets_are_nowhere_to_be_seen(
    request_: FlashRequest,
    board: Board,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    fails: bool,
) -> None:
    started: list[Any] = []
    real = subprocess.Popen.__init__

    def spy(self: Any, *args: Any, **kwargs: Any) -> None:
        started.append((args, kwargs.get("args"), kwargs.get("env")))
        real(self, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", spy)
    monkeypatch.setenv("NETZPULS_TRACEBACK", "1")
    image._agent_files.cache_clear()
    if fails:
        board.console = bench.self_test(ok=False, config="wlan.key is wrong")
    city, arguments, said = request_.city, bench.arguments(request_), ""
    with caplog.at_level(logging.DEBUG):
        for extra in ([], ["--json"]):
            with pytest.raises(SystemExit) as exited:
                fleet.cli.main(arguments + extra)
            assert exited.value.code == int(fails)
            captured = capfd.readouterr()
            said += captured.out + captured.err
    public = [p for p in city.rglob("*") if p.is_file() and "secrets" not in p.parts]
    said += caplog.text + repr(started) + "".join(p.read_text() for p in public)
    assert started
    assert BOARD in said
    assert [secret for secret in _secrets(board) if secret in said] == []


def test_what_a_technician_is_told(
    request_: FlashRequest, board: Board, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = bench.arguments(request_)
    with pytest.raises(SystemExit):
        fleet.cli.main([*arguments, "--json"])
    document = json.loads(capfd.readouterr().out)
    assert document["ok"] is True
    assert document["board"] == BOARD
    assert document["key_id"] == 1
    assert document["image"]["stand_in"] is True
    assert document["self_test"]["config"] == "ok"

    for told in ("already there", "kB/s"):
        if told == "kB/s":
            bench.put(board, "agent/agent.mpy", b"damaged")
        with pytest.raises(SystemExit):
            fleet.cli.main(arguments)
        said = capfd.readouterr()
        assert f"{BOARD} is enrolled: school-north, R101" in said.out
        assert "stand-in, for virtual boards only" in said.err
        assert document["image"]["sha256"] in said.err
        assert "write MicroPython: " in said.err
        assert told in said.err
