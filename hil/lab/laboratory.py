"""The whole lab: an internet, sites with their gateways, boards that are flashed and report.

    with Laboratory(folder, Size(sites=2, boards=2)) as lab:
        lab.break_("dns-dead", site="goethe-schule")
        …
        lab.heal()

It must be entered inside `namespace.enter()`. Everything runs for real: esptool flashes blank
boards, MicroPython runs the agent, dnsmasq leases and resolves, mosquitto and the collector take
the reports. Only the air is a model.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import tomli_w

from fleet import authority, file, inventory
from fleet.errors import NetzpulsError
from fleet.gateway import prepare
from fleet.gateway.settings import Folder
from hil.board import Settings, application
from hil.city import CITY_ID, Place
from hil.desk import flash_all
from hil.folder import emptied
from hil.lab import ground
from hil.lab import internet as net
from hil.lab.board import LabBoard
from hil.lab.console import Consoles
from hil.lab.error import FaultError, LabError
from hil.lab.fault import Fault, Scene, find
from hil.lab.gateway import LabGateway
from hil.lab.internet import Internet
from hil.lab.loop import Loop
from hil.lab.parallel import side_by_side
from hil.lab.site import Site
from provisioning.flash import FlashRequest, Progress

PERIOD_S = 8
BAUD = 2_000_000
BROKER_PORT = 8883
ROOTS_FILE = "internet.pem"
OTHER_SSID = "Bibliothek-WLAN"  # of the hotspots, too; their monitors watch it
_SCHOOLS = ("Goethe-Schule", "Schiller-Schule", "Leibniz-Schule", "Humboldt-Schule")
_HOTSPOTS = ("Marktplatz", "Bahnhof")
_FIRST_MAC = 0x240AC4200000  # 24:0a:c4 is one of Espressif's ranges
_FIRST_UP_PERIODS = 6
# Boards of the lab hurry: what is slow for them is sooner so than at one report a minute.
_LEASE_MS = 900
_RESOLVER_MS = 250
# In percent of the period. Round trips and retransmissions do not hurry with them, so a probe gets
# more of a cycle than by default; more than a whole one together, for not all fail at once.
_DEADLINE_SHARES = {
    "cycle": 91,
    "radio": 40,
    "association": 40,
    "addressing": 45,
    "gateway": 15,
    "resolver": 15,
    "portal": 19,
    "internet": 42,
    "service": 50,
    "throughput": 19,
}
_THROUGHPUT_BYTES = 64 << 10


@dataclass(frozen=True)
class Size:
    """How much of it there is.

    Attributes:
        sites: schools.
        boards: boards at each school: a classroom sensor, a monitor on the LAN, then sensors.
        hotspots: places with public WLAN and a login page, one monitor each.
    """

    sites: int = 1
    boards: int = 2
    hotspots: int = 0

    @property
    def all_boards(self) -> int:
        """How many boards there are in all."""
        return self.sites * self.boards + self.hotspots


@dataclass
class LabSite:
    """One site: its network, its gateway, its boards."""

    id: str
    name: str
    kind: str
    network: Site
    gateway: LabGateway
    boards: list[LabBoard] = field(default_factory=list)

    @property
    def gateway_id(self) -> str:
        """The gateway's name in the inventory."""
        return f"gw-{self.id}"


@dataclass(frozen=True)
class Active:
    """A fault that is there now."""

    fault: Fault
    scene: Scene
    begin_s: float
    stack: contextlib.ExitStack

    def clashes(self, fault: Fault, scene: Scene) -> bool:
        """Tell whether another fault would be in its way."""
        alone = not set(self.scene.boards) & set(scene.boards)
        if self.fault.one_board and fault.one_board and alone:
            return False
        return self.scene.site is scene.site and bool(self.fault.parts & fault.parts)


class Laboratory:
    """The lab from entering to leaving.

    Args:
        folder: where boards, gateways, logs and the city lie; an earlier lab's is removed.
        period_s: how often boards report.
        on_progress: told what is being done.

    Raises: NetzpulsError: a part could not be started.
    """

    def __init__(
        self,
        folder: Path,
        size: Size,
        *,
        period_s: int = PERIOD_S,
        on_progress: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.folder = folder.absolute()
        self.city = self.folder / "city"
        self.size = size
        self.period_s = period_s
        self.sites: dict[str, LabSite] = {}
        self.active: list[Active] = []
        self._say = on_progress
        self._lock = threading.RLock()
        self._image = self.folder / "stand-in.bin"
        self._stack = contextlib.ExitStack()

    @property
    def boards(self) -> list[LabBoard]:
        """All boards."""
        return [board for site in self.sites.values() for board in site.boards]

    def __enter__(self) -> Self:
        ground.check(self.folder)
        with contextlib.ExitStack() as stack:
            with ground.told(self.folder):
                self._build(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for active in reversed(self.active.copy()):
            with contextlib.suppress(NetzpulsError):  # what it broke ends anyway
                self.end(active)
        self._stack.close()

    # Building

    def _build(self, stack: contextlib.ExitStack) -> None:
        stack.enter_context(emptied(self.folder, "network lab", ground.OWN))
        ground.check_room(self.folder, self.size.all_boards)
        log = self.folder / "log"
        log.mkdir()
        self._image.write_bytes(application.build_image())
        loop = stack.enter_context(Loop())
        world = stack.enter_context(Internet(loop, log))
        for number in range(1, self.size.sites + self.size.hotspots + 1):
            site = self._site(number, stack, world, log)
            self.sites[site.id] = site
        key = secrets.token_urlsafe(12)
        for site in self.sites.values():
            self._plug_boards(site, key)
        self._write_city(world, key)
        count = len(self.sites)
        sites = "1 site and its" if count == 1 else f"{count} sites and their"
        self._say(f"{sites} internet are up; starting the gateways")
        for site in self.sites.values():
            self._prepare(site)
            stack.callback(site.gateway.stop)
        side_by_side(lambda site: site.gateway.start(), self.sites.values())
        self._say(f"flashing {len(self.boards)} blank boards with esptool")
        side_by_side(lambda board: self._start_board(board, stack), self.boards)
        flash_all(self.boards, self._request, self._prepare_all, self._flashing)
        stack.enter_context(Consoles(self.boards))
        self._say("the boards boot, join their WLAN and report")

    def _site(
        self, number: int, stack: contextlib.ExitStack, world: Internet, log: Path
    ) -> LabSite:
        hotspot = number - self.size.sites
        if hotspot > 0:
            spot = _HOTSPOTS[hotspot - 1] if hotspot <= len(_HOTSPOTS) else str(hotspot)
            kind, site_id, name = "hotspot", f"hotspot-{spot.lower()}", f"Hotspot {spot}"
        else:
            name = _SCHOOLS[number - 1] if number <= len(_SCHOOLS) else f"Schule {number}"
            kind, site_id = "school", name.lower().replace(" ", "-")
        network = Site(world.loop, world, log, number, captive=kind == "hotspot")
        stack.enter_context(network)
        folder = Folder(self.folder / f"gw-{site_id}")
        gateway = LabGateway(network.gateway, folder, log / f"gw-{site_id}.log")
        return LabSite(site_id, name, kind, network, gateway)

    def _plug_boards(self, site: LabSite, key: str) -> None:
        number = site.network.number
        count = self.size.boards if site.kind == "school" else 1
        for at in range(1, count + 1):
            is_monitor = site.kind == "hotspot" or at == 2
            place = Place(
                site.id,
                site.name,
                site.kind,
                f"{number}{at:02}",
                "ap-monitor" if is_monitor else "classroom-sensor",
            )
            mac = (_FIRST_MAC + (number << 8) + 4 * at).to_bytes(6, "big")
            site.boards.append(LabBoard(place, site.network, at, mac=mac, radio=_radio(site, key)))

    def _start_board(self, board: LabBoard, stack: contextlib.ExitStack) -> None:
        name = self.folder / f"board-{board.place.room}"
        air = name.with_suffix(".radio.json")
        air.write_text(json.dumps(board.radio), encoding="utf-8")
        settings = Settings(
            link=name,
            log=name.with_suffix(".log"),
            flash=name.with_suffix(".flash"),
            radio=air,
            mac=board.mac,
            instant=True,
            interfaces=("wl0",),
            lan="eth0" if board.role == "ap-monitor" else None,
        )
        board.start(settings)
        with self._lock:
            stack.callback(board.process.stop)

    def _request(self, board: LabBoard) -> FlashRequest:
        return FlashRequest(
            city=self.city,
            port=str(board.link),
            site=board.place.site,
            room=board.place.room,
            role=board.place.role,
            image=self._image,
            baud=BAUD,
            hardware="wired" if board.role == "ap-monitor" else None,
        )

    def _flashing(self, board: LabBoard, step: Progress) -> None:
        if step.stage == "enrol":
            self._say(f"{board.place.site_name} {board.place.room}: flashed, tested, enrolled")

    def _prepare_all(self) -> None:
        for site in self.sites.values():
            self._prepare(site)

    def _prepare(self, site: LabSite) -> None:
        city = inventory.load(self.city)
        ca = authority.ensure(self.city, CITY_ID)
        prepare.apply(
            prepare.plan(
                city,
                ca,
                site.gateway_id,
                site.gateway.folder,
                listen="0.0.0.0",  # noqa: S104 - of its own namespace
                port=BROKER_PORT,
            )
        )

    def _write_city(self, world: Internet, key: str) -> None:
        self.city.mkdir()
        document = _inventory(self.sites.values(), self.period_s)
        file.write(self.city / inventory.INVENTORY_FILE, tomli_w.dumps(document))
        file.write(self.city / ROOTS_FILE, world.root.path.read_text())
        secret = file.secret_folder(self.city / inventory.SECRETS_FOLDER)
        file.write(secret / "wlan.toml", tomli_w.dumps({"key": {"school": key}}), file.PRIVATE)

    # Use

    def wait_up(self, timeout_s: float | None = None) -> None:
        """Wait until every board says `up`.

        Raises: LabError: one does not; with what it says.
        """
        deadline = time.monotonic() + (timeout_s or 10 + _FIRST_UP_PERIODS * self.period_s)
        for board in self.boards:
            told = board.wait(
                0, lambda all_: bool(all_) and all_[-1].state == "up", deadline - time.monotonic()
            )
            if not told or told[-1].state != "up":
                said = f"{told[-1].state}: {told[-1].reason}" if told else "nothing"
                raise LabError(
                    f"{board.id} at {board.place.site_name} {board.place.room} says {said}",
                    hint=f"it printed: {board.log}; other logs: {self.folder / 'log'}",
                )

    def site(self, site_id: str | None, kind: str) -> LabSite:
        """Return a site; without a name the first of a kind.

        Raises: FaultError: there is none.
        """
        known = ", ".join(self.sites)
        if site_id is not None and site_id not in self.sites:
            raise FaultError(f"no site {site_id!r} in this lab", hint=f"sites here: {known}")
        if site_id is not None:
            return self.sites[site_id]
        for site in self.sites.values():
            if site.kind == kind:
                return site
        raise FaultError(
            f"this lab has no {kind}",
            hint="start one with: netzpuls lab up --hotspots 1",
        )

    def board(self, wanted: str) -> LabBoard:
        """Return a board by its id or room.

        Raises: FaultError: there is none.
        """
        for board in self.boards:
            if _is(board, wanted):
                return board
        known = ", ".join(f"{board.id} ({board.place.room})" for board in self.boards)
        raise FaultError(f"no board {wanted!r} in this lab", hint=f"boards here: {known}")

    def scene(self, fault: Fault, site_id: str | None, board_id: str | None) -> Scene:
        """Return where a fault is to be made.

        Raises: FaultError: no such site or board, or the fault does not fit it.
        """
        if board_id is not None and site_id is None:
            site_id = next((b.place.site for b in self.boards if _is(b, board_id)), None)
        site = self.site(site_id, fault.kind)
        if site.kind != fault.kind:
            fitting = [each.id for each in self.sites.values() if each.kind == fault.kind]
            raise FaultError(
                f"{fault.name} is made at a {fault.kind}; {site.id} is a {site.kind}",
                hint=f"sites that it fits: {', '.join(fitting) or 'none'}",
            )
        boards = tuple(board for board in site.boards if board.role in fault.roles)
        if board_id is not None:
            boards = tuple(board for board in boards if _is(board, board_id))
            if not boards:
                known = ", ".join(f"{b.id} ({b.place.room})" for b in site.boards)
                raise FaultError(
                    f"no board {board_id!r} at {site.id} that {fault.name} fits",
                    hint=f"boards there: {known}",
                )
            if not fault.one_board:
                raise FaultError(
                    f"{fault.name} strikes the whole site, not one board",
                    hint="leave --board out",
                )
        return Scene(self, site, boards)

    def break_(self, name: str, site: str | None = None, board: str | None = None) -> Active:
        """Make a fault; it stays until it is healed.

        Raises: FaultError: no such fault, not here, or another one is in its way.
        """
        fault = find(name)
        with self._lock:
            scene = self.scene(fault, site, board)
            for other in self.active:
                if other.clashes(fault, scene):
                    if other.fault is fault:
                        raise FaultError(
                            f"{name} is at {scene.site.id} already",
                            hint=f"to end it: netzpuls lab heal {name}",
                        )
                    raise FaultError(
                        f"{other.fault.name} is in the way of {name} at {scene.site.id}",
                        hint=f"heal it first: netzpuls lab heal {other.fault.name}",
                    )
            placeholder = contextlib.ExitStack()
            active = Active(fault, scene, time.monotonic(), placeholder)
            self.active.append(active)
        try:
            placeholder.enter_context(fault.apply(scene))
        except BaseException:
            self._forget(active)
            raise
        return active

    def heal(self, name: str | None = None, site: str | None = None) -> list[Active]:
        """End a fault wherever it is, or all; return which.

        Raises: FaultError: it is not there, or the site is not.
        """
        if site is not None:
            self.site(site, "")
        with self._lock:
            found = [
                each
                for each in self.active
                if name in (None, each.fault.name) and site in (None, each.scene.site.id)
            ]
        if name is not None and not found:
            now = ", ".join(sorted({each.fault.name for each in self.active})) or "none"
            raise FaultError(f"no fault {name!r} is active", hint=f"active: {now}")
        for each in reversed(found):
            self.end(each)
        return found

    def end(self, active: Active) -> None:
        """End one fault."""
        self._forget(active)
        active.stack.close()

    def _forget(self, active: Active) -> None:
        with self._lock:
            if active in self.active:
                self.active.remove(active)

    def faults_of(self, board: LabBoard) -> list[str]:
        """Return the names of the faults that strike a board now."""
        with self._lock:
            return [each.fault.name for each in self.active if board in each.scene.boards]

    def document(self) -> dict[str, Any]:
        """Return what is going on, as `lab status --json` prints it."""
        now_s = time.monotonic()
        return {
            "folder": str(self.folder),
            "period_s": self.period_s,
            "boards": [
                {
                    "board": board.id,
                    "site": board.place.site,
                    "room": board.place.room,
                    "role": board.role,
                    "link": str(board.link),
                    "faults": self.faults_of(board),
                    "verdict": board.last.verdict if board.last else None,
                    "state": board.last.state if board.last else None,
                    "layer": board.last.layer if board.last else None,
                    "seq": board.last.seq if board.last else 0,
                    "age_s": round(now_s - board.last.at_s, 1) if board.last else None,
                }
                for board in self.boards
            ],
        }


def _is(board: LabBoard, wanted: str) -> bool:
    return wanted in (board.id, board.place.room)


def _radio(site: LabSite, key: str) -> dict[str, Any]:
    """Return the air at a site: two access points of its own, two of neighbours."""
    number, school = site.network.number, site.kind == "school"

    def point(at: int, channel: int, rssi_dbm: int) -> dict[str, Any]:
        return {
            "ssid": "Schule" if school else "Musterstadt-WLAN",
            "bssid": _bssid(number, at),
            "channel": channel,
            "rssi_dbm": rssi_dbm,
            "security": "wpa2-psk" if school else "open",
            "key": key if school else "",
            "network": {"interface": "wl0"},
        }

    neighbours = [
        {
            "ssid": f"Nachbar {at}",
            "bssid": f"02:00:5e:00:56:{16 * number + at:02x}",
            "channel": channel,
            "rssi_dbm": -78,
            "security": "wpa2-psk",
            "key": "a neighbour's key",
        }
        for at, channel in ((1, 1), (2, 6))
    ]
    own = [point(1, 6, -52), point(2, 11, -66)]
    if not school:
        own.append(point(3, 1, -58) | {"ssid": OTHER_SSID})
    return {"access_points": [*own, *neighbours]}


def _bssid(number: int, at: int) -> str:
    return f"a4:2b:b0:00:{number:02x}:{at:02x}"


def _inventory(sites: Any, period_s: int) -> dict[str, Any]:
    """Return the lab's inventory: the real one, as docs/inventory.md describes it."""
    portal = {"host": net.name_of(net.PORTAL), "address": net.PORTAL}
    return {
        "version": 1,
        "city": {"id": CITY_ID, "name": "Musterstadt"},
        "measurement": {
            "period_s": period_s,
            "ntp": net.name_of(net.NTP),
            "roots": ROOTS_FILE,
            "resolver": {
                "name": net.name_of(net.PROBE),
                "address": net.PROBE,
                "reference": net.RESOLVER,
            },
            "internet": {"host": net.name_of(net.PROBE), "address": net.PROBE},
            "target": [{"host": net.name_of(at), "address": at} for at in net.TARGETS],
            "service": [{"name": "Lernplattform", "host": net.name_of(net.PLATFORM)}],
            "throughput": {
                "host": net.name_of(net.SOURCE),
                "address": net.SOURCE,
                "path": f"/bytes/{_THROUGHPUT_BYTES}",
                "bytes": _THROUGHPUT_BYTES,
                "every": 1,
            },
            "thresholds": {"lease_ms": _LEASE_MS, "resolver_ms": _RESOLVER_MS},
            "deadline_ms": {
                name: share * period_s * 1000 // 100 for name, share in _DEADLINE_SHARES.items()
            },
        },
        "wlan": {
            "school": {"ssid": "Schule", "security": "wpa2-psk"},
            "hotspot": {
                "ssid": "Musterstadt-WLAN",
                "security": "open",
                "portal": portal,
            },
            "other": {"ssid": OTHER_SSID, "security": "open", "portal": portal},
        },
        "hardware": {"wired": {"lan": "olimex-esp32-poe"}},
        "district": {"mitte": {"name": "Mitte"}},
        "gateway": {
            site.gateway_id: {
                "host": str(site.network.gateway_address),
                "broker_host": str(site.network.gateway_address),
                "broker_port": BROKER_PORT,
                "data_dir": str(site.gateway.folder.path),
            }
            for site in sites
        },
        "site": {
            site.id: {
                "name": site.name,
                "kind": site.kind,
                "district": "mitte",
                "gateway": site.gateway_id,
                "wlan": site.kind,
                "watch": ["other"] if site.kind == "hotspot" else [],
                "rooms": [board.place.room for board in site.boards],
                "bssids": {site.kind: [_bssid(site.network.number, at) for at in (1, 2)]},
                "dhcp_servers": [str(site.network.router_address)],
            }
            for site in sites
        },
    }
