"""WLAN and network as a program on the board meets them."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP

from hil.site import Router
from tests.hil.board.desk import Desk, Repl

BSSID = "a4:2b:b0:00:00:01"
PORT = Path(__file__).parents[3] / "firmware" / "port"
JOIN = """
import network, time, socket, select, errno
wlan = network.WLAN(network.WLAN.IF_STA)
def join(ssid, key=None, ms=3000, **more):
    wlan.active(True)
    if wlan.status() != network.STAT_IDLE:
        wlan.disconnect()
    wlan.connect(ssid, key, **more)
    for _ in range(ms // 10):
        if wlan.status() != network.STAT_CONNECTING:
            break
        time.sleep_ms(10)
    return wlan.status()
def at(host, port):
    return socket.getaddrinfo(host, port)[0][-1]
def ready(stream, event, ms):
    poller = select.poll()
    poller.register(stream, event)
    return bool(poller.poll(ms))
def connect(host, port, ms=2000):
    stream = socket.socket()
    stream.setblocking(False)
    try:
        stream.connect(at(host, port))
    except OSError as error:
        if error.errno != errno.EINPROGRESS:
            return error.errno
    if not ready(stream, select.POLLOUT, ms):
        return 'timeout'
    stream.setblocking(True)
    poller = select.poll()
    poller.register(stream, select.POLLOUT)
    if poller.poll(0)[0][1] & select.POLLERR:
        try:
            stream.read(1)
        except OSError as error:
            return error.errno
    return stream
"""


class Server:
    """A TCP server on loopback whose connections the test holds."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.to = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self) -> socket.socket:
        connection, _ = self._listener.accept()
        connection.settimeout(10)
        return connection

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with contextlib.closing(Server()) as opened:
        yield opened


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with Router("10.1.0.1", {"probe.example.org": "203.0.113.80"}) as opened:
        yield opened


@pytest.fixture
def air(desk: Desk, server: Server, router: Router) -> dict[str, Any]:
    """Give the board a fresh start and this air."""
    point: dict[str, Any] = {
        "ssid": "school",
        "bssid": BSSID,
        "channel": 6,
        "rssi_dbm": -58,
        "security": "wpa2-psk",
        "key": "correct horse",
        "network": {
            "address": "10.1.0.23",
            "netmask": "255.255.255.0",
            "gateway": "10.1.0.1",
            "resolver": "10.1.0.1",
            "routes": [
                {"protocol": "icmp", "address": "10.1.0.1", "to": loopback(router.icmp_port)},
                {
                    "protocol": "udp",
                    "address": "10.1.0.1",
                    "port": 53,
                    "to": loopback(router.resolver_port),
                },
                {"protocol": "tcp", "address": "10.1.0.2", "port": 8883, "to": server.to},
                {
                    "protocol": "tcp",
                    "address": "203.0.113.80",
                    "port": 80,
                    "to": server.to,
                    "line": True,
                },
            ],
        },
    }
    document = {"access_points": [point]}
    desk.control.set_radio(document)
    desk.power_cycle()
    return document


@pytest.fixture
def repl(desk: Desk, air: dict[str, Any]) -> Iterator[Repl]:
    with desk.repl() as opened:
        opened.run(JOIN)
        yield opened


def loopback(port: int) -> str:
    return f"127.0.0.1:{port}"


def joined(repl: Repl) -> Repl:
    assert repl.run("print(join('school', 'correct horse'))") == "1010\n"
    return repl


def test_a_station_that_is_off_says_so(repl: Repl) -> None:
    said = repl.run("""
        print(wlan.active(), wlan.status(), wlan.isconnected(), wlan.ifconfig()[0])
        for call in (wlan.scan, lambda: wlan.connect('school'), lambda: wlan.status('rssi')):
            try:
                call()
            except OSError as error:
                print(error)
        """)
    assert said == (
        "False 1000 False 0.0.0.0\nSTA must be active\nWifi Not Started\nWifi Not Connected\n"
    )


def test_scan_shows_what_sends(desk: Desk, repl: Repl, air: dict[str, Any]) -> None:
    (point,) = air["access_points"]
    more = [
        point | {"ssid": "ämt", "bssid": "a4:2b:b0:00:00:02", "rssi_dbm": -40, "security": "open"},
        point | {"bssid": "a4:2b:b0:00:00:03", "hidden": True, "security": "wpa3-sae"},
        point | {"bssid": "a4:2b:b0:00:00:04", "up": False},
    ]
    desk.control.set_radio({"access_points": [point, *more]})
    said = repl.run("""
        wlan.active(True)
        for found in wlan.scan():
            print(found)
        """)
    assert said.splitlines() == [
        r"(b'\xc3\xa4mt', b'\xa4+\xb0\x00\x00\x02', 6, -40, 0, False)",
        r"(b'school', b'\xa4+\xb0\x00\x00\x01', 6, -58, 3, False)",
        r"(b'', b'\xa4+\xb0\x00\x00\x03', 6, -58, 6, True)",
    ]


def test_join_and_leave(repl: Repl) -> None:
    said = joined(repl).run("""
        print(wlan.ifconfig(), wlan.status('rssi'), wlan.config('ssid'), wlan.config('channel'))
        print(wlan.config('mac').hex(), wlan.ipconfig('addr4'), network.ipconfig('dns'))
        wlan.disconnect()
        print(wlan.isconnected(), wlan.status(), wlan.ifconfig()[0])
        """)
    assert said.splitlines() == [
        "('10.1.0.23', '255.255.255.0', '10.1.0.1', '10.1.0.1') -58 school 6",
        "240ac4000001 ('10.1.0.23', '255.255.255.0') 10.1.0.1",
        "False 8 0.0.0.0",
    ]


@pytest.mark.parametrize(
    ("call", "change", "status"),
    [
        ("join('school', 'wrong horse')", {}, 202),
        ("join('nowhere', 'correct horse')", {}, 201),
        ("join('school')", {}, 201),
        ("join('school', 'correct horse')", {"up": False}, 201),
        ("join('school', 'correct horse', bssid=b'\\xa4+\\xb0\\x00\\x00\\x09')", {}, 201),
        ("join('school', 'correct horse', bssid=b'\\xa4+\\xb0\\x00\\x00\\x01')", {}, 1010),
        ("join('school', 'correct horse')", {"security": "wpa2-enterprise"}, 201),
        ("join('school', 'correct horse')", {"security": "wpa3-sae"}, 1010),
        ("join('school', 'correct horse')", {"full": True}, 5),
        ("join('school', 'correct horse')", {"handshake": False}, 15),
        ("join('school', 'wrong horse')", {"handshake": False}, 15),
        ("join('school')", {"security": "open", "key": "", "handshake": False}, 1010),
        ("join('school', 'correct horse')", {"rssi_dbm": -98}, 201),
        ("join('school', 'correct horse')", {"rssi_dbm": -97}, 1010),
        ("join('school')", {"security": "open", "key": ""}, 1010),
    ],
)
def test_why_a_station_cannot_join(
    desk: Desk, repl: Repl, call: str, change: dict[str, Any], status: int
) -> None:
    if change:
        desk.control.change("school", **change)
    repl.run("wlan.active(True); wlan.config(reconnects=0)")
    assert repl.run(f"print({call})") == f"{status}\n"


def test_without_a_limit_the_driver_tries_for_ever_and_does_nothing_else(repl: Repl) -> None:
    assert repl.run("print(join('school', 'wrong horse', ms=200))") == "1001\n"
    said = repl.run("""
        try:
            wlan.connect('school', 'correct horse')
        except OSError as error:
            print(error, wlan.scan())
        """)
    assert said == "Wifi Internal State Error []\n"


def test_an_association_without_a_lease(desk: Desk, repl: Repl) -> None:
    desk.control.change("school", network={"dhcp": False})
    said = repl.run("""
        print(join('school', 'correct horse', ms=200), wlan.isconnected(), wlan.status('rssi'))
        print(wlan.ifconfig()[0])
        """)
    assert said == "1001 False -58\n0.0.0.0\n"
    desk.control.change("school", network={"dhcp": True})
    said = repl.run("""
        while not wlan.isconnected():
            time.sleep_ms(5)
        print(wlan.ifconfig()[0])
        """)
    assert said == "10.1.0.23\n"


def test_a_fixed_address_needs_no_lease(desk: Desk, repl: Repl) -> None:
    desk.control.change("school", network={"dhcp": False})
    said = repl.run("""
        wlan.active(True)
        wlan.ifconfig(('10.1.0.99', '255.255.255.0', '10.1.0.1', '10.1.0.1'))
        print(join('school', 'correct horse'), wlan.ifconfig()[0])
        """)
    assert said == "1010 10.1.0.99\n"


@pytest.fixture
def port(repl: Repl) -> Repl:
    """The REPL with the firmware's own port as `board`."""
    repl.run("import os, machine; 'port' in os.listdir() or os.mkdir('port')")
    for name in ("__init__", "esp32"):
        source = (PORT / f"{name}.py").read_text()
        repl.run(f"with open('port/{name}.py', 'w') as file: file.write({source!r})")
    repl.run("import port; board = port.load()")
    return repl


def test_an_led_at_a_pin_that_is_not_there_stops_nothing(port: Repl) -> None:
    said = port.run("""
        try:
            machine.Pin(28, machine.Pin.OUT)
        except ValueError:
            print('no such pin')
        board.remember('led', 29)
        board.led(1)
        class Plan:
            led = 28
        board.wire(Plan)
        print('on it goes')
        """)
    assert said == "no such pin\non it goes\n"


def test_a_full_memory_of_numbers_stops_no_start(port: Repl) -> None:
    said = port.run("""
        import esp32
        board.remember('led', 1)
        esp32.NVS('netzpuls').erase_key('led')
        store, count = esp32.NVS('full'), 0
        try:
            while True:
                store.set_i32('n%d' % count, count)
                store.commit()
                count += 1
        except OSError:
            pass
        try:
            board.remember('led', 3)
        except OSError:
            print('full')
        class Plan:
            led = 2
        board.wire(Plan)
        print('on it goes')
        while count:
            count -= 1
            store.erase_key('n%d' % count)
        board.remember('led', 0)
        """)
    assert said == "full\non it goes\n"


def test_the_driver_s_dhcp_client_cannot_be_started_twice(port: Repl) -> None:
    repl = port
    repl.run("board.link(); join('school', 'correct horse')")
    said = repl.run("""
        try:
            wlan.ifconfig('dhcp')
        except RuntimeError as error:
            print(error)
        board.dhcp()
        print(wlan.ipconfig('dhcp4'), board.lease() == (wlan.ifconfig()[0],) + wlan.ifconfig()[2:])
        values = wlan.ifconfig()
        board.fix(*values)
        print(wlan.ipconfig('dhcp4'))
        board.dhcp()
        print(wlan.ipconfig('dhcp4'))
        """)
    assert said == "Wifi Unknown Error 0x5004\nTrue True\nFalse\nTrue\n"


def test_an_access_point_that_goes_and_comes_back(desk: Desk, repl: Repl) -> None:
    joined(repl).run("wlan.config(reconnects=0)")
    desk.control.change("school", up=False)
    said = repl.run("""
        while wlan.isconnected():
            time.sleep_ms(5)
        print(wlan.status())
        """)
    assert said == "200\n"
    desk.control.change("school", up=True)
    joined(repl)


def test_an_access_point_that_gets_too_weak(desk: Desk, repl: Repl) -> None:
    joined(repl).run("wlan.config(reconnects=0)")
    desk.control.change("school", rssi_dbm=-98)
    assert repl.run("while wlan.isconnected(): time.sleep_ms(5)\nprint(wlan.status())") == "200\n"


def test_an_access_point_that_kicks(desk: Desk, repl: Repl) -> None:
    assert not desk.control.kick("school")
    joined(repl).run("wlan.config(reconnects=0)")
    assert not desk.control.kick("home")
    assert desk.control.kick("school", 6)
    assert repl.run("print(wlan.status(), wlan.isconnected(), wlan.ifconfig()[0])") == (
        "6 False 0.0.0.0\n"
    )
    # Without more tries the driver does nothing of its own accord.
    assert repl.run("time.sleep_ms(100); print(wlan.status())") == "6\n"
    joined(repl).run("wlan.config(reconnects=-1)")
    assert desk.control.kick("school")
    said = repl.run("""
        print(wlan.isconnected())
        while not wlan.isconnected():
            time.sleep_ms(5)
        """)
    assert said == "False\n"


def test_a_chip_without_ethernet_says_so(repl: Repl) -> None:
    said = repl.run("""
        import machine
        try:
            network.LAN(mdc=machine.Pin(23), mdio=machine.Pin(18), power=None,
                        phy_type=network.PHY_LAN8720, phy_addr=0)
        except OSError as error:
            print(error)
        """)
    assert said == "esp_eth_driver_install failed\n"


def test_sockets_can_be_bound(repl: Repl) -> None:
    """To the own address or to any, as a program does that has WLAN and LAN."""
    said = joined(repl).run("""
        for address, port in (('0.0.0.0', 68), (wlan.ifconfig()[0], 0)):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            udp.bind(at(address, port))
            print(udp.sendto(b'x', at('255.255.255.255', 67)))
            udp.close()
        """)
    assert said == "1\n1\n"


def test_a_stream_stands_still_while_the_way_is_cut(desk: Desk, repl: Repl, server: Server) -> None:
    joined(repl).run("stream = connect('203.0.113.80', 80); stream.write(b'before')")
    with server.accept() as peer:
        assert peer.recv(100) == b"before"
        for cut, restore in (
            (
                lambda: desk.control.line("school", up=False),
                lambda: desk.control.line("school", up=True),
            ),
            (
                lambda: desk.control.change("school", up=False),
                lambda: desk.control.change("school", up=True),
            ),
        ):
            cut()
            repl.run("print(stream.write(b'during'))")
            peer.sendall(b"answer")
            assert repl.run("print(ready(stream, select.POLLIN, 200))") == "False\n"
            assert not select.select([peer], [], [], 0)[0]
            restore()
            assert peer.recv(100) == b"during"
            assert repl.run("print(stream.read(6))") == "b'answer'\n"
        peer.sendall(b"end")
        peer.shutdown(socket.SHUT_WR)
        assert repl.run("print(stream.read()); stream.close()") == "b'end'\n"
        assert peer.recv(100) == b""


def test_what_is_local_goes_on_while_the_line_is_cut(
    desk: Desk, repl: Repl, server: Server
) -> None:
    desk.control.line("school", up=False)
    said = joined(repl).run(
        "stream = connect('10.1.0.2', 8883); stream.write(b'local'); print(stream)"
    )
    assert "socket" in said
    with server.accept() as peer:
        assert peer.recv(100) == b"local"


def test_a_peer_that_resets_is_noticed(repl: Repl, server: Server) -> None:
    joined(repl).run("stream = connect('10.1.0.2', 8883)")
    with server.accept() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    said = repl.run("""
        try:
            print(stream.read(1))
        except OSError as error:
            print(errno.errorcode[error.errno])
        """)
    assert said == "ECONNRESET\n"


def test_connecting_into_a_cut_gets_no_answer_and_later_one(
    desk: Desk, repl: Repl, server: Server
) -> None:
    desk.control.line("school", up=False)
    repl = joined(repl)
    assert repl.run("print(connect('203.0.113.80', 80, 300))") == "timeout\n"
    assert repl.run("print(connect('198.51.100.7', 443, 300))") == "timeout\n"
    repl.transport.exec_raw_no_follow("print(connect('203.0.113.80', 80, 9000))")
    threading.Timer(0.3, desk.control.line, ("school",), {"up": True}).start()
    # The kernel sends its SYN again after a second, as lwIP does.
    assert b"socket" in repl.transport.follow(10)[0]
    server.accept().close()


def test_a_host_without_a_listener_refuses(desk: Desk, repl: Repl, air: dict[str, Any]) -> None:
    said = joined(repl).run("print(errno.errorcode[connect('10.1.0.2', 9)])")
    assert said == "ECONNREFUSED\n"
    with contextlib.closing(Server()) as gone:
        to = gone.to
    routes = air["access_points"][0]["network"]["routes"]
    desk.control.change("school", network={"routes": [*routes[:2], routes[2] | {"to": to}]})
    assert repl.run("print(errno.errorcode[connect('10.1.0.2', 8883)])") == "ECONNREFUSED\n"


def test_without_a_network_nothing_is_reached(repl: Repl) -> None:
    said = repl.run("""
        print(connect('10.1.0.2', 8883))
        try:
            at('probe.example.org', 80)
        except OSError as error:
            print(error.errno)
        """)
    assert said == "101\n-202\n"  # ENETUNREACH, which MicroPython's errno has no name for


def test_names_are_asked_from_the_resolver(desk: Desk, repl: Repl, router: Router) -> None:
    said = joined(repl).run("""
        found = socket.getaddrinfo('probe.example.org', 80)
        print(found[0][3], found[0][-1] == at('203.0.113.80', 80))
        try:
            at('unknown.example.org', 80)
        except OSError as error:
            print(error.errno)
        """)
    assert said == "203.0.113.80 True\n-2\n"


def put_all_behind_the_line(desk: Desk, air: dict[str, Any]) -> None:
    routes = air["access_points"][0]["network"]["routes"]
    behind = [route | {"line": True} for route in routes]
    desk.control.change("school", network={"routes": behind, "line_up": False})


def test_datagrams_get_lost_in_a_cut(desk: Desk, repl: Repl, air: dict[str, Any]) -> None:
    query = """
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.sendto(b'\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00'
                   b'\\x05probe\\x07example\\x03org\\x00\\x00\\x01\\x00\\x01', at('10.1.0.1', 53))
        print(ready(udp, select.POLLIN, %d) and udp.recvfrom(512)[0][:2])
        udp.close()
        """
    joined(repl)
    assert repl.run(query % 2000) == "b'\\x124'\n"
    put_all_behind_the_line(desk, air)
    assert repl.run(query % 200) == "False\n"


PING = """
import struct
def checksum(data):
    total = sum(data[i] << 8 | data[i + 1] for i in range(0, len(data), 2))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
def ping(host, ms):
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    packet = struct.pack('>BBHHH', 8, 0, 0, 7, 1) + b'payload!'
    packet = packet[:2] + struct.pack('>H', checksum(packet)) + packet[4:]
    raw.sendto(packet, at(host, 1))
    answer = raw.recvfrom(1500)[0].hex() if ready(raw, select.POLLIN, ms) else None
    raw.close()
    return answer
"""


def test_ping_is_a_real_packet(desk: Desk, repl: Repl, air: dict[str, Any]) -> None:
    joined(repl).run(PING)
    answer = IP(bytes.fromhex(repl.run("print(ping('10.1.0.1', 2000))").strip()))
    assert (answer.src, answer.dst, answer[ICMP].type) == ("10.1.0.1", "10.1.0.23", 0)
    assert bytes(answer[ICMP].payload) == b"payload!"
    assert repl.run("print(ping('10.1.0.77', 200))") == "None\n"
    put_all_behind_the_line(desk, air)
    assert repl.run("print(ping('10.1.0.1', 200))") == "None\n"


def test_the_clock_is_set_over_the_line(desk: Desk, repl: Repl) -> None:
    set_time = """
        import ntptime
        try:
            ntptime.settime()
            print(time.time())
        except OSError as error:
            print(errno.errorcode.get(error.errno, error.errno))
        """
    assert repl.run(set_time) == "-202\n"
    joined(repl)
    assert abs(int(repl.run(set_time)) - time.time()) < 5
    desk.control.line("school", up=False)
    assert repl.run(set_time) == "ETIMEDOUT\n"


def test_asyncio_streams_go_through_the_air(repl: Repl, server: Server) -> None:
    def answer() -> None:
        with server.accept() as peer:
            peer.sendall(peer.recv(100).upper())

    echo = threading.Thread(target=answer)
    echo.start()
    said = joined(repl).run("""
        import asyncio
        async def talk():
            reader, writer = await asyncio.open_connection('10.1.0.2', 8883)
            writer.write(b'hello')
            await writer.drain()
            print(await reader.read(5))
            writer.close()
            await writer.wait_closed()
        asyncio.run(talk())
        """)
    echo.join()
    assert said == "b'HELLO'\n"


def test_a_peer_does_not_notice_a_power_cut(desk: Desk, repl: Repl, server: Server) -> None:
    joined(repl).run("stream = connect('10.1.0.2', 8883); stream.write(b'x')")
    with server.accept() as peer:
        assert peer.recv(1) == b"x"
        desk.control.power(on=False)
        assert not select.select([peer], [], [], 0.2)[0]
        desk.control.power(on=True)
        assert not select.select([peer], [], [], 0.2)[0]


def test_a_soft_reset_keeps_the_association_and_closes_streams(
    desk: Desk, repl: Repl, server: Server
) -> None:
    joined(repl).run("stream = connect('10.1.0.2', 8883)")
    with server.accept() as peer:
        repl.transport.close()
        with desk.repl() as fresh:
            said = fresh.run("import network; print(network.WLAN().isconnected())")
        assert said == "True\n"
        assert peer.recv(1) == b""
    # The fixture closes this one.
    repl.transport = desk.repl(soft_reset=False).transport


def test_another_address_ends_connections(desk: Desk, repl: Repl, server: Server) -> None:
    joined(repl).run("stream = connect('10.1.0.2', 8883)")
    with server.accept() as peer:
        desk.control.change("school", up=False)
        repl.run("wlan.disconnect()")
        desk.control.change("school", up=True, network={"address": "10.1.0.24"})
        joined(repl)
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_many_power_cuts_with_open_streams(desk: Desk, air: dict[str, Any], server: Server) -> None:
    """Closed sockets and new ones share numbers: what is torn down must not take them along."""
    for _ in range(4):
        with contextlib.ExitStack() as peers:
            with desk.repl() as repl:
                repl.run(JOIN)
                joined(repl).run("streams = [connect('10.1.0.2', 8883) for _ in range(5)]")
                accepted = [peers.enter_context(server.accept()) for _ in range(5)]
                assert repl.run("print([s.write(b'x') for s in streams])") == "[1, 1, 1, 1, 1]\n"
            assert [peer.recv(1) for peer in accepted] == [b"x"] * 5
            desk.power_cycle()
