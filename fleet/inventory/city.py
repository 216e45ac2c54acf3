"""A city: its inventory and registry, read and checked as one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from fleet import document
from fleet.errors import ConfigurationError, UsageError
from fleet.inventory import fault, subject
from fleet.inventory.board import Board
from fleet.inventory.calendar import ALWAYS, Calendar, Land
from fleet.inventory.file import INVENTORY_FILE, REGISTRY_FILE, InventoryFile, RegistryFile
from fleet.inventory.hardware import Hardware
from fleet.inventory.measurement import Service
from fleet.inventory.network import Bench, Gateway, Jump, Provider, Wlan
from fleet.inventory.place import AccessPoint, District, Site
from fleet.inventory.sla import Sla
from fleet.inventory.subject import Subject

SECRETS_FOLDER = "secrets"


class Inventory:
    """A city's inventory and registry, read and checked as one.

    Attributes: `folder` and the tables by id: `districts`, `sites`, `access_points`, `gateways`,
        `jumps`, `wlans`, `hardware`, `providers`, `calendars`, `boards`; `city`, `measurement`,
        `slas`, `retention` and `bench`, None for none.
    """

    def __init__(self, folder: Path, file: InventoryFile, registry: RegistryFile) -> None:
        self.folder = folder
        self.city = file.city
        self.measurement = file.measurement
        self.wlans: Mapping[str, Wlan] = file.wlan
        self.hardware: Mapping[str, Hardware] = file.hardware
        self.districts: Mapping[str, District] = file.district
        self.gateways: Mapping[str, Gateway] = file.gateway
        self.bench: Bench | None = file.bench
        self.jumps: Mapping[str, Jump] = file.jump
        self.sites: Mapping[str, Site] = file.site
        self.access_points: Mapping[str, AccessPoint] = file.access_point
        self.providers: Mapping[str, Provider] = file.provider
        self.calendars: Mapping[str, Calendar] = file.calendar
        self.slas: Sequence[Sla] = file.sla
        self.retention = file.store
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

    def access_point(self, point_id: str) -> AccessPoint:
        """Return an access point.

        Raises: UsageError: the inventory has no such access point.
        """
        try:
            return self.access_points[point_id]
        except KeyError:
            raise UsageError(
                f"no access point {point_id!r} in {self.folder / INVENTORY_FILE}",
                hint=f"access points there: {', '.join(sorted(self.access_points)) or 'none'}",
            ) from None

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

    def subject(self, text: str) -> Subject:
        """Return what somebody named, such as `site/goethe-schule`; see fleet/inventory/subject.py.

        Raises: UsageError: there is no such thing, or there are two.
        """
        return subject.parse(text, self.districts, self.sites, self.access_points, self.boards)

    def sla_of(self, told: Subject) -> Sla | None:
        """Return what was promised of a subject: its own before that of its site's kind."""
        for each in self.slas:
            if each.subject and self.subject(each.subject).figure == told.figure:
                return each
        if told.figure.kind != "line":
            return None
        kind = self.sites[told.id].kind
        return next((each for each in self.slas if each.kind == kind), None)

    def calendar(self, calendar_id: str) -> Calendar:
        """Return a calendar.

        Raises: UsageError: the inventory has no such calendar.
        """
        try:
            return self.calendars[calendar_id]
        except KeyError:
            raise UsageError(
                f"no calendar {calendar_id!r} in {self.folder / INVENTORY_FILE}",
                hint=f"calendars there: {', '.join([ALWAYS, *sorted(self.calendars)])}",
            ) from None

    def calendar_of(self, site_id: str) -> str:
        """Return the id of a site's own calendar, `24/7` where it has none.

        Raises: UsageError: the inventory has no such site.
        """
        return self.site(site_id).calendar or ALWAYS

    def land_of(self, site_id: str) -> Land | None:
        """Return the Land whose holidays hold at a site; None if nobody said.

        Raises: UsageError: the inventory has no such site.
        """
        return self.site(site_id).land or self.city.land

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
    file = document.load(InventoryFile, path)
    registry_path = folder / REGISTRY_FILE
    registry = (
        document.load(RegistryFile, registry_path)
        if os.path.lexists(registry_path)  # a link that leads nowhere is not "no boards yet"
        else RegistryFile(version=1)
    )
    faults = fault.find(file, registry)
    if faults:
        raise document.faulty(path, faults)
    return Inventory(folder, file, registry)
