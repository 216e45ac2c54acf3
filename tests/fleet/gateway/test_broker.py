"""What mosquitto says becomes events; its lines are from 2.0.11 and 2.0.21."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet.gateway import broker, intake, log

DENIED = b"""Denied PUBLISH from np-240ac4000002 (d0, q1, r0, m1, \
'netzpuls/v1/np-1/report', ... (104 bytes))\n"""


DENIED_SAID = """\
warning refused reason=topic-denied device=np-240ac4000002 topic=netzpuls/v1/np-1/report"""
TLS = b"error:0A000086:SSL routines::certificate verify failed"
OLD = "error:0A000102:SSL routines::unsupported protocol"


@pytest.fixture
def listener() -> broker.Listener:
    log.configure()
    return broker.Listener()


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            DENIED,
            DENIED_SAID,
        ),
        (
            b"OpenSSL Error[0]: error:0A0000C7:SSL routines::peer did not return a certificate\n",
            "warning refused reason=certificate-missing",
        ),
        (
            b"Client connection from 127.0.0.1 failed: " + TLS + b".\n",
            "warning refused reason=certificate-invalid",
        ),
        (
            b"OpenSSL Error[0]: " + OLD.encode() + b"\n",
            f'warning refused reason=tls-failed detail="{OLD}"',
        ),
        (
            b"Client np-240ac4000002 disconnected due to oversize packet.\n",
            "warning refused reason=message-too-large device=np-240ac4000002",
        ),
        (
            b"Too high QoS in PUBLISH from np-240ac4000002, disconnecting.\n",
            "warning refused reason=qos-too-high device=np-240ac4000002",
        ),
        (
            b"Client connection from 10.1.0.9 denied: max_connections exceeded.\n",
            "warning refused reason=too-many-connections address=10.1.0.9",
        ),
        (
            b"Outgoing messages are being dropped for client collector-gw-mitte.\n",
            "warning refused reason=queue-full device=collector-gw-mitte",
        ),
        (b"mosquitto version 2.0.11 running\n", "info broker-running version=2.0.11"),
        (b"Error: Address already in use\n", 'error broker said="Address already in use"'),
        (b"Error: \x1b[31m\xff\n", "error broker said=\\x1b[31m\ufffd"),
        (b"Warning: Mosquitto should not be run as root/administrator.\n", ""),
        (b"Received PUBLISH from np-240ac4000002 (Error: d0, q1, r0, m1, 'x')\n", ""),
        (b"Sending PUBACK to np-240ac4000002 (m1, rc0)\n", ""),
        (b"New client connected from 127.0.0.1:4711 as np-240ac4000002 (p2, c1)\n", ""),
        (b"OpenSSL Error[0]: error:0A000126:SSL routines::unexpected eof while reading\n", ""),
        (b"OpenSSL Error[0]: error:80000020:system library::Broken pipe\n", ""),
    ],
)
def test_lines_become_events(
    listener: broker.Listener, capsys: pytest.CaptureFixture[str], line: bytes, event: str
) -> None:
    listener.hear(line)
    said = capsys.readouterr().err.rstrip("\n")
    assert said[25:] == event


def test_a_flood_is_one_line_for_each_board(
    listener: broker.Listener, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(50):
        listener.hear(DENIED)
        listener.hear(DENIED.replace(b"from np-240ac4000002", b"from np-240ac4000003"))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_throttle_counts_what_it_holds_back_and_stays_small() -> None:
    throttle = log.Throttle(interval_s=0)
    assert throttle.admit("a") == 0
    throttle = log.Throttle(interval_s=1000)
    admitted = [throttle.admit(n) for n in range(5000)]
    assert admitted.count(0) == 1000
    assert len(throttle._last) == 1000
    throttle._last["a"] = (-1e9, 7)
    assert throttle.admit("a") == 7


def _reasons(row: str) -> list[str]:
    return re.findall(r"`([^`]+)`", row.partition("|")[0])


def test_the_manual_knows_every_reason() -> None:
    manual = Path(__file__).parents[3] / "docs" / "gateway.md"
    table = manual.read_text(encoding="utf-8").partition("| reason |")[2].partition("\n\n")[0]
    explained = [reason for row in table.split("\n|") for reason in _reasons(row)]
    given = {value for name, value in vars(intake).items() if name.isupper() and type(value) is str}
    assert sorted(explained) == sorted(given | broker._REFUSALS.keys())
