"""The inventory: what a city has, written by people; and the registry of its boards.

A city's folder holds

    inventory.toml   city, districts, sites, rooms, access points, WLANs, gateways, calendars
                     (see docs/inventory.md)
    registry.toml    the boards; written by `netzpuls board`, read by people and git
    ca.pem, boards/  public certificates
    secrets/         mode 0700, never in git: CA key, WLAN keys, report keys, the hash key
    store/           what was collected

Unknown keys are errors: a mistyped threshold must not be a threshold that is ignored.
"""

from fleet.inventory.board import Board, Role, Stay, Tested
from fleet.inventory.calendar import ALWAYS, OWN, Calendar, Hours, Land
from fleet.inventory.city import SECRETS_FOLDER, Inventory, load
from fleet.inventory.file import INVENTORY_FILE, REGISTRY_FILE
from fleet.inventory.hardware import NO_HARDWARE, Hardware, I2c, Lan
from fleet.inventory.kind import BoardId, Id, Port
from fleet.inventory.measurement import (
    InternetTarget,
    Measurement,
    ResolverTarget,
    Service,
    Thresholds,
    Throughput,
    TlsTarget,
)
from fleet.inventory.network import BENCH, Bench, Gateway, Jump, Portal, Provider, Wlan
from fleet.inventory.place import AccessPoint, City, District, Site, SiteKind
from fleet.inventory.retention import Retention
from fleet.inventory.sla import Sla
from fleet.inventory.subject import Subject

__all__ = [
    "ALWAYS",
    "BENCH",
    "INVENTORY_FILE",
    "NO_HARDWARE",
    "OWN",
    "REGISTRY_FILE",
    "SECRETS_FOLDER",
    "AccessPoint",
    "Bench",
    "Board",
    "BoardId",
    "Calendar",
    "City",
    "District",
    "Gateway",
    "Hardware",
    "Hours",
    "I2c",
    "Id",
    "InternetTarget",
    "Inventory",
    "Jump",
    "Lan",
    "Land",
    "Measurement",
    "Port",
    "Portal",
    "Provider",
    "ResolverTarget",
    "Retention",
    "Role",
    "Service",
    "Site",
    "SiteKind",
    "Sla",
    "Stay",
    "Subject",
    "Tested",
    "Thresholds",
    "Throughput",
    "TlsTarget",
    "Wlan",
    "load",
]
