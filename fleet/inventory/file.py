"""The two files as wholes: inventory.toml and registry.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.document import Table
from fleet.inventory.board import Board
from fleet.inventory.calendar import Calendar
from fleet.inventory.hardware import Hardware
from fleet.inventory.kind import BoardId, Id
from fleet.inventory.measurement import Measurement
from fleet.inventory.network import Bench, Gateway, Jump, Provider, Wlan
from fleet.inventory.place import AccessPoint, City, District, Site
from fleet.inventory.retention import Retention
from fleet.inventory.sla import Sla

INVENTORY_FILE = "inventory.toml"
REGISTRY_FILE = "registry.toml"


class InventoryFile(Table):
    """All tables that people write."""

    version: Literal[1]
    city: City
    measurement: Measurement
    wlan: dict[Id, Wlan]
    district: dict[Id, District]
    gateway: dict[Id, Gateway]
    site: dict[Id, Site]
    access_point: dict[Id, AccessPoint] = Field(default_factory=dict)
    jump: dict[Id, Jump] = Field(default_factory=dict)
    hardware: dict[Id, Hardware] = Field(default_factory=dict)
    provider: dict[Id, Provider] = Field(default_factory=dict)
    calendar: dict[Id, Calendar] = Field(default_factory=dict)
    sla: list[Sla] = Field(default_factory=list)
    store: Retention = Field(default_factory=Retention)
    bench: Bench | None = None


class RegistryFile(Table):
    """All boards there are or were."""

    version: Literal[1]
    board: dict[BoardId, Board] = Field(default_factory=dict)
