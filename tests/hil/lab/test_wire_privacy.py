"""What a board sends in clear, read along on its own cables during join, cycles and faults."""

from __future__ import annotations

import contextlib
import ipaddress
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dhcp import DHCP
from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.ntp import NTP
from scapy.packet import Packet, Raw
from scapy.utils import rdpcap

from hil.board.control import ControlClient
from hil.lab import internet
from tests.hil.lab.running import RunningLab

pytestmark = pytest.mark.usefixtures("namespaces")

_HTTP, _TLS = {80}, {443, 8883}
_TLS_RECORDS = range(20, 25)  # RFC 8446 5.1: change cipher spec to heartbeat
_HTTP_HOSTS = {
    internet.name_of(at).encode() for at in (internet.PROBE, internet.SOURCE, internet.PORTAL)
}
_FAULTS = ("dns-hijack", "portal-appears", "dhcp-rogue", "broker-down")


@contextlib.contextmanager
def captured(lab: RunningLab, board: dict[str, Any], path: Path) -> Iterator[list[Packet]]:
    """Collect what the board itself sends."""
    lab.client.call("capture", board=board["board"], file=str(path))
    sent: list[Packet] = []
    try:
        yield sent
    finally:
        lab.client.call("capture-end", board=board["board"])
    sent += [frame for frame in rdpcap(str(path)) if frame[Ether].src in _macs(board)]


def _macs(board: dict[str, Any]) -> set[str]:
    first = bytes.fromhex(board["board"].removeprefix("np-"))
    wired = (int.from_bytes(first, "big") + 3).to_bytes(6, "big")
    return {first.hex(":"), wired.hex(":")}


def _kind(frame: Packet) -> str:
    """Name what a frame is; the name of what it should not be holds all of it."""
    if ARP in frame:
        return "ARP"
    if IPv6 in frame:
        return "ICMPv6" if frame[IPv6].nh in (0, 58) and TCP not in frame else repr(frame)
    if IP not in frame:
        return repr(frame)
    if ICMP in frame:
        return "ICMP"
    if DHCP in frame:
        return "DHCP" if frame[UDP].dport in (67, 68) else repr(frame)
    if DNS in frame and UDP in frame:
        return "DNS" if frame[UDP].dport == 53 else repr(frame)
    if NTP in frame and UDP in frame:
        return "NTP" if frame[UDP].dport == 123 else repr(frame)
    if TCP in frame:
        return _stream(frame)
    return "IGMP" if frame[IP].proto == 2 else repr(frame)


def _stream(frame: Packet) -> str:
    port, load = frame[TCP].dport, bytes(frame[Raw].load) if Raw in frame else b""
    if port in _TLS:
        return "TLS"  # looked at as a stream, below
    if port in _HTTP and (not load or _is_probe(load)):
        return "HTTP"
    return repr(frame)


def _is_probe(load: bytes) -> bool:
    host = next((line[6:] for line in load.split(b"\r\n") if line.startswith(b"Host: ")), b"")
    return load.startswith(b"GET /") and host in _HTTP_HOSTS


def _tls_streams(frames: list[Packet]) -> dict[tuple[str, int, int], bytes]:
    """Return the bytes of each TLS connection, in order, without repetitions."""
    pieces: dict[tuple[str, int, int], dict[int, bytes]] = {}
    for frame in frames:
        if TCP in frame and IP in frame and frame[TCP].dport in _TLS and Raw in frame:
            tcp = frame[TCP]
            stream = pieces.setdefault((frame[IP].dst, tcp.dport, tcp.sport), {})
            stream.setdefault(tcp.seq, bytes(tcp[Raw].load))
    return {key: b"".join(parts[at] for at in sorted(parts)) for key, parts in pieces.items()}


def _is_tls(stream: bytes) -> bool:
    """Tell whether a stream is TLS records from its first byte to its last whole one."""
    at = 0
    while at + 5 <= len(stream):
        if stream[at] not in _TLS_RECORDS or stream[at + 1] != 3:
            return False
        at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
    return at > 0


@pytest.fixture(scope="module")
def sniffed(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Both boards' frames from power-on, over cycles and faults; and the collector's reports."""
    folder = tmp_path_factory.mktemp("privacy")
    with RunningLab(folder / "lab") as lab, contextlib.ExitStack() as captures:
        boards = lab.boards
        frames: dict[str, list[Packet]] = {}
        for board in boards:
            ControlClient(Path(board["link"] + ".control")).power(on=False)
            path = folder / f"{board['room']}.pcap"
            frames[board["role"]] = captures.enter_context(captured(lab, board, path))
            ControlClient(Path(board["link"] + ".control")).power(on=True)
        time.sleep(lab.period_s)
        lab.wait(lambda board: board["state"] == "up" and board["age_s"] < lab.period_s, 4)
        for name in _FAULTS:
            lab.fault(name)
            time.sleep(1.5 * lab.period_s)
            lab.heal()
        lab.wait(lambda board: board["state"] == "up", 4)
        captures.close()
        where = f"file:{folder}/lab/gw-goethe-schule/reports.db?mode=ro"
        with contextlib.closing(sqlite3.connect(where, uri=True)) as connection:
            reports = [raw for (raw,) in connection.execute("SELECT raw FROM report")]
        yield {"boards": boards, "frames": frames, "reports": reports}


@pytest.mark.parametrize("role", ["classroom-sensor", "ap-monitor"])
def test_in_clear_there_are_only_the_protocols_that_a_client_needs(
    sniffed: dict[str, Any], role: str
) -> None:
    kinds = Counter(map(_kind, sniffed["frames"][role]))
    assert set(kinds) <= {"ARP", "DHCP", "DNS", "NTP", "ICMP", "ICMPv6", "IGMP", "HTTP", "TLS"}
    for needed in ("ARP", "DHCP", "DNS", "NTP", "ICMP", "HTTP", "TLS"):
        assert kinds[needed], kinds


@pytest.mark.parametrize("role", ["classroom-sensor", "ap-monitor"])
def test_the_rest_is_tls_from_the_first_byte_on(sniffed: dict[str, Any], role: str) -> None:
    streams = _tls_streams(sniffed["frames"][role])
    assert {port for _, port, _ in streams} == _TLS
    assert [key for key, stream in streams.items() if not _is_tls(stream)] == []


def test_no_payload_and_no_report_holds_an_address_of_another_client(
    sniffed: dict[str, Any],
) -> None:
    addresses = {
        board["role"]: {frame[IP].src for frame in sniffed["frames"][board["role"]] if IP in frame}
        - {"0.0.0.0"}  # noqa: S104 - who has no address yet
        for board in sniffed["boards"]
    }
    assert all(addresses.values())
    for board in sniffed["boards"]:
        others = [other for other in sniffed["boards"] if other is not board]
        forbidden = [
            spelling
            for other in others
            for mac in _macs(other)
            for spelling in _spellings(bytes.fromhex(mac.replace(":", "")))
        ]
        forbidden += [
            spelling
            for other in others
            for address in addresses[other["role"]] - addresses[board["role"]]
            if not address.startswith("169.254.")
            for spelling in (address.encode(), ipaddress.IPv4Address(address).packed)
        ]
        for frame in sniffed["frames"][board["role"]]:
            payload = _payload(frame)
            assert not [each for each in forbidden if each in payload], repr(frame)
    clients = [mac for board in sniffed["boards"] for mac in _macs(board)]
    assert sniffed["reports"]
    for raw in sniffed["reports"]:
        for mac in clients:
            assert bytes.fromhex(mac.replace(":", "")) not in raw
        for client in {each for found in addresses.values() for each in found}:
            assert ipaddress.IPv4Address(client).packed not in raw
            assert client.encode() not in raw


def _spellings(mac: bytes) -> tuple[bytes, ...]:
    return mac, mac.hex().encode(), mac.hex(":").encode(), mac.hex(":").upper().encode()


def _payload(frame: Packet) -> bytes:
    """Return what a frame carries for its receiver; TLS is not to be read by anybody else."""
    if TCP in frame:
        return bytes(frame[TCP].payload) if frame[TCP].dport not in _TLS else b""
    if UDP in frame:
        return bytes(frame[UDP].payload)
    return bytes(frame[ICMP].payload) if ICMP in frame else b""


def test_without_its_certificate_a_board_says_nothing_to_the_broker(
    namespaces: None, tmp_path: Path
) -> None:
    def to_broker(frames: list[Packet]) -> list[Packet]:
        return [frame for frame in frames if TCP in frame and frame[TCP].dport == 8883]

    with RunningLab(tmp_path / "lab", "--boards", "1") as lab:
        (board,) = lab.boards
        with captured(lab, board, tmp_path / "talks.pcap") as sent:
            time.sleep(2 * lab.period_s)
        assert to_broker(sent)
        removed = subprocess.run(
            [
                *(sys.executable, "-m", "mpremote", "connect", board["link"]),
                *("fs", "rm", ":identity/board.der"),
            ],
            capture_output=True,
            check=False,
        )
        assert removed.returncode == 0, removed
        power = ControlClient(Path(board["link"] + ".control")).power
        power(on=False)
        with captured(lab, board, tmp_path / "mute.pcap") as sent:
            power(on=True)
            time.sleep(3 * lab.period_s)
        log = Path(board["link"] + ".log").read_text(errors="replace")
    assert "identity" in log.rpartition("NETZPULS SELFTEST")[2]
    assert to_broker(sent) == []
