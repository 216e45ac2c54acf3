"""Many reports at once, examined as `fleet.gateway.intake.verify` examines each, into columns.

Pure: no clock, no database, no network. All input is hostile: a report may be anything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from firmware.linkreport import block, body, frame
from firmware.linkreport import report as wire
from firmware.linkreport.seal import TAG_BYTES
from firmware.linkreport.term import LAYERS
from fleet.gateway import intake
from fleet.gateway.transfer import Row
from fleet.seal import Seal
from fleet.store import air
from fleet.store.air import BSSID_BYTES, OWN_BYTES, WELL_DBM, Heard
from fleet.store.piece import NUMBERS, Origin, Piece

_LEAST_BYTES = frame.CORE_BYTES + frame.SEAL_BYTES
_ASSOCIATION = LAYERS.index("association") - 1
_LAYER_COLUMNS = [f"{layer}_reason" for layer in LAYERS[1:]]
_KINDS = {"B": "u1", "b": "i1", "H": ">u2", "I": ">u4"}

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Octets = NDArray[np.uint8]


def _core() -> np.dtype[Any]:
    """Return `body.CORE` and the names of its fields as a type of numpy's."""
    codes = re.findall(r"(\d+)s|(\w)", body.CORE)
    kinds = [f"({size},)u1" if size else _KINDS[code] for size, code in codes]
    names = wire.Report._fields[: len(kinds)]
    return np.dtype(list(zip(names, kinds, strict=True)))


CORE = _core()
# The first eight bytes of link and tag as numbers, as the store compares them.
_SEAL = np.dtype([("link", ">u8"), ("rest", "V8"), ("tag", ">u8"), ("end", "V8")])


class Seals(Protocol):
    """Knows the boards' keys."""

    def seal(self, board: str, key_id: int, /) -> Seal | None:
        """Return the seal of one of a board's keys, None if there is no such key."""


@dataclass(frozen=True)
class Examined:
    """What became of reports.

    Attributes:
        piece: those that are whole and their boards' own.
        refused: how many others there were, by their reason in `fleet.gateway.intake`.
    """

    piece: Piece
    refused: Counter[str]


def examine(gateway: str, rows: Sequence[Row], seals: Seals) -> Examined:
    """Examine reports that came from a gateway.

    Raises: ConfigurationError: a key cannot be read.
    """
    refused: Counter[str] = Counter()

    def keep(those: _Reports, chosen: Bools, reason: str) -> _Reports:
        if chosen.all():
            return those
        refused[reason] += len(chosen) - int(chosen.sum())
        return those.take(chosen)

    long_enough = [row for row in rows if len(row.raw) >= _LEAST_BYTES]
    if len(long_enough) < len(rows):
        refused[intake.MALFORMED] += len(rows) - len(long_enough)
    found = _Reports.of(long_enough)
    found = keep(found, found.whole(), intake.MALFORMED)
    known, tags = found.keyed(seals)
    found = keep(found, known, intake.KEY_UNKNOWN)
    found = keep(found, found.carry(tags), intake.SEAL_WRONG)
    found = keep(found, found.numbered(), intake.SEQUENCE_INVALID)
    return Examined(found.piece(gateway), refused)


@dataclass(frozen=True)
class _Reports:
    """Reports of which none is shorter than one can be.

    Attributes:
        rows: as they came.
        core: what stands before their blocks.
        blocks: where their blocks have what is in the air.
    """

    rows: Sequence[Row]
    core: NDArray[Any]
    blocks: _Blocks

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Reports:
        cores = b"".join([row.raw[: frame.CORE_BYTES] for row in rows])
        return cls(rows, np.frombuffer(cores, CORE), _Blocks.of(rows))

    def take(self, chosen: Bools) -> _Reports:
        numbers = np.flatnonzero(chosen).tolist()
        rows = [self.rows[number] for number in numbers]
        return _Reports(rows, self.core[chosen], self.blocks.take(chosen))

    def whole(self) -> Bools:
        """Tell which are one report of the version that we know each, to the end of its blocks."""
        size = np.array([len(row.raw) for row in self.rows], np.int64)
        found: Bools = (
            (self.core["version"] == frame.VERSION)
            & (self.core["body_bytes"] == size - frame.SEAL_BYTES)
            & self.blocks.whole
        )
        return found

    def keyed(self, seals: Seals) -> tuple[Bools, list[bytes]]:
        """Return which reports' keys are known, and the tags that these should carry."""
        found: dict[tuple[str, int], Seal | None] = {}
        known, tags = [], []
        for row, key_id in zip(self.rows, self.core["key_id"].tolist(), strict=True):
            place = (row.device, key_id)
            if place not in found:
                found[place] = seals.seal(*place)
            seal = found[place]
            known.append(seal is not None)
            if seal is not None:
                tags.append(seal.tag_of(row.raw))
        return np.array(known, np.bool_), tags

    def carry(self, tags: Sequence[bytes]) -> Bools:
        """Tell which reports carry these tags; takes the same time wherever they differ."""
        should, do = (
            np.frombuffer(b"".join(found), np.uint64).reshape(-1, TAG_BYTES // 8)
            for found in (tags, [row.raw[-TAG_BYTES:] for row in self.rows])
        )
        found: Bools = (should == do).all(axis=1)
        return found

    def numbered(self) -> Bools:
        """Tell which have numbers that a board can give."""
        found: Bools = (self.core["oldest_seq"] >= 1) & (
            self.core["oldest_seq"] <= self.core["seq"]
        )
        return found

    def piece(self, gateway: str) -> Piece:
        """Return them as the store takes them."""
        origins: dict[tuple[str, bytes], int] = {}
        origin = [
            origins.setdefault((row.device, bssid), len(origins))
            for row, bssid in zip(self.rows, self._bssids(), strict=True)
        ]
        airs, air_of = self._airs()
        given = {name: self.core[name] for name in CORE.names or ()}
        for number, name in enumerate(_LAYER_COLUMNS):
            given[name] = self.core["layer_reasons"][:, number]
        given["received_s"] = np.array([row.received_s for row in self.rows], np.uint32)
        columns: dict[str, NDArray[Any]] = {"origin": np.array(origin, np.int64), "air": air_of}
        columns |= {name: given[name].astype(kind) for name, kind in NUMBERS.items()}
        seals = b"".join([row.raw[-frame.SEAL_BYTES :] for row in self.rows])
        for name in ("link", "tag"):
            columns[name] = np.frombuffer(seals, _SEAL)[name].astype(np.uint64)
        raw = np.empty(len(self.rows), object)
        raw[:] = [row.raw for row in self.rows]
        told: list[Origin] = [
            (device, gateway, None if bssid == wire.NO_BSSID else bssid)
            for device, bssid in origins
        ]
        return Piece(told, airs, columns, raw)

    def _bssids(self) -> list[bytes]:
        every = self.core["bssid"].tobytes()
        return [every[at : at + BSSID_BYTES] for at in range(0, len(every), BSSID_BYTES)]

    def _airs(self) -> tuple[list[Heard], Ints]:
        """Return what reports heard, and for each report which of it."""
        found: dict[Heard, int] = {(None, None, None): 0}
        number_of = np.zeros(len(self.rows), np.int64)
        # What `air.heard` says depends on no more than this, and it is the same for most scans.
        alike: dict[tuple[object, ...], int] = {}
        rssi_dbm = self.core["rssi_dbm"]
        for number, key in zip(
            np.flatnonzero(self.blocks.scanned).tolist(),
            zip(
                *self.blocks.heard(),
                _chosen(self._bssids(), self.blocks.scanned),
                ((rssi_dbm >= WELL_DBM) & (rssi_dbm < wire.NO_RSSI))[self.blocks.scanned].tolist(),
                self.core["layer_reasons"][self.blocks.scanned, _ASSOCIATION].tolist(),
                strict=True,
            ),
            strict=True,
        ):
            if key not in alike:
                heard = air.heard(wire.unpack(self.rows[number].raw))
                alike[key] = found.setdefault(heard, len(found))
            number_of[number] = alike[key]
        return list(found), number_of


@dataclass(frozen=True)
class _Blocks:
    """What the extension blocks of reports have to do with the air.

    Attributes:
        octets: all blocks, one after the other.
        whole: whether a report's last block is not cut short.
        own_at: where the first list of own access points has its content.
        own_bytes: how long that is; -1 where there is none.
        told: how many of them the first count tells; -1 where there is none.
    """

    octets: Octets
    whole: Bools
    own_at: Ints
    own_bytes: Ints
    told: Ints

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Blocks:
        parts = [row.raw[frame.CORE_BYTES : -frame.SEAL_BYTES] for row in rows]
        octets = np.frombuffer(b"".join(parts) + b"\0", np.uint8)  # one more, to look ahead
        size = np.array([len(part) for part in parts], np.int64)
        whole = np.ones(len(rows), np.bool_)
        own_at, own_bytes, told = (np.full(len(rows), -1, np.int64) for _ in range(3))
        end = np.cumsum(size)
        at, left = end - size, np.flatnonzero(size)
        while len(left):  # the next block of each report that has one
            here, until = at[left], end[left]
            after = here + 2 + octets[here + 1]
            fits = (here + 2 <= until) & (after <= until)
            whole[left[~fits]] = False
            left, here, after = left[fits], here[fits], after[fits]
            kind, length = octets[here], after - here - 2
            own = (kind == block.OWN) & (length % OWN_BYTES == 0) & (own_bytes[left] < 0)
            own_at[left[own]], own_bytes[left[own]] = here[own] + 2, length[own]
            counts = (kind == block.AIR) & (length > 0) & (told[left] < 0)
            told[left[counts]] = octets[here[counts] + 2]
            at[left] = after
            left = left[after < end[left]]
        return cls(octets, whole, own_at, own_bytes, told)

    def take(self, chosen: Bools) -> _Blocks:
        ints = (self.own_at[chosen], self.own_bytes[chosen], self.told[chosen])
        return _Blocks(self.octets, self.whole[chosen], *ints)

    @property
    def scanned(self) -> Bools:
        """Which reports say what is in the air."""
        found: Bools = (self.own_bytes >= 0) | (self.told >= 0)
        return found

    def heard(self) -> tuple[list[bytes | None], list[int]]:
        """Return of reports that scanned what was heard, as far as it matters, and the count."""
        scanned = self.scanned
        at, size = self.own_at[scanned], self.own_bytes[scanned]
        count = np.maximum(size, 0) // OWN_BYTES
        nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        entry = np.repeat(at, count) + nth * OWN_BYTES
        octets = self.octets.copy()
        rssi = entry + BSSID_BYTES
        octets[rssi] = octets[rssi].view(np.int8) >= WELL_DBM
        for rest in range(BSSID_BYTES + 1, OWN_BYTES):
            octets[entry + rest] = 0
        every = octets.tobytes()
        own = [
            every[begin : begin + length] if length >= 0 else None
            for begin, length in zip(at.tolist(), size.tolist(), strict=True)
        ]
        return own, self.told[scanned].tolist()


def _chosen(values: Sequence[bytes], chosen: Bools) -> list[bytes]:
    return [values[number] for number in np.flatnonzero(chosen).tolist()]
