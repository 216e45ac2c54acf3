"""The driver's DHCP client: what it reads, whatever a server sends."""

from __future__ import annotations

import socket

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP

from hil.board import dhcp, packet
from hil.board.antenna import is_host

MAC = bytes.fromhex("240ac4000001")
TRANSACTION = 0x12345678


def offer(options: list[object], mac: bytes = MAC, transaction: int = TRANSACTION) -> bytes:
    head = BOOTP(op=2, xid=transaction, yiaddr="10.1.0.23", chaddr=mac + bytes(10))
    return bytes(head / DHCP(options=[("message-type", "offer"), *options, "end"]))


def test_what_a_client_says_is_read_by_others() -> None:
    message = dhcp.build(dhcp.DISCOVER, TRANSACTION, MAC, {12: b"mpy-esp32"})
    built = IP(packet.udp_packet(("0.0.0.0", 68), ("255.255.255.255", 67), message))  # noqa: S104
    told = dict(option[:2] for option in built[DHCP].options if isinstance(option, tuple))
    assert (built[UDP].sport, built[UDP].dport) == (68, 67)
    assert (built[BOOTP].xid, built[BOOTP].chaddr[:6], built[BOOTP].flags) == (TRANSACTION, MAC, 0)
    assert (told["message-type"], told["client_id"]) == (1, b"\x01" + MAC)
    checked = IP(bytes(built))
    del checked[IP].chksum, checked[UDP].chksum
    assert bytes(checked) == bytes(built)


def test_an_offer_is_read() -> None:
    options: list[object] = [
        ("server_id", "10.1.0.1"),
        ("lease_time", 600),
        ("subnet_mask", "255.255.0.0"),
        ("router", "10.1.0.254"),
        ("name_server", "10.1.0.2", "10.1.0.3"),
    ]
    read = dhcp.parse(offer(options), TRANSACTION, MAC)
    assert read is not None
    assert read.addresses == ("10.1.0.23", "255.255.0.0", "10.1.0.254", "10.1.0.2")
    assert (read.kind, read.server, read.lease_s, read.t1_s, read.t2_s) == (
        *(dhcp.OFFER, "10.1.0.1", 600, 300),
        525,
    )


@pytest.mark.parametrize(
    ("address", "netmask", "usable"),
    [
        ("10.1.0.23", "255.255.255.0", True),
        ("10.1.0.23", "255.255.255.255", True),
        ("10.1.0.0", "255.255.255.0", False),
        ("10.1.0.255", "255.255.255.0", False),
        ("0.0.0.0", "255.255.255.0", False),  # noqa: S104
        ("127.0.0.1", "255.0.0.0", False),
        ("224.0.0.1", "255.255.255.0", False),
        ("10.1.0.23", "255.0.255.0", False),
        ("nonsense", "255.255.255.0", False),
    ],
)
def test_what_no_interface_can_have(address: str, netmask: str, usable: bool) -> None:
    assert is_host(address, netmask) == usable


def test_lwip_s_guesses_for_what_is_missing() -> None:
    read = dhcp.parse(offer([("server_id", "10.1.0.1")]), TRANSACTION, MAC)
    assert read is not None
    assert read.addresses == ("10.1.0.23", "255.0.0.0", "10.0.0.1", "0.0.0.0")  # noqa: S104
    assert read.lease_s is None


@pytest.mark.parametrize(
    "data",
    [
        offer([], mac=bytes(6)),
        offer([], transaction=1),
        bytes(BOOTP(op=1, xid=TRANSACTION, chaddr=MAC) / DHCP(options=["end"])),
        offer([])[:239],
        b"",
    ],
)
def test_what_is_for_others_is_left_alone(data: bytes) -> None:
    assert dhcp.parse(data, TRANSACTION, MAC) is None


@given(st.binary(max_size=80))
@example(b"\x01\x04\x00\x00\x00\xff\x35\x01\x02")
@example(b"\x35")
def test_hostile_options_break_nothing(tail: bytes) -> None:
    read = dhcp.parse(offer([])[:240] + tail, TRANSACTION, MAC)
    if read is not None:
        address, *_ = read.addresses
        assert address == "10.1.0.23"


@given(st.binary(max_size=60))
def test_hostile_packets_break_nothing(data: bytes) -> None:
    packet.udp_content(data, 68)
    packet.udp_content(b"\x45" + data, 68)


def test_a_datagram_is_found_in_its_packet() -> None:
    made = packet.udp_packet(("10.1.0.1", 67), ("10.1.0.23", 68), b"odd")
    assert packet.udp_content(made + b"padding", 68) == b"odd"
    assert packet.udp_content(made, 67) is None
    assert packet.udp_content(made[:-1], 68) is None
    assert socket.inet_ntoa(made[12:16]) == "10.1.0.1"
