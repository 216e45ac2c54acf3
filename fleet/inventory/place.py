"""Where things are: `[city]`, `[district]`, `[site]`, `[access_point]`."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from fleet.document import Table
from fleet.inventory.calendar import Land
from fleet.inventory.kind import Address, Bssids, Id, Mac
from fleet.inventory.measurement import Service


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"no time zone {name!r} on this machine") from error
    return name


class City(Table):
    """The city itself."""

    id: Id
    name: str
    timezone: Annotated[str, AfterValidator(_timezone)] = "Europe/Berlin"
    land: Land | None = None


SiteKind = Literal["school", "hotspot", "office"]


class District(Table):
    """A part of the city."""

    name: str


class AccessPoint(Table):
    """An access point of the own WLANs, which boards of its site hear.

    Attributes:
        room: where it hangs, if that is one of the site's rooms.
        bssids: those of all its radios and WLANs; while one is in the air, it is there.
    """

    site: Id
    room: str | None = None
    bssids: Annotated[list[Mac], Field(min_length=1, max_length=32)]


class Site(Table):
    """A school or a hotspot: one line to the internet, with rooms or spots.

    Attributes:
        watch: further WLANs that ap-monitors join in turn.
        bssids: the site's own access points by WLAN; goes before those of the WLAN.
        dhcp_servers: who may give addresses here; empty: anybody.
        service: goes before those of the measurement.
        provider: who runs its line.
        calendar: when what happens there counts; None is around the clock.
        land: goes before the city's.
    """

    name: str
    kind: SiteKind = "school"
    district: Id
    gateway: Id
    wlan: Id
    rooms: Annotated[list[str], Field(min_length=1)]
    watch: Annotated[list[Id], Field(max_length=3)] = Field(default_factory=list)
    bssids: dict[Id, Bssids] = Field(default_factory=dict)
    dhcp_servers: Annotated[list[Address], Field(max_length=8)] = Field(default_factory=list)
    service: Annotated[list[Service], Field(max_length=4)] | None = None
    provider: Id | None = None
    calendar: Id | None = None
    land: Land | None = None
