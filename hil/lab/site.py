"""One site's network: switch, router, line, and the sockets that boards and gateway plug into.

    boards ─┬─ switch ─ router ─── line ─── internet
    gateway ┘  (bridge) 10.n.0.1   (the provider's end: what breaks there is not the school's)

Each word is a namespace of its own. The router's DHCP and DNS are two dnsmasq, so that each can
die alone. There is no NAT: the internet knows the way back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Self

from hil.lab import actor, server
from hil.lab.certificate import VALID, Root
from hil.lab.dnsmasq import Dnsmasq
from hil.lab.internet import (
    PLATFORM,
    PORTAL,
    PROBE,
    RESOLVER,
    SOURCE,
    TARGETS,
    Internet,
    name_of,
)
from hil.lab.loop import Loop
from hil.lab.namespace import Namespace
from hil.lab.relay import Impairment, Relay
from hil.lab.server import HttpServer

_POOL = range(100, 110)
_LEASE = "12h"
_LEASE_END_S = 4_000_000_000
_RATE_BURST = "burst 4k latency 100ms"


class Site:
    """A site's network from entering to leaving.

    Args:
        captive: a public WLAN: nothing but the login page until somebody agrees.
    """

    def __init__(
        self, loop: Loop, internet: Internet, folder: Path, number: int, *, captive: bool = False
    ) -> None:
        self.loop = loop
        self.internet = internet
        self.number = number
        self.lan = IPv4Network(f"10.{number}.0.0/24")
        self.router_address = self.lan[1]
        self.gateway_address = self.lan[2]
        self.rogue_address = self.lan[66]
        self.captive = captive
        self.switch = Namespace(f"switch {number}")
        self.router = Namespace(f"router {number}")
        self.line = Namespace(f"line {number}")
        self.gateway = Namespace(f"gateway {number}")
        self.stranger = Namespace(f"stranger {number}")
        self._leases = folder / f"dhcp{number}.leases"
        self._leases.touch()
        router, pool = self.router_address, (self.lan[_POOL[0]], self.lan[_POOL[-1]])
        common = ("interface=lan", "except-interface=lo", "bind-interfaces")
        # RFC 8910: a public WLAN's lease names its portal.
        option114 = (f"dhcp-option=114,https://{name_of(PORTAL)}/api",) if captive else ()
        self.dhcp = Dnsmasq(
            self.router,
            folder / f"dhcp{number}.log",
            (
                *common,
                "port=0",
                f"dhcp-range={pool[0]},{pool[1]},{self.lan.netmask},{_LEASE}",
                f"dhcp-option=option:router,{router}",
                f"dhcp-option=option:dns-server,{router}",
                *option114,
                "dhcp-authoritative",
                "no-ping",
                "log-dhcp",
                f"dhcp-leasefile={self._leases}",
                "enable-ra",
                "dhcp-range=::,constructor:lan,ra-only",
            ),
        )
        self.dns = Dnsmasq(
            self.router,
            folder / f"dns{number}.log",
            (*common, f"server={RESOLVER}", "address=/localhost/127.0.0.1"),
        )
        self._portal = contextlib.ExitStack()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self, stack: contextlib.ExitStack) -> None:
        for namespace in (self.switch, self.router, self.line, self.gateway, self.stranger):
            stack.callback(namespace.close)
        n = self.number
        self.switch.write("ipv6/conf/all/disable_ipv6", "1")
        self.switch.write("ipv6/conf/default/disable_ipv6", "1")
        self.switch.ip(
            "link add lan type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
            "link add spare0 type veth peer name spare1",
            "link set lan up",
            "link set spare0 up",
            "link set spare1 up",
        )
        for router in (self.router, self.line):
            router.write("ipv4/ip_forward", "1")
            router.write("ipv6/conf/all/forwarding", "1")
            router.write("ipv6/conf/all/keep_addr_on_down", "1")
        self._plug(self.router, "router", "lan")
        self._plug(self.gateway, "gateway", "eth0")
        self._plug(self.stranger, "stranger", actor.INTERFACE, actor.Actor.mac)
        self.router.pair("wan", self.line, "lan")
        self.internet.connect(n, self.line)
        self.router.ip(
            f"addr add {self.router_address}/24 dev lan",
            f"addr add 2001:db8:{n:x}::1/64 dev lan nodad",
            f"addr add 100.64.{n}.2/30 dev wan",
            f"addr add 2001:db8:64:{n:x}::2/64 dev wan nodad",
            "link set lan up",
            "link set wan up",
        )
        self.line.ip(
            f"addr add 100.64.{n}.1/30 dev lan",
            f"addr add 2001:db8:64:{n:x}::1/64 dev lan nodad",
            "link set lan up",
            f"route add {self.lan} via 100.64.{n}.2",
            f"route add 2001:db8:{n:x}::/64 via 2001:db8:64:{n:x}::2",
        )
        self.route_out()
        self.gateway.ip(
            f"addr add {self.gateway_address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {self.router_address}",
        )
        self.stranger.ip(f"link set {actor.INTERFACE} up")
        for program in (self.dhcp, self.dns):
            stack.callback(program.stop)
            program.start()
        stack.callback(self.let_through)
        if self.captive:
            self.catch()

    def _plug(self, host: Namespace, port: str, interface: str, mac: str = "") -> None:
        """Lay a cable from the switch to a host."""
        self.switch.pair(port, host, interface)
        if mac:
            host.ip(f"link set {interface} address {mac}")
        self.switch.ip(f"link set {port} master lan", f"link set {port} up")

    def plug_board(self, number: int, mac: bytes, *, lan: bool) -> Namespace:
        """Return the namespace of a board, with `wl0` for its radio and perhaps `eth0`."""
        host = Namespace(f"board {number}")
        self._stack.callback(host.close)
        self._plug(host, f"b{number}w", "wl0", mac.hex(":"))
        if lan:  # an ESP32 gives its Ethernet the third address after its first
            wired = (int.from_bytes(mac, "big") + 3).to_bytes(6, "big")
            self._plug(host, f"b{number}e", "eth0", wired.hex(":"))
        return host

    def route_out(self) -> None:
        """Let the router send what is for the internet over the line."""
        n = self.number
        self.router.ip(
            f"route replace default via 100.64.{n}.1",
            f"route replace ::/0 via 2001:db8:64:{n:x}::1",
        )

    def catch(self) -> None:
        """Put a portal before the line for good; see `caught`."""
        self._portal.enter_context(self.caught())

    def let_through(self) -> None:
        """Take the portal away, if there is one."""
        self._portal.close()

    # What can be done to it; each lasts from entering to leaving

    @contextlib.contextmanager
    def impaired(self, impairment: Impairment) -> Iterator[None]:
        """Put a bad cable between switch and router."""
        self.switch.ip("link set router nomaster", "link set spare1 master lan")
        relay = Relay(self.loop, self.switch, ("router", "spare0"), impairment)
        try:
            yield
        finally:
            relay.close()
            self.switch.ip("link set spare1 nomaster", "link set router master lan")

    @contextlib.contextmanager
    def limited(self, kbit_s: int) -> Iterator[None]:
        """Let the line carry only so much, in each direction."""
        for interface in ("lan", "net"):
            self.line.tc(f"qdisc add dev {interface} root tbf rate {kbit_s}kbit {_RATE_BURST}")
        try:
            yield
        finally:
            for interface in ("lan", "net"):
                self.line.tc(f"qdisc del dev {interface} root")

    @contextlib.contextmanager
    def routed(self, where: Namespace, route: str) -> Iterator[None]:
        """Have a route in `where`: "blackhole ADDRESS", "unreachable ADDRESS"."""
        where.ip(f"route add {route}")
        try:
            yield
        finally:
            where.ip(f"route del {route}")

    @contextlib.contextmanager
    def taken_over(
        self, address: str, *serve: Callable[[Namespace, str], HttpServer]
    ) -> Iterator[None]:
        """Let the line answer for one of the internet's addresses itself, by these servers."""
        self.line.ip(f"addr add {address}/32 dev lo")
        with contextlib.ExitStack() as stack:
            stack.callback(self.line.ip, f"addr del {address}/32 dev lo")
            for start in serve:
                stack.callback(start(self.line, address).close)
            yield

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Let a portal catch all clients: HTTP is redirected, the rest goes nowhere."""
        with contextlib.ExitStack() as stack:
            answer = server.redirect(f"https://{name_of(PORTAL)}/")
            stack.enter_context(self.taken_over(PROBE, self.http(answer)))
            for address in (*TARGETS, PLATFORM, SOURCE):
                stack.enter_context(self.routed(self.line, f"prohibit {address}/32"))
            yield

    def http(self, answer: server.Answer) -> Callable[[Namespace, str], HttpServer]:
        """Return what starts an HTTP server for `taken_over`."""
        return lambda where, address: HttpServer(self.loop, where, address, answer)

    def https(
        self, answer: server.Answer, root: Root | None = None, valid: timedelta = VALID
    ) -> Callable[[Namespace, str], HttpServer]:
        """Return what starts an HTTPS server for `taken_over`."""
        return lambda where, address: self.internet.tls_server(where, address, answer, root, valid)

    @contextlib.contextmanager
    def full_pool(self) -> Iterator[None]:
        """Have no address left: those that boards do not hold are leased to others."""
        self.dhcp.stop()
        before, free = self._leases.read_text(), self.free()
        taken = [
            f"{_LEASE_END_S} 02:00:5e:00:54:{int(address) & 255:02x} {address} * *\n"
            for address in free
        ]
        self._leases.write_text("".join(taken) + before)
        self.dhcp.start()
        try:
            yield
        finally:
            self.dhcp.stop()
            kept = self._leases.read_text().splitlines(keepends=True)
            self._leases.write_text("".join(line for line in kept if "02:00:5e:00:54:" not in line))
            self.dhcp.start()

    def free(self) -> list[IPv4Address]:
        """Return the addresses that the DHCP server can still give."""
        rows = (line.split() for line in self._leases.read_text().splitlines())
        held = {row[2] for row in rows if len(row) == 5}
        return [self.lan[at] for at in _POOL if str(self.lan[at]) not in held]
