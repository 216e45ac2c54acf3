"""The bench without a board: what it needs, whom its gateway knows, what hostile boards say."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import threading
import time
import tty
from pathlib import Path
from typing import Any

import pytest
import serial
from click.testing import CliRunner

from firmware.linkreport import bench as wire
from firmware.linkreport import report
from firmware.linkreport.seal import Seal
from fleet import authority, inventory
from fleet.cli import gateway as gateway_cli
from fleet.errors import UsageError
from fleet.gateway import intake, keyring, prepare
from fleet.gateway.settings import Folder
from provisioning import bench, journal, port, trial
from provisioning.bench import Bench
from provisioning.configuration import Recipient
from provisioning.errors import BenchDownError, SelfTestError, WlanKeyError
from provisioning.journal import Pending
from provisioning.trial import Trial
from tests.provisioning.bench import BOARD, WLAN_KEY
from tests.provisioning.conftest import INVENTORY

BENCH_KEY = "Geheim-Werkbank-0815"
BENCH = """
[wlan.bench]
ssid = "Werkbank"
[bench]
wlan = "bench"
broker_host = "10.201.0.2"
"""


@pytest.fixture
def city(city: Path) -> Path:
    (city / "inventory.toml").write_text(INVENTORY + BENCH)
    with (city / "secrets" / "wlan.toml").open("a") as keys:
        keys.write(f'bench = "{BENCH_KEY}"\n')
    return city


def _runs(city: Path, *, ready: bool = True) -> Folder:
    """Let a gateway seem to run; the processes are tested in test_trial."""
    folder = Folder(city / "bench")
    folder.path.mkdir(exist_ok=True)
    folder.state.write_text(json.dumps({"ready": ready, "pids": {"supervisor": os.getpid()}}))
    return folder


def _recipient() -> Recipient:
    return Recipient(
        BOARD, 1, "school-north", "ap-monitor", {"school": WLAN_KEY}, hash_key=bytes(16)
    )


def test_no_bench(city: Path) -> None:
    (city / "inventory.toml").write_text(INVENTORY)
    known = inventory.load(city)
    assert bench.of(known) is None
    with pytest.raises(UsageError, match=r"no \[bench\]") as caught:
        prepare.plan_bench(known, authority.ensure(city, "exampleville"), listen="127.0.0.1")
    assert caught.value.exit_code == 2
    told = CliRunner().invoke(gateway_cli.gateway, ["bench", "--city", str(city)])
    assert isinstance(told.exception, UsageError)


def test_what_a_bench_needs(city: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = inventory.load(city)
    with pytest.raises(BenchDownError, match="does not run"):
        bench.of(known)
    monkeypatch.setattr(bench, "_READY_S", 0.2)
    _runs(city, ready=False)
    with pytest.raises(BenchDownError, match="takes no reports"):
        bench.of(known)
    folder = _runs(city)
    found = bench.of(known)
    assert found
    assert (found.key, found.ntp, found.gateway) == (BENCH_KEY, "pool.ntp.org", "10.201.0.2:8883")
    assert BENCH_KEY not in repr(found)
    for state in ("{}", "[]", '{"ready": true, "pids": {"supervisor": 4000000}}', "\xff"):
        folder.state.write_text(state)
        with pytest.raises(BenchDownError, match="does not run"):
            bench.of(known)
    (city / "secrets" / "wlan.toml").write_text(f'[key]\nschool = "{WLAN_KEY}"\n')
    with pytest.raises(WlanKeyError, match="'bench'"):
        bench.of(known)


def test_a_board_is_told_the_bench_s_network_and_no_more_than_it_needs(city: Path) -> None:
    _runs(city)
    known = inventory.load(city)
    content = json.loads(bench.content(known, _recipient(), bench.of(known)))
    assert content["wlan"]["ssid"] == "Werkbank"
    assert content["uplink"] == {"host": "10.201.0.2", "port": 8883, "server_name": "bench"}
    assert WLAN_KEY not in json.dumps(content)
    alone = json.loads(bench.content(known, _recipient(), None))
    assert alone["wlan"]["ssid"] == "Schulnetz"


def test_the_gateway_knows_who_is_under_way_by_keys_of_its_own(city: Path) -> None:
    folder = _runs(city)
    found = bench.of(inventory.load(city))
    assert found
    identity = authority.ensure(city, "exampleville").issue_board(BOARD)
    report_key = bytes(range(32))
    pending = Pending(BOARD, 3, report_key, identity.certificate_der, identity.key_der)
    journal.save(city, pending)
    found.admit()
    assert folder.boards.stat().st_mode & 0o777 == 0o600
    assert report_key.hex() not in folder.boards.read_text()
    ring = keyring.load(folder.boards)
    assert len(ring) == 1
    raw = _report(3, Seal(wire.key(report_key)))
    assert isinstance(intake.verify(BOARD, raw, ring), report.Report)
    at_school = keyring.Keyring({BOARD: {3: report_key}})
    assert isinstance(intake.verify(BOARD, raw, at_school), intake.Refusal)
    own = _report(3, Seal(report_key))
    assert isinstance(intake.verify(BOARD, own, ring), intake.Refusal)
    journal.discard(city, BOARD)
    found.admit()
    assert len(keyring.load(folder.boards)) == 0
    shutil.rmtree(folder.path)
    with pytest.raises(BenchDownError, match="cannot tell"):
        found.admit()


def _report(key_id: int, seal: Seal) -> bytes:
    values: dict[str, Any] = dict.fromkeys(report.Report._fields, 0)
    values |= {"key_id": key_id, "seq": 7, "oldest_seq": 7, "layer_reasons": bytes(9)}
    made = report.Report(**values | {"bssid": bytes(6), "extensions": b""})
    return bytes(report.pack(made, seal, report.NO_TAG))


def test_a_folder_of_the_bench_keeps_its_boards(city: Path) -> None:
    known, ca = inventory.load(city), authority.ensure(city, "exampleville")
    plan = prepare.plan_bench(known, ca, listen="127.0.0.1", port=18883)
    prepare.apply(plan)
    folder = plan.folder
    assert folder.path == city / "bench"
    assert (folder.path / ".gitignore").read_text() == "*\n"
    certificate = authority.read_certificate(folder.certificate("gateway"))
    assert "bench" in certificate.subject.rfc4514_string()
    text = keyring.render({BOARD: {1: bytes(32)}})
    folder.boards.write_text(text)
    assert prepare.plan_bench(known, ca, listen="127.0.0.1").changes == []
    assert folder.boards.read_text() == text


class Console:
    """A board's REPL on a pty that says what the test wants, whatever it is told."""

    def __init__(self, *lines: bytes, ends: bool = True) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        self._slave = slave
        self.line: serial.Serial = port.open_port(os.ttyname(slave))
        self.told = b""
        self._lines, self._ends = lines, ends
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            self._await(b"\x03")
            os.write(self._master, b"netzpuls: stopped\r\n>>> ")
            self._await(b"\x01")
            os.write(self._master, b"\r\nraw REPL; CTRL-B to exit\r\n>")
            self._await(b"\x05A\x01")
            os.write(self._master, b"R\x01\x80\x00")
            while not self.told.endswith(b"\x04"):
                self._take()
                os.write(self._master, b"\x01")
            os.write(self._master, b"\x04")
            for each in self._lines:
                os.write(self._master, each + b"\r\n")
            if self._ends:
                os.write(self._master, b"\x04Traceback \x1b[2J" + BENCH_KEY.encode() + b"\r\n\x04>")
            while True:
                self._take()

    def _await(self, text: bytes) -> None:
        while text not in self.told:
            self._take()
        self.told = self.told.split(text, 1)[1]

    def _take(self) -> None:
        self.told += os.read(self._master, 64)

    def close(self) -> None:
        self.line.close()
        os.close(self._slave)
        os.close(self._master)
        self._thread.join(5)


def _line(**told: Any) -> bytes:
    return trial.MARK + json.dumps(told).encode()


LATE = {"ok": False, "late": True}
PASSED = (
    _line(step="join", ok=True, rssi_dbm=-50, ms=3),
    _line(step="time", ok=True, time_s=int(time.time())),
)
CONNECTED = (*PASSED, _line(step="gateway", ok=True))


@pytest.fixture
def desk(city: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(trial, "_MOST_S", dict.fromkeys(trial._MOST_S, 0.2))
    monkeypatch.setattr(trial, "_SLACK_S", 0.3)
    monkeypatch.setattr(trial, "_CLOCK_OFF_S", 86_400)  # the lines are older than the test
    monkeypatch.setattr("provisioning.repl._ANSWER_S", 0.4)
    _runs(city)
    found = bench.of(inventory.load(city))
    assert found
    return found


def _try(desk: Bench, *lines: bytes, ends: bool = True) -> SelfTestError:
    console = Console(*lines, ends=ends)
    content = bench.content(inventory.load(desk.city), _recipient(), desk)
    try:
        with pytest.raises(SelfTestError) as caught:
            Trial(
                console.line, BOARD, content, desk, (BENCH_KEY, WLAN_KEY),
                lambda _: contextlib.nullcontext(), lambda: None,
            ).run()  # fmt: skip
    finally:
        console.close()
    document = json.dumps(caught.value.document())
    assert BENCH_KEY not in document
    assert "\\u001b" not in document
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "(join): its test broke: Traceback"),
        ([trial.MARK + b"{", trial.MARK + b"[1]", b"\xff\xfe" * 400], "(join): its test broke"),
        ([_line(step="join", ok=1)], "(join): it did not join the WLAN 'Werkbank' in time"),
        ([_line(step="join", ok=False, layer=[], reason={})], "it did not join"),
        ([_line(step="join", ok=False, layer=2, reason=25)], "access-point-full"),
        ([_line(step="join", ok=False, layer=3, reason=10**30)], "it got no lease"),
        ([_line(step="join", ok=False, layer=3, reason=True)], "it got no lease"),
        ([b"NETZPULS SELFTEST {}"], "(join): it started anew in the middle of it"),
        ([PASSED[0], _line(step="time", ok=True, time_s=1000)], "(time): it was told a time"),
        ([*PASSED, _line(step="gateway", ok=False, trouble=-1, said=7)], "(gateway): it failed at"),
        ([*PASSED, _line(step="gateway", ok=False, trouble=3)], "does not trust the certificate"),
        ([*PASSED, _line(step="gateway", ok=False, trouble=4)], "refuses its certificate"),
        ([*PASSED, _line(step="gateway", **LATE)], "nobody answers at 10.201.0.2:8883"),
        (
            [*CONNECTED, _line(step="report", taken=False, **LATE)],
            "not even the broker took it",
        ),
        ([PASSED[0], _line(step="time", ok=True)], "it does not say what time it was told"),
        ([*CONNECTED, _line(step="report", ok=True)], "but the bench's gateway has none"),
        ([_line(step="join", ok=False, said=f"{BENCH_KEY}\x1b[1m" + "x" * 9999)], "(secret)"),
    ],
)
def test_whatever_a_board_says_is_an_answer(desk: Bench, lines: list[bytes], said: str) -> None:
    assert said in _try(desk, *lines).message


def test_a_board_that_falls_silent(desk: Bench) -> None:
    assert "for 0 s; its console was silent" in _try(desk, ends=False).message


def test_a_board_without_a_repl(desk: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_STOP_S", 0.3)
    master, slave = pty.openpty()
    line = port.open_port(os.ttyname(slave))
    content = bench.content(inventory.load(desk.city), _recipient(), desk)
    try:
        with pytest.raises(SelfTestError, match="over its console") as caught:
            Trial(
                line, BOARD, content, desk, (), lambda _: contextlib.nullcontext(), lambda: None
            ).run()
    finally:
        line.close()
        os.close(master)
        os.close(slave)
    assert caught.value.details == {"step": "join"}
