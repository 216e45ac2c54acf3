"""The lab's internet: 203.0.113.0/24, a documentation network (RFC 5737), in one namespace.

It holds all that boards look at beyond a site's line, and the resolver that knows the names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Self

from hil.lab import server
from hil.lab.certificate import VALID, Root
from hil.lab.dnsmasq import Dnsmasq
from hil.lab.loop import Loop
from hil.lab.namespace import Namespace
from hil.lab.server import HttpServer, Reply, UdpServer

DOMAIN = "netzpuls.example"
RESOLVER = "203.0.113.53"
PORTAL = "203.0.113.70"
PROBE = "203.0.113.80"
TARGETS = ("203.0.113.81", "203.0.113.82")
PLATFORM = "203.0.113.90"
SOURCE = "203.0.113.100"
NTP = "203.0.113.123"
NAMES = {
    f"resolver.{DOMAIN}": RESOLVER,
    f"portal.{DOMAIN}": PORTAL,
    f"probe.{DOMAIN}": PROBE,
    f"eins.{DOMAIN}": TARGETS[0],
    f"zwei.{DOMAIN}": TARGETS[1],
    f"lernplattform.{DOMAIN}": PLATFORM,
    f"quelle.{DOMAIN}": SOURCE,
    f"zeit.{DOMAIN}": NTP,
}
_NAME_OF = {address: name for name, address in NAMES.items()}


def name_of(address: str) -> str:
    """Return the name of one of the internet's hosts."""
    return _NAME_OF[address]


def ipv6_of(address: str) -> str:
    """Return the IPv6 address of one of the internet's hosts (documentation, RFC 3849)."""
    return f"2001:db8:ffff::{address.rpartition('.')[2]}"


class Internet:
    """Resolver, web servers, portal, time: all there from entering to leaving.

    Attributes:
        root: the authority that boards trust; `stranger` is one that they do not know.
    """

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.root = Root(folder, "root")
        self.stranger = Root(folder, "stranger")
        self.namespace = Namespace("internet")
        self._resolver = Dnsmasq(
            self.namespace,
            folder / "resolver.log",
            (
                "bind-interfaces",
                f"listen-address={RESOLVER}",
                "cache-size=0",
                f"local=/{DOMAIN}/",
                *(f"host-record={name},{at},{ipv6_of(at)}" for name, at in NAMES.items()),
            ),
        )
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self.namespace.close)
            self.namespace.write("ipv4/ip_forward", "1")
            self.namespace.write("ipv6/conf/all/forwarding", "1")
            self.namespace.ip(
                *(f"addr add {address}/32 dev lo" for address in NAMES.values()),
                *(f"addr add {ipv6_of(at)}/128 dev lo nodad" for at in NAMES.values()),
            )
            stack.callback(self._resolver.stop)
            self._resolver.start()
            for each in self._servers():
                stack.callback(each.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _servers(self) -> Iterator[HttpServer | UdpServer]:
        for address in (PROBE, SOURCE):
            yield HttpServer(self.loop, self.namespace, address, server.no_content)
        for address in (*TARGETS, PLATFORM):
            yield self.tls_server(self.namespace, address, server.page(name_of(address)))
        yield self.tls_server(self.namespace, PORTAL, portal)
        yield HttpServer(self.loop, self.namespace, PORTAL, portal)
        yield UdpServer(self.loop, self.namespace, (NTP, server.NTP_PORT), server.ntp)

    def tls_server(
        self,
        where: Namespace,
        address: str,
        answer: server.Answer,
        root: Root | None = None,
        valid: timedelta = VALID,
    ) -> HttpServer:
        """Start an HTTPS server at one of the internet's addresses, wherever that is just now."""
        context = (root or self.root).server(name_of(address), valid)
        return HttpServer(self.loop, where, address, answer, context=context)

    def connect(self, number: int, line: Namespace) -> None:
        """Lay a site's line: its interface `net` there, `s<number>` here."""
        here, there = f"100.65.{number}.1", f"100.65.{number}.2"
        here6, there6 = f"2001:db8:65:{number:x}::1", f"2001:db8:65:{number:x}::2"
        self.namespace.pair(f"s{number}", line, "net")
        self.namespace.ip(
            f"addr add {here}/30 dev s{number}",
            f"addr add {here6}/64 dev s{number} nodad",
            f"link set s{number} up",
        )
        line.ip(
            f"addr add {there}/30 dev net",
            f"addr add {there6}/64 dev net nodad",
            "link set net up",
            f"route add default via {here}",
            f"route add default via {here6}",
        )
        self.namespace.ip(
            f"route add 10.{number}.0.0/24 via {there}",
            f"route add 100.64.{number}.0/30 via {there}",
            f"route add 2001:db8:{number:x}::/64 via {there6}",
        )


def portal(path: str) -> Reply | None:
    """Answer as the public WLAN's login page and its RFC 8908 interface do."""
    answer = server.portal_api(captive=True) if path == "/api" else server.page("Stadt-WLAN")
    return answer(path)
