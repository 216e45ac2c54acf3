"""The inventory: what a city has, written by people; and the registry of its boards.

A city's folder holds

    inventory.toml   city, districts, sites, rooms, WLANs, gateways (see docs/inventory.md)
    registry.toml    the boards; written by `netzpuls board`, read by people and git
    ca.pem, boards/  public certificates
    secrets/         mode 0700, never in git: CA key, WLAN keys, report keys, the hash key
    store/           what was collected

Unknown keys are errors: a mistyped threshold must not be a threshold that is ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from ipaddress import IPv4Address
from pathlib import Path
from shlex import split
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, StringConstraints

from fleet import document
from fleet.document import Table
from fleet.errors import ConfigurationError, UsageError

INVENTORY_FILE = "inventory.toml"
REGISTRY_FILE = "registry.toml"
SECRETS_FOLDER = "secrets"
NO_HARDWARE = "none"

# An id becomes a certificate's CN and part of a topic: a "/" or "+" there would widen the
# broker's access rules.
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
BoardId = Annotated[str, StringConstraints(pattern=r"^np-[0-9a-f]{12}$")]
Mac = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]
Bssids = Annotated[list[Mac], Field(max_length=32)]
Port = Annotated[int, Field(ge=1, le=65535)]
Milliseconds = Annotated[int, Field(ge=1, le=60_000)]
Text = Annotated[str, StringConstraints(min_length=1)]
UrlPath = Annotated[str, StringConstraints(pattern=r"^/[!-~]{0,254}$")]
# An ESP32's outputs; the others are the console's and the flash chip's, or not there at all
# (firmware/agent/config.py).
PIN_MAX, PINS_TAKEN = 33, {1, 3, 6, 7, 8, 9, 10, 11, 24, 28, 29, 30, 31}


def _pin(number: int) -> int:
    if number in PINS_TAKEN:
        raise ValueError("must be a pin there is, no pin of the console (1, 3) or flash (6 to 11)")
    return number


Pin = Annotated[int, Field(ge=0, le=PIN_MAX), AfterValidator(_pin)]
Lamps = Annotated[list[Pin], Field(min_length=3, max_length=3)]
Role = Literal["classroom-sensor", "ap-monitor"]
Deadline = Literal[
    "cycle",
    "radio",
    "association",
    "addressing",
    "gateway",
    "resolver",
    "portal",
    "internet",
    "service",
    "throughput",
]
# Presets of firmware/port/lan.py; these pins are the Ethernet's on all of them (RMII, MDC, MDIO).
Lan = Literal[
    "esp32-ethernet-kit",
    "lilygo-t-internet-poe",
    "olimex-esp32-gateway",
    "olimex-esp32-poe",
    "wt32-eth01",
]
LAN_PINS = {18, 19, 21, 22, 23, 25, 26, 27}
Sensor = Literal["scd4x", "sht4x", "bme280"]
Security = Literal["open", "wpa2-psk", "wpa3-sae", "wpa2-enterprise"]


def _ssid(text: str) -> str:
    if not 1 <= len(text.encode()) <= 32:
        raise ValueError("an SSID has 1 to 32 bytes")
    return text


def _label(text: str) -> str:
    if not 1 <= len(text.encode()) <= 32:
        raise ValueError("a name here has 1 to 32 bytes")
    return text


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError(f"{text!r} is no IPv4 address") from None


def _address_or_none(text: str) -> str:
    return _address(text) if text else ""


def _rising(levels: list[int]) -> list[int]:
    if levels != sorted(set(levels)):
        raise ValueError("the second level must be above the first")
    return levels


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"no time zone {name!r} on this machine") from error
    return name


def _command(text: str) -> str:
    if not split(text):
        raise ValueError("no command")
    return text


class City(Table):
    """The city itself."""

    id: Id
    name: str
    timezone: Annotated[str, AfterValidator(_timezone)] = "Europe/Berlin"


Address = Annotated[str, AfterValidator(_address)]


class ResolverTarget(Table):
    """A name that every resolver must answer with one known address.

    `reference` is a resolver beyond the sites' lines that is asked the same; "" for none.
    """

    name: str
    address: Address
    reference: Annotated[str, AfterValidator(_address_or_none)] = ""


class InternetTarget(Table):
    """An HTTP server beyond the site's line that answers 204."""

    address: Address
    port: Port = 80
    host: str
    path: UrlPath = "/generate_204"


class TlsTarget(Table):
    """A server beyond the site's line whose certificate one of the roots vouches for."""

    address: Address
    port: Port = 443
    host: str


class Service(Table):
    """A web page that people need; `status` is the HTTP status that says it is well."""

    name: Annotated[str, AfterValidator(_label)]
    host: str
    tls: bool = True
    port: Port | None = None
    path: UrlPath = "/"
    status: Annotated[int, Field(ge=100, le=599)] = 200


class Throughput(Table):
    """A file that a board fetches every so many cycles; of it `bytes` at most."""

    address: Address
    port: Port = 80
    host: str
    path: UrlPath
    bytes: Annotated[int, Field(ge=16 << 10, le=16 << 20)] = 256 << 10
    every: Annotated[int, Field(ge=1, le=65535)] = 60


class Thresholds(Table):
    """Where `up` ends and `degraded` begins; for `co2_ppm` where yellow and red begin."""

    rssi_dbm: Annotated[int, Field(ge=-100, le=-20)] = -75
    crowded_networks: Annotated[int, Field(ge=1, le=255)] = 8
    lease_ms: Milliseconds = 3000
    gateway_loss_percent: Annotated[int, Field(ge=1, le=100)] = 10
    gateway_rtt_ms: Milliseconds = 100
    resolver_ms: Milliseconds = 500
    internet_ms: Milliseconds = 1000
    throughput_kbit_s: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    service_ms: Milliseconds = 3000
    certificate_days: Annotated[int, Field(ge=0, le=1000)] = 14
    co2_ppm: Annotated[
        list[Annotated[int, Field(ge=400, le=40_000)]],
        Field(min_length=2, max_length=2),
        AfterValidator(_rising),
    ] = Field(default_factory=lambda: [1000, 2000])


class Measurement(Table):
    """What every board measures and how often.

    `roots` is a PEM file beside the inventory: the public certificates that vouch for the TLS
    targets and services.
    """

    period_s: Annotated[int, Field(ge=1, le=3600)] = 60
    ntp: str = "pool.ntp.org"
    roots: Text | None = None
    resolver: ResolverTarget
    internet: InternetTarget
    target: Annotated[list[TlsTarget], Field(max_length=2)] = Field(default_factory=list)
    service: Annotated[list[Service], Field(max_length=4)] = Field(default_factory=list)
    throughput: Throughput | None = None
    thresholds: Thresholds = Thresholds()
    deadline_ms: dict[Deadline, Milliseconds] = Field(default_factory=dict)


class Portal(Table):
    """The login page that a public WLAN shows first."""

    address: Address
    port: Port | None = None
    host: str
    path: UrlPath = "/"
    tls: bool = True


class Wlan(Table):
    """A WLAN that boards join; its key stands in secrets/wlan.toml under the same id."""

    ssid: Annotated[str, AfterValidator(_ssid)]
    security: Security = "wpa2-psk"
    bssids: Bssids = Field(default_factory=list)
    portal: Portal | None = None


class I2c(Table):
    """The pins of the sensors' bus."""

    sda: Pin
    scl: Pin


class Hardware(Table):
    """What hangs on a board besides its chip; `lan` is a preset.

    `led` is a pin, `light` that of a ring of WS2812, or the pins of a green, yellow and red lamp.
    """

    lan: Lan | None = None
    sensors: Annotated[list[Sensor], Field(max_length=3)] = Field(default_factory=list)
    i2c: I2c | None = None
    light: Pin | Lamps | None = None
    led: Pin | None = None


class District(Table):
    """A part of the city."""

    name: str


class Jump(Table):
    """A host that SSH passes through on its way to gateways."""

    host: Text
    ssh_port: Port = 22
    user: Text
    host_key: str | None = None


class Gateway(Table):
    """A host at a site: broker and collector for the boards there."""

    host: Text
    ssh_port: Port = 22
    user: Text = "netzpuls"
    host_key: str | None = None
    identity_file: str | None = None
    jump: Id | None = None
    command: Annotated[str, AfterValidator(_command)] = "netzpuls"
    data_dir: Text = "/var/lib/netzpuls"
    broker_host: Text
    broker_port: Port = 8883


class Site(Table):
    """A school or a hotspot: one line to the internet, with rooms or spots.

    Attributes:
        watch: further WLANs that ap-monitors join in turn.
        bssids: the site's own access points by WLAN; goes before those of the WLAN.
        dhcp_servers: who may give addresses here; empty: anybody.
        service: goes before those of the measurement.
    """

    name: str
    kind: Literal["school", "hotspot", "office"] = "school"
    district: Id
    gateway: Id
    wlan: Id
    rooms: Annotated[list[str], Field(min_length=1)]
    watch: Annotated[list[Id], Field(max_length=3)] = Field(default_factory=list)
    bssids: dict[Id, Bssids] = Field(default_factory=dict)
    dhcp_servers: Annotated[list[Address], Field(max_length=8)] = Field(default_factory=list)
    service: Annotated[list[Service], Field(max_length=4)] | None = None


class Stay(Table):
    """A time in which a board hung in a room, and that is over.

    Attributes:
        since: None is from its first report on.
        replaced_by: the board that took its place.
    """

    site: Id
    room: str
    since: datetime | None = None
    until: datetime
    replaced_by: BoardId | None = None


class Board(Table):
    """One board, as the registry knows it. Holds no secret.

    Attributes:
        since: since when it hangs there; None is from its first report on.
        retired: when it was taken out of service.
        replaced_by: the board that took its place then.
        revoked: since when nothing is believed that it says; `revoked_because` is people's reason.
        earlier: where it hung before, the first place first.
    """

    site: Id
    room: str
    since: datetime | None = None
    role: Role
    hardware: Id | None = None
    key_id: Annotated[int, Field(ge=1, le=65535)]
    chip: str
    mac: Mac
    agent: str
    enrolled: datetime
    certificate_expires: datetime
    retired: datetime | None = None
    replaced_by: BoardId | None = None
    revoked: datetime | None = None
    revoked_because: Text | None = None
    earlier: list[Stay] = Field(default_factory=list)


class _InventoryFile(Table):
    version: Literal[1]
    city: City
    measurement: Measurement
    wlan: dict[Id, Wlan]
    district: dict[Id, District]
    gateway: dict[Id, Gateway]
    site: dict[Id, Site]
    jump: dict[Id, Jump] = Field(default_factory=dict)
    hardware: dict[Id, Hardware] = Field(default_factory=dict)


class _RegistryFile(Table):
    version: Literal[1]
    board: dict[BoardId, Board] = Field(default_factory=dict)


class Inventory:
    """A city's inventory and registry, read and checked as one.

    Attributes: `folder` and the tables by id: `districts`, `sites`, `gateways`, `jumps`,
        `wlans`, `hardware`, `boards`; `city` and `measurement`.
    """

    def __init__(self, folder: Path, file: _InventoryFile, registry: _RegistryFile) -> None:
        self.folder = folder
        self.city = file.city
        self.measurement = file.measurement
        self.wlans: Mapping[str, Wlan] = file.wlan
        self.hardware: Mapping[str, Hardware] = file.hardware
        self.districts: Mapping[str, District] = file.district
        self.gateways: Mapping[str, Gateway] = file.gateway
        self.jumps: Mapping[str, Jump] = file.jump
        self.sites: Mapping[str, Site] = file.site
        self.boards: Mapping[str, Board] = registry.board

    @property
    def secrets(self) -> Path:
        """The folder that never goes into git."""
        return self.folder / SECRETS_FOLDER

    def site(self, site_id: str) -> Site:
        """Return a site.

        Raises: UsageError: the inventory has no such site.
        """
        try:
            return self.sites[site_id]
        except KeyError:
            raise UsageError(
                f"no site {site_id!r} in {self.folder / INVENTORY_FILE}",
                hint=f"sites there: {', '.join(sorted(self.sites)) or 'none'}",
            ) from None

    def room(self, site_id: str, room: str) -> str:
        """Return the room's name if the site has it.

        Raises: UsageError: no such site or room.
        """
        rooms = self.site(site_id).rooms
        if room not in rooms:
            raise UsageError(
                f"site {site_id!r} has no room {room!r}",
                hint=f"rooms there: {', '.join(rooms)}; add it to {INVENTORY_FILE} if it is new",
            )
        return room

    def gateway(self, gateway_id: str) -> Gateway:
        """Return a gateway.

        Raises: UsageError: the inventory has no such gateway.
        """
        try:
            return self.gateways[gateway_id]
        except KeyError:
            raise UsageError(
                f"no gateway {gateway_id!r} in {self.folder / INVENTORY_FILE}",
                hint=f"gateways there: {', '.join(sorted(self.gateways)) or 'none'}",
            ) from None

    def services(self, site_id: str) -> list[Service]:
        """Return the services that the boards of a site ask for.

        Raises: UsageError: the inventory has no such site.
        """
        own = self.site(site_id).service
        return self.measurement.service if own is None else own

    def hardware_of(self, hardware_id: str | None) -> Hardware:
        """Return a kind of board; None is one that nothing hangs on.

        Raises: UsageError: the inventory has no such hardware.
        """
        if hardware_id is None:
            return Hardware()
        try:
            return self.hardware[hardware_id]
        except KeyError:
            raise UsageError(
                f"no hardware {hardware_id!r} in {self.folder / INVENTORY_FILE}",
                hint=f"hardware there: {', '.join(sorted(self.hardware)) or 'none'}",
            ) from None

    def board(self, board_id: str) -> Board:
        """Return a board.

        Raises: UsageError: the registry has no such board.
        """
        try:
            return self.boards[board_id]
        except KeyError:
            alike = get_close_matches(board_id, self.boards, n=3)
            raise UsageError(
                f"no board {board_id!r} in {self.folder / REGISTRY_FILE}",
                hint=f"did you mean {' or '.join(alike)}?" if alike else "see netzpuls board list",
            ) from None

    def boards_of_gateway(self, gateway_id: str) -> dict[str, Board]:
        """Return the boards that report to a gateway: neither retired nor revoked."""
        return {
            board_id: board
            for board_id, board in self.boards.items()
            if board.retired is None
            and board.revoked is None
            and self.sites[board.site].gateway == gateway_id
        }


def load(folder: Path) -> Inventory:
    """Read and check a city's inventory and registry.

    A missing registry is an empty one: the first board makes it.

    Raises: ConfigurationError: a file is missing, is no TOML, has an unknown key or a wrong
        value, or names something that is not there.
    """
    path = folder / INVENTORY_FILE
    if not path.is_file():
        raise ConfigurationError(
            f"no {INVENTORY_FILE} in {folder}",
            hint="name the city's folder with --city, or start from docs/inventory.example.toml",
        )
    file = document.load(_InventoryFile, path)
    registry_path = folder / REGISTRY_FILE
    registry = (
        document.load(_RegistryFile, registry_path)
        if os.path.lexists(registry_path)  # a link that leads nowhere is not "no boards yet"
        else _RegistryFile(version=1)
    )
    faults = [*_dangling(file), *_dangling_boards(file, registry)]
    if faults:
        raise document.faulty(path, faults)
    return Inventory(folder, file, registry)


def _dangling(file: _InventoryFile) -> list[str]:
    faults = []
    for site_id, site in file.site.items():
        for kind, name, known in (
            ("district", site.district, file.district),
            ("gateway", site.gateway, file.gateway),
            ("wlan", site.wlan, file.wlan),
        ):
            if name not in known:
                faults.append(f"site.{site_id}.{kind}: there is no [{kind}.{name}]")
        faults += [
            f"site.{site_id}.rooms: {room!r} stands there twice"
            for room, count in Counter(site.rooms).items()
            if count > 1
        ]
        faults += _site_references(site_id, site, file)
    faults += [
        f"gateway.{gateway_id}.jump: there is no [jump.{gateway.jump}]"
        for gateway_id, gateway in file.gateway.items()
        if gateway.jump is not None and gateway.jump not in file.jump
    ]
    return faults + _unfit_services(file) + _unfit_hardware(file)


def _site_references(site_id: str, site: Site, file: _InventoryFile) -> list[str]:
    faults = [
        f"site.{site_id}.{key}: there is no [wlan.{name}]"
        for key, names in (("watch", site.watch), ("bssids", site.bssids))
        for name in names
        if name not in file.wlan
    ]
    twice = [name for name, count in Counter([site.wlan, *site.watch]).items() if count > 1]
    faults += [f"site.{site_id}.watch: {name!r} is measured already" for name in twice]
    return faults


def _unfit_services(file: _InventoryFile) -> list[str]:
    faults = []
    places = {"measurement": file.measurement.service} | {
        f"site.{site_id}": site.service for site_id, site in file.site.items() if site.service
    }
    for place, services in places.items():
        faults += [
            f"{place}.service: {name!r} stands there twice"
            for name, count in Counter(service.name for service in services).items()
            if count > 1
        ]
        if file.measurement.roots is None and any(service.tls for service in services):
            faults.append(f"measurement.roots is missing: it verifies {place}.service over TLS")
    if file.measurement.roots is None and file.measurement.target:
        faults.append("measurement.roots is missing: it verifies measurement.target")
    return faults


def _unfit_hardware(file: _InventoryFile) -> list[str]:
    faults = []
    for hardware_id, hardware in file.hardware.items():
        place = f"hardware.{hardware_id}"
        if hardware_id == NO_HARDWARE:
            faults.append(f"{place}: this id means a board that nothing hangs on; take another one")
        if hardware.sensors and hardware.i2c is None:
            faults.append(f"{place}.i2c is missing: it names the pins of the sensors' bus")
        pins = [hardware.led]
        pins += hardware.light if isinstance(hardware.light, list) else [hardware.light]
        pins += [hardware.i2c.sda, hardware.i2c.scl] if hardware.i2c else []
        used = Counter(pin for pin in pins if pin is not None)
        if hardware.lan is not None:
            taken = sorted(LAN_PINS & set(used))
            faults += [f"{place}: pin {pin} is the Ethernet's" for pin in taken]
        faults += [f"{place}: pin {pin} is used twice" for pin, count in used.items() if count > 1]
    return faults


def _dangling_boards(file: _InventoryFile, registry: _RegistryFile) -> list[str]:
    faults = []
    for board_id, board in registry.board.items():
        if board.retired:
            continue  # sites are closed and rooms renamed; what was there stays told
        site = file.site.get(board.site)
        if site is None:
            faults.append(f"{REGISTRY_FILE}: board {board_id} is at an unknown site {board.site!r}")
        elif board.room not in site.rooms:
            faults.append(
                f"{REGISTRY_FILE}: board {board_id} is in room {board.room!r}, "
                f"which site {board.site!r} does not list"
            )
        if board.hardware is not None and board.hardware not in file.hardware:
            faults.append(
                f"{REGISTRY_FILE}: board {board_id} has an unknown hardware {board.hardware!r}"
            )
    return faults
