"""A piece of reports on its way into the store: columns, as the ledger's arithmetic takes them.

Numbers stand in arrays, one for each column of `fleet.store.schema.COLUMNS`, with what stands on
the wire where nothing was measured. What board, gateway and access point it was is the same for
many reports, and is told once: `origin` says of each report which of `origins` it came from, and
`air` which of `airs` it heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.store.air import Heard
from fleet.store.schema import COLUMNS, HEARD, MEASURED

# The board's id, the gateway that had it, and the BSSID; None where there was none.
Origin = tuple[str, str | None, bytes | None]
_ORIGIN = ("device", "gateway", "bssid")
_KINDS = {
    "UTINYINT": np.uint8,
    "USMALLINT": np.uint16,
    "UINTEGER": np.uint32,
    "TINYINT": np.int8,
}
NUMBERS = {name: _KINDS[kind] for name, kind in COLUMNS.items() if kind in _KINDS}
_NOTHING = {name: value for name, (_, value) in MEASURED.items() if name in NUMBERS}
_UNMEASURED_BSSID = bytes(6)


@dataclass(frozen=True)
class Piece:
    """Reports in columns.

    Attributes:
        origins: in any order.
        airs: what reports heard, see `fleet.store.air.heard`.
        columns: `origin`, `air`, all of `NUMBERS`, `link` and `tag`, each of one length.
        raw: the reports' bytes as they were sealed; None where none has any.
    """

    origins: Sequence[Origin]
    airs: Sequence[Heard]
    columns: Mapping[str, NDArray[Any]]
    raw: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.columns["seq"])


def piece(rows: Iterable[Sequence[Any]]) -> Piece:
    """Return rows as a piece: values in the order of `COLUMNS`, then link and tag."""
    given = dict(zip((*COLUMNS, "link", "tag"), zip(*rows, strict=True), strict=False))
    if not given:
        given = dict.fromkeys((*COLUMNS, "link", "tag"), ())
    numbers: dict[Origin, int] = {}
    origin = [
        numbers.setdefault(each, len(numbers))
        for each in zip(*(given[name] for name in _ORIGIN), strict=True)
    ]
    heard: dict[Heard, int] = {}
    air = [
        heard.setdefault(each, len(heard))
        for each in zip(*(given[name] for name in HEARD), strict=True)
    ]
    columns: dict[str, NDArray[Any]] = {
        "origin": np.array(origin, np.int64),
        "air": np.array(air, np.int64),
    }
    for name, kind in NUMBERS.items():
        values = given[name]
        if name in _NOTHING:
            nothing = _NOTHING[name]
            columns[name] = np.array([nothing if v is None else v for v in values], kind)
        else:
            columns[name] = np.array(values, kind)
    for name in ("link", "tag"):
        columns[name] = np.array(given[name], np.uint64)
    raw = None
    if any(each is not None for each in given["raw"]):
        raw = np.empty(len(origin), object)
        raw[:] = given["raw"]
    origins = [
        (device, gateway, None if bssid == _UNMEASURED_BSSID else bssid)
        for device, gateway, bssid in numbers
    ]
    return Piece(origins, list(heard), columns, raw)


def joined(parts: Sequence[Piece]) -> Piece:
    """Return pieces as one, in their order."""
    if len(parts) == 1:
        return parts[0]
    origins: list[Origin] = []
    airs: list[Heard] = []
    moved: list[dict[str, NDArray[Any]]] = []
    for part in parts:
        columns = dict(part.columns)
        columns["origin"] = columns["origin"] + len(origins)
        columns["air"] = columns["air"] + len(airs)
        origins += part.origins
        airs += part.airs
        moved.append(columns)
    columns = {name: np.concatenate([each[name] for each in moved]) for name in moved[0]}
    raw = None
    if any(part.raw is not None for part in parts):
        nothing = [np.full(len(part), None, object) for part in parts]
        raw = np.concatenate(
            [p.raw if p.raw is not None else n for p, n in zip(parts, nothing, strict=True)]
        )
    return Piece(origins, airs, columns, raw)
