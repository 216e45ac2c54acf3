"""What is wrong between the tables of a city: what leads nowhere, what does not fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from fleet.errors import UsageError
from fleet.inventory import subject
from fleet.inventory.calendar import ALWAYS, OWN
from fleet.inventory.file import REGISTRY_FILE, InventoryFile, RegistryFile
from fleet.inventory.hardware import LAN_PINS, NO_HARDWARE
from fleet.inventory.network import BENCH
from fleet.inventory.place import Site


def find(file: InventoryFile, registry: RegistryFile) -> list[str]:
    """Return the faults, each with the place where it is."""
    return [
        *_dangling(file),
        *_unfit_access_points(file),
        *_unfit_services(file),
        *_unfit_hardware(file),
        *_unfit_calendars(file),
        *_unfit_slas(file, registry),
        *_dangling_boards(file, registry),
    ]


def _dangling(file: InventoryFile) -> list[str]:
    faults = []
    for site_id, site in file.site.items():
        references: tuple[tuple[str, str | None, Container[str]], ...] = (
            ("district", site.district, file.district),
            ("gateway", site.gateway, file.gateway),
            ("wlan", site.wlan, file.wlan),
            ("provider", site.provider, file.provider),
        )
        for kind, name, known in references:
            if name is not None and name not in known:
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
    if file.bench and file.bench.wlan not in file.wlan:
        faults.append(f"bench.wlan: there is no [wlan.{file.bench.wlan}]")
    if file.bench and BENCH in file.gateway:
        faults.append(f"gateway.{BENCH}: this id is that of the desk's own, [bench]; take another")
    return faults


def _site_references(site_id: str, site: Site, file: InventoryFile) -> list[str]:
    faults = [
        f"site.{site_id}.{key}: there is no [wlan.{name}]"
        for key, names in (("watch", site.watch), ("bssids", site.bssids))
        for name in names
        if name not in file.wlan
    ]
    twice = [name for name, count in Counter([site.wlan, *site.watch]).items() if count > 1]
    faults += [f"site.{site_id}.watch: {name!r} is measured already" for name in twice]
    return faults


def _unfit_access_points(file: InventoryFile) -> list[str]:
    faults = []
    owners: dict[str, str] = {}
    for point_id, point in file.access_point.items():
        place = f"access_point.{point_id}"
        site = file.site.get(point.site)
        if site is None:
            faults.append(f"{place}.site: there is no [site.{point.site}]")
            continue
        if point.room is not None and point.room not in site.rooms:
            faults.append(f"{place}.room: site {point.site!r} has no room {point.room!r}")
        known = _bssids(site, file)
        for bssid in point.bssids:
            if bssid in owners:
                faults.append(f"{place}.bssids: {bssid} is {owners[bssid]}'s already")
            owners[bssid] = place
            if known is not None and bssid not in known:
                faults.append(
                    f"{place}.bssids: boards of {point.site} do not tell of {bssid}, as it is not "
                    f"among the bssids of their WLANs; add it there, or name none there"
                )
    return faults


def _bssids(site: Site, file: InventoryFile) -> set[str] | None:
    """Return the access points that a site's boards take for their own; None is any."""
    found: set[str] = set()
    for name in (site.wlan, *site.watch):
        if name in file.wlan:
            own = site.bssids.get(name, file.wlan[name].bssids)
            if not own:
                return None
            found |= set(own)
    return found


def _unfit_services(file: InventoryFile) -> list[str]:
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


def _unfit_hardware(file: InventoryFile) -> list[str]:
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


def _unfit_calendars(file: InventoryFile) -> list[str]:
    faults = []
    for calendar_id, calendar in file.calendar.items():
        place = f"calendar.{calendar_id}"
        if calendar_id == OWN:
            faults.append(f"{place}: this id means each site's own calendar; take another one")
        if not any(calendar.hours.of_weekday(day) for day in range(7)):
            faults.append(f"{place}.hours: there is no hour in which anything counts")
        if calendar.kind == "teaching" and calendar.hours.public_holidays:
            faults.append(f"{place}.hours.public_holidays: there is no teaching then")
    for site_id, site in file.site.items():
        if site.calendar is None:
            continue
        if site.calendar not in file.calendar:
            faults.append(f"site.{site_id}.calendar: there is no [calendar.{site.calendar}]")
        elif file.calendar[site.calendar].needs_land and not (site.land or file.city.land):
            faults.append(
                f"site.{site_id}.calendar: {site.calendar} needs the Land: set city.land or "
                f"site.{site_id}.land"
            )
    return faults


def _unfit_slas(file: InventoryFile, registry: RegistryFile) -> list[str]:
    faults = []
    promised: Counter[str] = Counter()
    for number, sla in enumerate(file.sla, 1):
        place = f"sla {number}"
        if (sla.kind is None) == (sla.subject is None):
            faults.append(f"{place}: it is for a kind of site or for a subject")
            continue
        if sla.calendar not in {None, ALWAYS, *file.calendar}:
            faults.append(f"{place}.calendar: there is no [calendar.{sla.calendar}]")
        if sla.subject is None:
            promised[f"kind {sla.kind}"] += 1
            continue
        try:
            told = subject.parse(
                sla.subject, file.district, file.site, file.access_point, registry.board
            )
        except UsageError as error:
            faults.append(f"{place}.subject: {error.message}")
            continue
        promised[str(told.figure)] += 1
    return faults + [f"sla: {what} has two" for what, count in promised.items() if count > 1]


def _dangling_boards(file: InventoryFile, registry: RegistryFile) -> list[str]:
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
