"""What figures are told of, and how people name it.

    city                        all lines together
    district/mitte              all lines of a district
    site/goethe-schule          a site: its line and its boards
    line/goethe-schule          its line to the internet alone
    room/goethe-schule/101      the boards of a room
    access-point/aula           an access point
    board/np-240ac4000010       a board

The kind may be left out where it is clear: `goethe-schule`, `goethe-schule/101`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Literal, get_args

from fleet.errors import UsageError
from fleet.inventory.board import Board
from fleet.inventory.place import AccessPoint, District, Site

Kind = Literal["city", "district", "site", "line", "room", "access-point", "board"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Subject:
    """One thing; `id` is that of the district, site, board and so on, of a room its site's."""

    kind: Kind
    id: str = ""
    room: str = ""

    @property
    def figure(self) -> Subject:
        """What its figures are of: those of a site are those of its line."""
        return Subject("line", self.id) if self.kind == "site" else self

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.id, self.room) if part)


def parse(
    text: str,
    districts: Mapping[str, District],
    sites: Mapping[str, Site],
    access_points: Mapping[str, AccessPoint],
    boards: Mapping[str, Board],
) -> Subject:
    """Return what somebody named.

    Raises: UsageError: there is no such thing, or there are two.
    """
    meant = partial(_meant, districts, sites, access_points, boards)
    kind, _, rest = text.partition("/")
    if text == "city":
        return Subject("city")
    if kind in KINDS and rest:
        found = [each for each in meant(rest) if each.kind == kind]
    else:
        found = [
            each
            for each in meant(text)
            if each.kind != "line"  # the site says it
        ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{text!r} may be {' or '.join(map(str, found))}", hint="say which, with its kind"
        )
    names = ["city", *districts, *sites, *access_points, *boards]
    alike = get_close_matches(rest if kind in KINDS else text, names, n=3)
    raise UsageError(
        f"there is no {text!r} to tell of",
        hint=(f"did you mean {' or '.join(alike)}? " if alike else "")
        + "write city, district/ID, site/ID, line/ID, room/SITE/ROOM, access-point/ID or board/ID",
    )


def _meant(
    districts: Mapping[str, District],
    sites: Mapping[str, Site],
    access_points: Mapping[str, AccessPoint],
    boards: Mapping[str, Board],
    text: str,
) -> list[Subject]:
    site, _, room = text.partition("/")
    found = []
    if text in districts:
        found.append(Subject("district", text))
    if text in sites:
        found += [Subject("site", text), Subject("line", text)]
    if room and site in sites and room in sites[site].rooms:
        found.append(Subject("room", site, room))
    if text in access_points:
        found.append(Subject("access-point", text))
    if text in boards:
        found.append(Subject("board", text))
    return found
