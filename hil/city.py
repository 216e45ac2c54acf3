"""A whole virtual city on loopback, made of real parts.

    with VirtualCity(folder, boards=6) as city:
        city.flash(on_progress)
        city.line("goethe-schule", up=False)
        …

esptool flashes the boards, MicroPython runs on them, mosquitto and the collector are the
gateway, OpenSSH's server lets the fleet tool in. Only the air and the copper are models
(`hil.board.radio`). The city's folder stays when all else has ended.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet import authority, file, inventory
from fleet.errors import BenchError
from fleet.gateway import prepare
from fleet.gateway.settings import Folder
from fleet.inventory import Role
from fleet.text import printable
from hil.board import BoardProcess, Settings, application
from hil.desk import flash_all
from hil.folder import emptied
from hil.gateway import GatewayProcess, Part
from hil.site import LOOPBACK, Internet, Router
from hil.sshd import SshServer
from hil.workbench import TABLES, WLAN_ID, Workbench, free_port, route
from provisioning.flash import Flashed, FlashRequest, Progress

CITY_ID = "musterstadt"
GATEWAY_ID = "gw-musterstadt"
BAUD = 2_000_000  # the fastest that common adapters do
# What boards see. The gateway stands in the city's own network, so that a school whose internet
# line is cut still reports; 203.0.113.0/24 is for documentation (RFC 5737).
BROKER_ADDRESS = "10.200.0.2"
BROKER_PORT = 8883
TARGET_ADDRESS = "203.0.113.80"
TARGET_NAME = "probe.netzpuls.example"
_NAMES = (TARGET_NAME, "pool.ntp.org")

_SCHOOLS = ("Goethe-Schule", "Schiller-Schule", "Leibniz-Schule", "Humboldt-Schule")
_HOTSPOTS = ("Marktplatz", "Bahnhof")
_FIRST_MAC = 0x240AC4100001  # 24:0a:c4 is one of Espressif's ranges
_DRAIN_S = 60.0
# All names that a city gives in its folder.
_OWN = (
    "city",
    "gateway",
    "gateway.log",
    "bench.log",
    "ssh_key*",
    "sshd",
    "stand-in.bin",
    "board[0-9]*",
)
_DRAIN = "from agent.supervisor import drain; drain()"


@dataclass(frozen=True)
class Place:
    """Where one board hangs."""

    site: str
    site_name: str
    kind: str
    room: str
    role: Role


def places(boards: int) -> list[Place]:
    """Return where so many boards hang: two schools, two hotspots, then more schools."""
    found: list[Place] = []

    def school(number: int) -> None:
        name = _SCHOOLS[number] if number < len(_SCHOOLS) else f"Schule {number + 1}"
        site = name.lower().replace(" ", "-")
        found.extend(
            Place(site, name, "school", f"{number + 1}{room:02}", "classroom-sensor")
            for room in (1, 2)
        )

    school(0)
    school(1)
    found.extend(
        Place(f"hotspot-{spot.lower()}", f"Hotspot {spot}", "hotspot", spot, "ap-monitor")
        for spot in _HOTSPOTS
    )
    while len(found) < boards:
        school((len(found) - len(_HOTSPOTS)) // 2)
    return found[:boards]


class VirtualBoard:
    """One board at its place, running in a process of its own."""

    def __init__(self, place: Place, process: BoardProcess, ssid: str) -> None:
        self.place = place
        self.process = process
        self.ssid = ssid
        self.id = "np-" + process.settings.mac.hex()

    def drain(self) -> dict[str, int]:
        """Let the board send the rest of its spool and tell its own count, over mpremote.

        Returns: `made`, `spooled`, `lost`: reports ever made under this key, still held, dropped.
        Raises: BenchError: it does not answer, or not with its counts.
        """
        command = ["connect", str(self.process.link), "resume", "exec", _DRAIN]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "mpremote", *command],
                capture_output=True,
                timeout=_DRAIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.id} did not empty its spool in {_DRAIN_S:.0f} s") from None
        for line in reversed(done.stdout.splitlines()):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told = json.loads(line)
                return {name: int(told[name]) for name in ("made", "spooled", "lost")}
        raise BenchError(
            f"{self.id} did not tell its counts: "
            + (printable((done.stderr or done.stdout)[-200:]) or "it said nothing")
        )


class VirtualCity:
    """Boards, sites, gateway and SSH server, from entering to leaving.

    Args:
        folder: where all of it lies; what an earlier run left there is removed.
        boards: how many.
        period_s: how often a board reports.
        baud: speed of the serial lines while flashing.
        instant: no line speed and no flash times.
        has_bench: the desk has a bench, and boards are tested there.

    Raises: NetzpulsError: a part could not be started.
    """

    def __init__(
        self,
        folder: Path,
        boards: int,
        *,
        period_s: int,
        baud: int = BAUD,
        instant: bool = False,
        has_bench: bool = False,
    ) -> None:
        self.folder = folder.absolute()
        self.city = self.folder / "city"
        self.gateway = Folder(self.folder / "gateway")
        self.places = places(boards)
        self.boards: list[VirtualBoard] = []
        self._period_s = period_s
        self._baud = baud
        self._instant = instant
        self._has_bench = has_bench
        self._image = self.folder / "stand-in.bin"
        self._routers: dict[str, Router] = {}
        self._broker_port = 0
        self._gateway = GatewayProcess(self.gateway, self.folder / "gateway.log")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def sites(self) -> dict[str, list[VirtualBoard]]:
        """The boards of each site."""
        found: dict[str, list[VirtualBoard]] = {}
        for board in self.boards:
            found.setdefault(board.place.site, []).append(board)
        return found

    def flash(self, on_progress: Callable[[VirtualBoard, Progress], None]) -> list[Flashed]:
        """Flash, test and enrol all boards side by side; each one's key goes to the gateway."""

        def request(board: VirtualBoard) -> FlashRequest:
            return FlashRequest(
                city=self.city,
                port=str(board.process.link),
                site=board.place.site,
                room=board.place.room,
                role=board.place.role,
                image=self._image,
                baud=self._baud,
            )

        return flash_all(self.boards, request, self._prepare, on_progress)

    def committed(self) -> dict[str, set[tuple[int, int]]]:
        """Return key id and sequence number of every report on the gateway's disk, by board."""
        found: dict[str, set[tuple[int, int]]] = {}
        where = f"file:{self.gateway.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(where, uri=True)) as connection:
            for board, key_id, seq in connection.execute("SELECT device, key_id, seq FROM report"):
                found.setdefault(board, set()).add((key_id, seq))
        return found

    def line(self, site: str, *, up: bool) -> None:
        """Cut or restore a site's internet line."""
        self._routers[site].line_up = up
        for board in self.sites[site]:
            board.process.control.line(board.ssid, up=up)

    def kill(self, part: Part) -> int:
        """Kill the gateway's broker or collector by SIGKILL; return the process id."""
        return self._gateway.send(part, signal.SIGKILL)

    def retire_gateway(self) -> int:
        """Stop the gateway; return the port of loopback where boards go on looking for one."""
        self._gateway.stop()
        return self._broker_port

    def _build(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(emptied(self.folder, "virtual city", _OWN))
        self._image.write_bytes(application.build_image())
        sshd = stack.enter_context(self._ssh_server())
        internet = stack.enter_context(Internet())
        for number, site in enumerate(dict.fromkeys(place.site for place in self.places), 1):
            self._routers[site] = stack.enter_context(
                Router(f"10.{number}.0.1", dict.fromkeys(_NAMES, TARGET_ADDRESS))
            )
        broker_port = self._broker_port = free_port()
        key, bench_key = secrets.token_urlsafe(12), secrets.token_urlsafe(12)
        self._write_city(sshd, {"school": key, WLAN_ID: bench_key})
        self._prepare(broker_port)
        # Boards end with the thread that started them, so the threads stay as long as the city.
        starters = stack.enter_context(ThreadPoolExecutor(len(self.places), "board"))
        stack.callback(self._gateway.stop)
        self._gateway.start()
        radios = [self._radio(at, internet, broker_port, key) for at in range(len(self.places))]
        bench = None
        if self._has_bench:
            bench = Workbench(self.city, self.folder / "bench.log", internet, bench_key)
            stack.enter_context(bench)
            for at, radio in enumerate(radios):
                radio["access_points"].append(bench.access_point(at))
        started = [starters.submit(self._start_board, at, r) for at, r in enumerate(radios)]
        try:
            for place, future, radio in zip(self.places, started, radios, strict=True):
                process = future.result()
                ssid = str(radio["access_points"][0]["ssid"])
                self.boards.append(VirtualBoard(place, process, ssid))
        finally:
            for future in started:
                if future.exception() is None:
                    stack.callback(future.result().stop)
        self._gateway.wait_ready()
        if bench:
            bench.gateway.wait_ready()

    def _ssh_server(self) -> SshServer:
        private = Ed25519PrivateKey.generate()
        key = self.folder / "ssh_key"
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        file.write(key, pem, file.PRIVATE)
        public = private.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        # What runs behind it is the Netzpuls that runs this.
        environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
        return SshServer(self.folder / "sshd", public.decode(), environment=environment)

    def _write_city(self, sshd: SshServer, wlan_keys: dict[str, str]) -> None:
        sites: dict[str, dict[str, Any]] = {}
        for place in self.places:
            site = sites.setdefault(
                place.site,
                {
                    "name": place.site_name,
                    "kind": place.kind,
                    "district": "mitte",
                    "gateway": GATEWAY_ID,
                    "wlan": place.kind,
                    "rooms": [],
                },
            )
            site["rooms"].append(place.room)
        document = {
            "version": 1,
            "city": {"id": CITY_ID, "name": "Musterstadt"},
            "measurement": {
                "period_s": self._period_s,
                "resolver": {"name": TARGET_NAME, "address": TARGET_ADDRESS},
                "internet": {"host": TARGET_NAME, "address": TARGET_ADDRESS},
            },
            "wlan": {
                "school": {"ssid": "Schule", "security": "wpa2-psk"},
                "hotspot": {"ssid": "Musterstadt-WLAN", "security": "open"},
                **TABLES["wlan"],
            },
            **({"bench": TABLES["bench"]} if self._has_bench else {}),
            "district": {"mitte": {"name": "Mitte"}},
            "gateway": {
                GATEWAY_ID: {
                    "host": sshd.host,
                    "ssh_port": sshd.port,
                    "user": sshd.user,
                    "host_key": sshd.host_key,
                    "identity_file": str(self.folder / "ssh_key"),
                    "data_dir": str(self.gateway.path),
                    "broker_host": BROKER_ADDRESS,
                    "broker_port": BROKER_PORT,
                }
            },
            "site": sites,
        }
        self.city.mkdir()
        file.write(self.city / inventory.INVENTORY_FILE, tomli_w.dumps(document))
        secret = file.secret_folder(self.city / inventory.SECRETS_FOLDER)
        file.write(secret / "wlan.toml", tomli_w.dumps({"key": wlan_keys}), file.PRIVATE)

    def _prepare(self, broker_port: int | None = None) -> None:
        city = inventory.load(self.city)
        ca = authority.ensure(self.city, CITY_ID)
        prepare.apply(
            prepare.plan(city, ca, GATEWAY_ID, self.gateway, listen=LOOPBACK, port=broker_port)
        )

    def _radio(
        self, at: int, internet: Internet, broker_port: int, wlan_key: str
    ) -> dict[str, Any]:
        place = self.places[at]
        router = self._routers[place.site]
        network = router.address.rsplit(".", 1)[0]
        school = place.kind == "school"
        return {
            "access_points": [
                {
                    "ssid": "Schule" if school else "Musterstadt-WLAN",
                    "bssid": f"a4:2b:b0:00:00:{at + 1:02x}",
                    "channel": (1, 6, 11)[at % 3],
                    "rssi_dbm": -52 - 3 * at % 20,
                    "security": "wpa2-psk" if school else "open",
                    "key": wlan_key if school else "",
                    "network": {
                        "address": f"{network}.{20 + at}",
                        "netmask": "255.255.255.0",
                        "gateway": router.address,
                        "resolver": router.address,
                        "routes": [
                            route("icmp", router.address, 0, router.icmp_port),
                            route("udp", router.address, 53, router.resolver_port),
                            route("tcp", BROKER_ADDRESS, BROKER_PORT, broker_port),
                            route("tcp", TARGET_ADDRESS, 80, internet.port) | {"line": True},
                            route("udp", TARGET_ADDRESS, 123, internet.ntp_port) | {"line": True},
                        ],
                    },
                }
            ]
        }

    def _start_board(self, at: int, radio: dict[str, Any]) -> BoardProcess:
        name = self.folder / f"board{at + 1}"
        air = name.with_suffix(".radio.json")
        air.write_text(json.dumps(radio), encoding="utf-8")
        return BoardProcess(
            Settings(
                link=name,
                flash=name.with_suffix(".flash"),
                radio=air,
                mac=(_FIRST_MAC + at).to_bytes(6, "big"),
                instant=self._instant,
            )
        )
