"""Keys are nowhere to be seen: in output, logs, arguments, environments, errors or public files."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

import fleet.cli
from tests.fleet.gateway.conftest import KEPT, STOLEN, Enrolled
from tests.fleet.gateway.scene import GATEWAY, served

WLAN_KEY = "Geheim-Schulnetz-4711"
HASH_KEY = "00112233445566778899aabbccddeeff"

_WRAPPER = """\
#!/bin/sh
{{ echo "$@"; env; }} >> {log}
exec {netzpuls} -m fleet.cli "$@"
"""


def _never(enrolled: Enrolled) -> list[str]:
    """Return the strings that must never appear."""
    strings = [WLAN_KEY, HASH_KEY]
    for key in enrolled.keys.values():
        strings += [key.hex(), key.hex().upper(), repr(key)[2:-1]]
    folder, city = enrolled.scene.folder, enrolled.city
    for path in (city / "secrets/ca.key", folder / "tls/gateway.key", folder / "tls/collector.key"):
        strings += path.read_text().splitlines()[1:-1]
    for identity in enrolled.identities.values():
        strings += identity.key_pem.decode().splitlines()[1:-1]
        strings.append(identity.key_der.hex())
    return strings


def test_secrets_are_nowhere_to_be_seen(
    enrolled: Enrolled,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    city, scene = enrolled.city, enrolled.scene
    (city / "secrets/wlan.toml").write_text(f'[key]\nschool = "{WLAN_KEY}"\n')
    (city / "secrets/hash.key").write_text(HASH_KEY + "\n")
    seen = scene.root / "seen-on-the-gateway"
    wrapper = scene.root / "netzpuls"
    wrapper.write_text(_WRAPPER.format(log=seen, netzpuls=sys.executable))
    wrapper.chmod(0o755)
    path = city / "inventory.toml"
    path.write_text(
        path.read_text().replace('data_dir = "', f'command = "{wrapper}"\ndata_dir = "')
    )
    started: list[Any] = []
    real = subprocess.Popen.__init__

    def spy(self: Any, *args: Any, **kwargs: Any) -> None:
        started.append((args, kwargs.get("args"), kwargs.get("env")))
        real(self, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", spy)
    monkeypatch.setenv("NETZPULS_TRACEBACK", "1")
    codes, said = [], ""

    def run(*arguments: str) -> None:
        nonlocal said
        for option in ([], ["--json"]):
            with pytest.raises(SystemExit) as exited:
                fleet.cli.main([*arguments, "--city", str(city), *option])
            codes.append(exited.value.code)
            captured = capfd.readouterr()
            said += captured.out + captured.err

    key = city / f"secrets/keys/{KEPT}.1.key"
    with caplog.at_level(logging.DEBUG), served(scene) as gateway:
        board = enrolled.board(KEPT)
        board.make()
        board.drain()
        for arguments in (
            ("board", "list"),
            ("board", "move", KEPT, "--site", "goethe-schule", "--room", "102"),
            ("board", "revoke", STOLEN, "--reason", "lost"),
            ("board", "ca", "--renew"),
            ("gateway", "prepare", GATEWAY, "--dir", str(scene.folder)),
            ("fleet", "collect", "--gateway", GATEWAY),
            ("fleet", "check"),
        ):
            run(*arguments)
        # A second move has nothing to do; the reports are too old for the check.
        assert codes == [0, 0, 0, 2, *[0] * 8, 2, 2]
        # What is damaged is quoted by no error, here or on the gateway.
        content = key.read_text()
        key.write_text(content.strip() + "z\n")
        run("fleet", "collect", "--gateway", GATEWAY)
        run("gateway", "prepare", GATEWAY, "--dir", str(scene.folder))
        key.write_text(content)
        boards = scene.folder / "boards.toml"
        boards.write_text(boards.read_text().replace('"', "'", 1))
        gateway.said("boards-unreadable")
        (scene.folder / "tls/ca.pem").write_text("damaged")
        run("fleet", "collect", "--gateway", GATEWAY)
        assert codes[-6:] == [1, 1, 2, 2, 1, 1]
    public = [p for p in city.rglob("*") if p.is_file() and "secrets" not in p.parts]
    texts = [said, caplog.text, repr(started), seen.read_text(), "\n".join(gateway.lines)]
    texts += [p.read_bytes().decode("latin-1") for p in public]
    everything = "\n".join(texts)
    assert started
    assert "gateway roster --dir" in seen.read_text()
    assert KEPT in everything
    assert "revoked.pem" in {p.name for p in public}
    assert [secret for secret in _never(enrolled) if secret in everything] == []
