"""A board on real interfaces: DHCP, routes, and what its peers see of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP

from fleet.errors import BenchError
from hil.board import BoardProcess, Settings
from hil.board.error import ControlError
from tests.hil.board.desk import Desk, Repl
from tests.hil.board.room import Room, Talker, point
from tests.hil.board.test_air import JOIN, PING
from tests.hil.board.test_radio import document


def _refusal() -> str:
    """Return why there are no namespaces here, or nothing."""
    tried = subprocess.run(["unshare", "-Urn", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


pytestmark = pytest.mark.skipif(
    bool(_refusal()), reason=f"needs user and network namespaces (unshare -Urn): {_refusal()}"
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with Room(tmp_path_factory.mktemp("room")) as opened:
        yield opened


@pytest.fixture(scope="module")
def wired(room: Room, template: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("board")
    (folder / "flash.bin").write_bytes(template)
    settings = Settings(
        link=folder / "np",
        flash=folder / "flash.bin",
        instant=True,
        interfaces=("wl0", "wl1"),
        lan="eth0",
    )
    with BoardProcess(settings, room.board) as process:
        yield Desk(process)


@pytest.fixture
def server(room: Room) -> Iterator[Talker]:
    with room.server() as opened:
        yield opened


@pytest.fixture
def repl(wired: Desk) -> Iterator[Repl]:
    wired.control.set_radio({"access_points": [point(), point("other", "wl1")]})
    wired.power_cycle()
    with wired.repl() as opened:
        opened.run(JOIN)
        yield opened


def links(room: Room) -> dict[str, bool]:
    lines = room.on_board("ip", "-brief", "link").splitlines()
    return {line.split("@")[0]: "LOWER_UP" in line for line in lines if "@" in line}


def test_association_is_an_interface_that_is_up(room: Room, wired: Desk, repl: Repl) -> None:
    assert links(room) == {"wl0": False, "wl1": False, "eth0": False}
    with room.dnsmasq() as dnsmasq:
        assert repl.run("print(join('school'))") == "1010\n"
        dnsmasq.wait_for("DHCPACK(br0) 10.1.0.")
        assert "01:24:0a:c4:00:00:01" in room.leases()  # the client identifier
    assert links(room) == {"wl0": True, "wl1": False, "eth0": False}
    address, *rest = eval(repl.run("print(wlan.ifconfig())"))  # noqa: S307 - a tuple of ours
    assert rest == ["255.255.255.0", "10.1.0.1", "10.1.0.1"]
    assert wired.control.state()["station"]["address"] == address
    repl.run("wlan.disconnect()")
    assert links(room) == {"wl0": False, "wl1": False, "eth0": False}
    assert "inet " not in room.on_board("ip", "address", "show", "wl0")
    with room.dnsmasq("far", "10.2.0"):
        assert repl.run("print(join('other'))") == "1010\n"
    assert links(room) == {"wl0": False, "wl1": True, "eth0": False}
    assert repl.run("print(wlan.ifconfig()[2])") == "10.2.0.1\n"
    (link,) = json.loads(room.on_board("ip", "-json", "link", "show", "wl1"))
    assert link["address"] == "24:0a:c4:00:00:01"


def test_sockets_are_the_kernel_s_own(room: Room, repl: Repl, server: Talker) -> None:
    with room.dnsmasq():
        repl.run("join('school')")
        assert repl.run("print(socket.getaddrinfo('probe.example.org', 80)[0][3])") == (
            "203.0.113.80\n"
        )
        repl.run("stream = connect('probe.example.org', 8883); stream.write(b'hello')")
        server.wait_for("hello")
        assert repl.run("print(stream.read(5)); stream.close()") == "b'HELLO'\n"
        server.wait_for("closed")
    assert repl.run("print(errno.errorcode[connect('10.1.0.1', 9)])") == "ECONNREFUSED\n"


def test_ping_is_a_real_packet(room: Room, repl: Repl) -> None:
    repl.run(PING)
    repl.run("wlan.ifconfig(('10.1.0.50', '255.255.255.0', '10.1.0.1', '10.1.0.1'))")
    assert repl.run("print(join('school'))") == "1010\n"
    answer = IP(bytes.fromhex(repl.run("print(ping('10.1.0.1', 2000))").strip()))
    assert (answer.src, answer.dst, answer[ICMP].type) == ("10.1.0.1", "10.1.0.50", 0)


def test_a_fixed_address_frees_the_client_s_port(room: Room, repl: Repl) -> None:
    with room.dnsmasq():
        repl.run("join('school')")
        bind = """
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            try:
                udp.bind(at('0.0.0.0', 68))
                print('free')
            except OSError as error:
                print(errno.errorcode[error.errno])
            """
        assert repl.run(bind) == "EADDRINUSE\n"
        repl.run("udp.close(); values = wlan.ifconfig(); wlan.ifconfig(values)")
        assert repl.run("print(wlan.isconnected(), wlan.ifconfig() == values)") == "True True\n"
        assert repl.run(bind) == "free\n"
        # The limited broadcast goes out by the WLAN, as a client's inquiry does.
        answer = repl.run("""
            request = bytearray(300)
            request[:8] = b'\\x01\\x01\\x06\\x00abcd'
            request[10] = 0x80
            request[28:34] = wlan.config('mac')
            request[236:244] = b'\\x63\\x82\\x53\\x63\\x35\\x01\\x01\\xff'
            udp.sendto(request, at('255.255.255.255', 67))
            print(ready(udp, select.POLLIN, 3000) and udp.recvfrom(600)[0][:8])
            udp.close()
            """)
        assert answer == "b'\\x02\\x01\\x06\\x00abcd'\n"
        repl.run("wlan.ifconfig('dhcp')")
        assert repl.run("print(wlan.isconnected(), wlan.ifconfig()[0])") == "True 0.0.0.0\n"
        repl.run(HAS_ADDRESS)
        assert repl.run("print(wlan.ifconfig() == values)") == "True\n"


HAS_ADDRESS = """
for _ in range(1000):
    if wlan.ifconfig()[0] != '0.0.0.0':
        break
    time.sleep_ms(10)
"""


def test_no_server_no_address_until_there_is_one(room: Room, repl: Repl) -> None:
    assert repl.run("print(join('school', ms=300), wlan.status('rssi'))") == "1001 -58\n"
    assert links(room)["wl0"]
    with room.dnsmasq():
        repl.run(HAS_ADDRESS)
        assert repl.run("print(wlan.status())") == "1010\n"


def test_an_address_that_somebody_has_is_declined(room: Room, repl: Repl) -> None:
    with room.dnsmasq(**{"dhcp-host": "24:0a:c4:00:00:01,10.1.0.111"}) as dnsmasq:
        repl.run("join('school', ms=10)")
        dnsmasq.wait_for("DHCPDECLINE(br0) 10.1.0.111 24:0a:c4:00:00:01")
        repl.run(HAS_ADDRESS)
        assert repl.run("print(wlan.ifconfig()[0])").startswith("10.1.0.1")
        assert repl.run("print(wlan.ifconfig()[0])") != "10.1.0.111\n"


def test_a_lease_is_renewed_and_lost_with_its_server(room: Room, repl: Repl) -> None:
    """The driver goes on to say that it is connected, as MicroPython's does."""
    with room.scripted_dhcp(lease_s=4) as server:
        repl.run("join('school')")
        assert repl.run("print(wlan.ifconfig()[0])") == "10.1.0.77\n"
        server.wait_for("request from 10.1.0.77")
        server.wait_for("request from 10.1.0.77")
    said = repl.run("""
        for _ in range(900):
            if wlan.ifconfig()[0] == '0.0.0.0':
                break
            time.sleep_ms(10)
        print(wlan.isconnected(), wlan.ifconfig()[0])
        """)
    assert said == "True 0.0.0.0\n"


def test_a_refusal_lets_the_client_start_anew(room: Room, repl: Repl) -> None:
    with room.scripted_dhcp(naks=2) as server:
        repl.run("join('school')")
        for _ in range(3):
            server.wait_for("discover from 0.0.0.0")
            server.wait_for("request from 0.0.0.0")
        assert repl.run("print(wlan.ifconfig()[0])") == "10.1.0.77\n"


def test_a_peer_does_not_notice_a_power_cut(
    room: Room, wired: Desk, repl: Repl, server: Talker
) -> None:
    repl.run("wlan.ifconfig(('10.1.0.50', '255.255.255.0', '10.1.0.1', '10.1.0.1'))")
    repl.run("join('school'); stream = connect('10.1.0.1', 8883); stream.write(b'before')")
    server.wait_for("before")
    wired.control.power(on=False)
    assert links(room) == {"wl0": False, "wl1": False, "eth0": False}
    assert not server.read(0.5)
    wired.control.power(on=True)
    repl.transport.close()
    with wired.repl() as fresh:
        fresh.run(JOIN + "wlan.ifconfig(('10.1.0.50', '255.255.255.0', '10.1.0.1', '10.1.0.1'))")
        assert fresh.run("print(join('school'))") == "1010\n"
        # Nothing of the old connection is left that could speak now.
        assert not server.read(2)
    # The fixture closes this one.
    repl.transport = wired.repl(soft_reset=False).transport
    room.run("ss", "-K", "src", "10.1.0.1")
    server.wait_for("Error")


def test_a_short_silence_of_the_access_point_ends_nothing(
    room: Room, wired: Desk, repl: Repl, server: Talker
) -> None:
    repl.run("wlan.ifconfig(('10.1.0.50', '255.255.255.0', '10.1.0.1', '10.1.0.1'))")
    repl.run("join('school'); stream = connect('10.1.0.1', 8883); stream.write(b'before')")
    server.wait_for("before")
    wired.control.set_radio({"access_points": [point(up=False)]})
    wired.control.set_radio({"access_points": [point()]})
    assert repl.run("stream.write(b'after'); print(stream.read(11))") == "b'BEFOREAFTER'\n"
    repl.run("stream.close()")
    server.wait_for("closed")


def test_a_lost_association_ends_connections(
    room: Room, wired: Desk, repl: Repl, server: Talker
) -> None:
    repl.run("wlan.config(reconnects=0)")
    repl.run("wlan.ifconfig(('10.1.0.50', '255.255.255.0', '10.1.0.1', '10.1.0.1'))")
    repl.run("join('school'); stream = connect('10.1.0.1', 8883); stream.write(b'before')")
    server.wait_for("before")
    assert wired.control.kick("school", 6)
    said = repl.run("""
        print(wlan.status(), wlan.isconnected())
        try:
            print(stream.read(20))
            print(stream.read(1))
        except OSError as error:
            print(errno.errorcode.get(error.errno, error.errno))
        """)
    assert said == "6 False\nECONNABORTED\n"
    assert not server.read(0.2)
    assert repl.run("print(connect('10.1.0.1', 8883))") == "101\n"  # ENETUNREACH
    room.run("ss", "-K", "src", "10.1.0.1")
    server.wait_for("Error")


LAN = """
import machine
lan = network.LAN(mdc=machine.Pin(23), mdio=machine.Pin(18), power=machine.Pin(12),
                  phy_type=network.PHY_LAN8720, phy_addr=0)
def follow(wanted):
    for _ in range(500):
        if lan.status() == wanted:
            break
        time.sleep_ms(10)
    return lan.status()
"""


def test_ethernet(room: Room, repl: Repl) -> None:
    repl.run(LAN)
    with room.dnsmasq() as dnsmasq:
        assert repl.run("print(lan.status(), lan.isconnected(), lan.active())") == "0 False False\n"
        assert repl.run("lan.active(True); print(follow(network.ETH_GOT_IP))") == "5\n"
        dnsmasq.wait_for("24:0a:c4:00:00:04")
        said = repl.run("print(lan.isconnected(), lan.ifconfig()[2], lan.config('mac').hex())")
        assert said == "True 10.1.0.1 240ac4000004\n"
        assert "203.0.113.80" in repl.run("print(socket.getaddrinfo('probe.example.org', 80))")
        room.run("ip", "link", "set", "wall", "down")
        assert repl.run("print(follow(network.ETH_DISCONNECTED), lan.ifconfig()[0])") == (
            "4 0.0.0.0\n"
        )
        room.run("ip", "link", "set", "wall", "up")
        assert repl.run("print(follow(network.ETH_GOT_IP))") == "5\n"


def test_wlan_and_lan_in_one_network_keep_apart(room: Room, repl: Repl) -> None:
    """What is bound to an address leaves by its interface, and by no other when that is down."""
    repl.run(LAN)
    repl.run(
        "lan.active(True); lan.ifconfig(('10.1.0.61', '255.255.255.0', '10.1.0.1', '10.1.0.1'))"
    )
    repl.run("wlan.ifconfig(('10.1.0.50', '255.255.255.0', '10.1.0.1', '10.1.0.1'))")
    repl.run("follow(network.ETH_GOT_IP); join('school')")
    counted = """
        def count(address):
            stream = socket.socket()
            try:
                stream.bind(at(address, 0))
                stream.settimeout(2)
                stream.connect(at('203.0.113.80', 8883))
                stream.write(bytes(50))
                return stream.read(50) == bytes(50)
            except OSError as error:
                return error.errno
            finally:
                stream.close()
        """
    repl.run(counted)
    for address, interface, other in (("10.1.0.61", "eth0", "wl0"), ("10.1.0.50", "wl0", "eth0")):
        before = {name: sent(room, name) for name in (interface, other)}
        with room.server() as server:
            assert repl.run(f"print(count({address!r}))") == "True\n"
            server.wait_for(f"from {address}")
            server.wait_for("closed")
        assert sent(room, interface) > before[interface] + 100
        assert sent(room, other) == before[other]
    repl.run("wlan.disconnect()")
    with room.server():
        assert repl.run("print(count('10.1.0.61'))") == "True\n"
    before_bytes = sent(room, "eth0")
    assert repl.run("print(count('10.1.0.50'))") != "True\n"
    assert sent(room, "eth0") == before_bytes


def sent(room: Room, interface: str) -> int:
    (link,) = json.loads(room.on_board("ip", "-json", "-statistics", "link", "show", interface))
    return int(link["stats64"]["tx"]["bytes"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interfaces": ("wl7",)}, "there is no interface wl7 here; there are: lo, "),
        ({"lan": "eth0", "interfaces": ()}, "beside relays on loopback"),
    ],
)
def test_what_cannot_be_is_said(
    room: Room, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    settings = replace(Settings(link=tmp_path / "np", instant=True), **changes)
    with pytest.raises(BenchError, match=message):
        BoardProcess(settings, room.board)


def test_a_model_must_name_interfaces_that_the_board_has(wired: Desk) -> None:
    with pytest.raises(ControlError, match="no interface wl5; it has: wl0, wl1"):
        wired.control.set_radio({"access_points": [point(interface="wl5")]})
    with pytest.raises(ControlError, match="reaches its networks through them"):
        wired.control.set_radio(document())
