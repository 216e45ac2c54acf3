"""The registry of boards: `[board]` in registry.toml, written by `netzpuls board`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from fleet.document import Table
from fleet.inventory.kind import BoardId, Id, Mac, Text

Role = Literal["classroom-sensor", "ap-monitor"]
Tested = Literal["alone", "bench"]


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
        tested: the self-test that it passed before it was enrolled: alone, or at the bench with
            WLAN, time, gateway and an acknowledged report; None if that was not noted then.
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
    tested: Tested | None = None
    enrolled: datetime
    certificate_expires: datetime
    retired: datetime | None = None
    replaced_by: BoardId | None = None
    revoked: datetime | None = None
    revoked_because: Text | None = None
    earlier: list[Stay] = Field(default_factory=list)
