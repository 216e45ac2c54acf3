"""The inventory: what a city has, written by people; and the registry of its boards.

A city's folder holds

    inventory.toml   city, districts, sites, rooms, WLANs, gateways (see docs/inventory.md)
    registry.toml    the boards; written by `netzpuls board`, read by people and git
    ca.pem, boards/  public certificates
    secrets/         mode 0700, never in git: CA key, WLAN keys, report keys
    store/           what was collected

Unknown keys are errors: a mistyped threshold must not be a threshold that is ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
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

# An id becomes a certificate's CN and part of a topic: a "/" or "+" there would widen the
# broker's access rules.
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
BoardId = Annotated[str, StringConstraints(pattern=r"^np-[0-9a-f]{12}$")]
Mac = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Milliseconds = Annotated[int, Field(ge=1, le=60_000)]
Text = Annotated[str, StringConstraints(min_length=1)]
Role = Literal["classroom-sensor", "ap-monitor"]
Deadline = Literal["cycle", "radio", "association", "addressing", "gateway", "resolver", "internet"]
Security = Literal["open", "wpa2-psk", "wpa3-sae", "wpa2-enterprise"]


def _ssid(text: str) -> str:
    if not 1 <= len(text.encode()) <= 32:
        raise ValueError("an SSID has 1 to 32 bytes")
    return text


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


class ResolverTarget(Table):
    """A name that every resolver must answer with one known address."""

    name: str
    address: str


class InternetTarget(Table):
    """An HTTP server beyond the site's line that answers 204."""

    address: str
    port: Port = 80
    host: str
    path: Annotated[str, StringConstraints(pattern=r"^/[!-~]*$")] = "/generate_204"


class Thresholds(Table):
    """Where `up` ends and `degraded` begins."""

    rssi_dbm: Annotated[int, Field(ge=-100, le=-20)] = -75
    gateway_loss_percent: Annotated[int, Field(ge=1, le=100)] = 20
    gateway_rtt_ms: Milliseconds = 100
    resolver_ms: Milliseconds = 500
    internet_ms: Milliseconds = 1000


class Measurement(Table):
    """What every board measures and how often."""

    period_s: Annotated[int, Field(ge=1, le=3600)] = 60
    resolver: ResolverTarget
    internet: InternetTarget
    thresholds: Thresholds = Thresholds()
    deadline_ms: dict[Deadline, Milliseconds] = Field(default_factory=dict)


class Wlan(Table):
    """A WLAN that boards join; its key stands in secrets/wlan.toml under the same id."""

    ssid: Annotated[str, AfterValidator(_ssid)]
    security: Security = "wpa2-psk"


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
    """A school or a hotspot: one line to the internet, with rooms or spots."""

    name: str
    kind: Literal["school", "hotspot", "office"] = "school"
    district: Id
    gateway: Id
    wlan: Id
    rooms: Annotated[list[str], Field(min_length=1)]


class Board(Table):
    """One board, as the registry knows it. Holds no secret."""

    site: Id
    room: str
    role: Role
    key_id: Annotated[int, Field(ge=1, le=65535)]
    chip: str
    mac: Mac
    agent: str
    enrolled: datetime
    certificate_expires: datetime
    revoked: datetime | None = None


class _InventoryFile(Table):
    version: Literal[1]
    city: City
    measurement: Measurement
    wlan: dict[Id, Wlan]
    district: dict[Id, District]
    gateway: dict[Id, Gateway]
    site: dict[Id, Site]
    jump: dict[Id, Jump] = Field(default_factory=dict)


class _RegistryFile(Table):
    version: Literal[1]
    board: dict[BoardId, Board] = Field(default_factory=dict)


class Inventory:
    """A city's inventory and registry, read and checked as one.

    Attributes: `folder` and the tables by id: `districts`, `sites`, `gateways`, `jumps`,
        `wlans`, `boards`; `city` and `measurement`.
    """

    def __init__(self, folder: Path, file: _InventoryFile, registry: _RegistryFile) -> None:
        self.folder = folder
        self.city = file.city
        self.measurement = file.measurement
        self.wlans: Mapping[str, Wlan] = file.wlan
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

    def boards_of_gateway(self, gateway_id: str) -> dict[str, Board]:
        """Return the boards that report to a gateway and are not revoked."""
        return {
            board_id: board
            for board_id, board in self.boards.items()
            if self.sites[board.site].gateway == gateway_id and board.revoked is None
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
    faults += [
        f"gateway.{gateway_id}.jump: there is no [jump.{gateway.jump}]"
        for gateway_id, gateway in file.gateway.items()
        if gateway.jump is not None and gateway.jump not in file.jump
    ]
    for address in (file.measurement.resolver.address, file.measurement.internet.address):
        try:
            IPv4Address(address)
        except ValueError:
            faults.append(f"measurement: {address!r} is no IPv4 address")
    return faults


def _dangling_boards(file: _InventoryFile, registry: _RegistryFile) -> list[str]:
    faults = []
    for board_id, board in registry.board.items():
        site = file.site.get(board.site)
        if site is None:
            faults.append(f"{REGISTRY_FILE}: board {board_id} is at an unknown site {board.site!r}")
        elif board.room not in site.rooms:
            faults.append(
                f"{REGISTRY_FILE}: board {board_id} is in room {board.room!r}, "
                f"which site {board.site!r} does not list"
            )
    return faults
