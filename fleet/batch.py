"""Many reports at once, examined as `fleet.gateway.intake.verify` examines each, into columns.

Pure: no clock, no database, no network. All input is hostile: a report may be anything.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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
_TAG = np.dtype([("first", ">u8"), ("last", ">u8")])
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
    found = keep(found, found.keyed(seals), intake.KEY_UNKNOWN)
    found = keep(found, found.sealed(seals), intake.SEAL_WRONG)
    found = keep(found, found.numbered(), intake.SEQUENCE_INVALID)
    return Examined(found.piece(gateway), refused)


@dataclass(frozen=True)
class _Reports:
    """Reports of which none is shorter than one can be.

    Attributes:
        rows: as they came.
        octets: their bytes, one report after the other, maybe with others between.
        end: where each ends there.
        core: what stands before their blocks.
        blocks: where their blocks have what is in the air.
    """

    rows: Sequence[Row]
    octets: Octets
    end: Ints
    core: NDArray[Any]
    blocks: _Blocks

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Reports:
        octets = np.frombuffer(b"".join([row.raw for row in rows]), np.uint8)
        size = np.fromiter((len(row.raw) for row in rows), np.int64, len(rows))
        end = np.cumsum(size)
        core = _cut(octets, end - size, CORE)
        return cls(rows, octets, end, core, _Blocks.of(octets, end - size, end))

    def take(self, chosen: Bools) -> _Reports:
        rows = list(itertools.compress(self.rows, chosen.tolist()))
        blocks = self.blocks.take(chosen)
        return _Reports(rows, self.octets, self.end[chosen], self.core[chosen], blocks)

    def whole(self) -> Bools:
        """Tell which are one report of the version that we know each, to the end of its blocks."""
        size = np.fromiter((len(row.raw) for row in self.rows), np.int64, len(self.rows))
        found: Bools = (
            (self.core["version"] == frame.VERSION)
            & (self.core["body_bytes"] == size - frame.SEAL_BYTES)
            & self.blocks.whole
        )
        return found

    def _places(self) -> Iterator[tuple[str, int]]:
        """Yield of each report whose key seals it."""
        return zip([row.device for row in self.rows], self.core["key_id"].tolist(), strict=True)

    def keyed(self, seals: Seals) -> Bools:
        """Tell which reports' keys are known."""
        known = {place: seals.seal(*place) is not None for place in set(self._places())}
        return np.fromiter(map(known.__getitem__, self._places()), np.bool_, len(self.rows))

    def sealed(self, seals: Seals) -> Bools:
        """Tell which reports carry the right tag; takes the same time wherever they differ.

        All keys are known.
        """
        tags_of = {}
        for place in set(self._places()):
            if seal := seals.seal(*place):
                tags_of[place] = seal.tag_of
        tags = [
            tags_of[place](row.raw) for place, row in zip(self._places(), self.rows, strict=True)
        ]
        should = np.frombuffer(b"".join(tags), _TAG)
        do = _cut(self.octets, self.end - TAG_BYTES, _TAG)
        found: Bools = (should["first"] == do["first"]) & (should["last"] == do["last"])
        return found

    def numbered(self) -> Bools:
        """Tell which have numbers that a board can give."""
        found: Bools = (self.core["oldest_seq"] >= 1) & (
            self.core["oldest_seq"] <= self.core["seq"]
        )
        return found

    def piece(self, gateway: str) -> Piece:
        """Return them as the store takes them."""
        devices = sorted({row.device for row in self.rows})
        number_of = {device: number for number, device in enumerate(devices)}
        device = np.fromiter((number_of[row.device] for row in self.rows), np.int64)
        bssids, bssid = np.unique(self._bssid(), return_inverse=True)
        origins, origin = np.unique(device * len(bssids) + bssid, return_inverse=True)
        told: list[Origin] = []
        for number in origins.tolist():
            its_device, its_bssid = divmod(number, len(bssids))
            heard = int(bssids[its_bssid]).to_bytes(BSSID_BYTES)
            told.append((devices[its_device], gateway, None if heard == wire.NO_BSSID else heard))
        airs, air_of = self._airs()
        given = {name: self.core[name] for name in CORE.names or ()}
        for number, name in enumerate(_LAYER_COLUMNS):
            given[name] = self.core["layer_reasons"][:, number]
        given["received_s"] = np.fromiter((row.received_s for row in self.rows), np.uint32)
        columns: dict[str, NDArray[Any]] = {"origin": origin, "air": air_of}
        columns |= {name: given[name].astype(kind) for name, kind in NUMBERS.items()}
        seals = _cut(self.octets, self.end - frame.SEAL_BYTES, _SEAL)
        columns |= {name: seals[name].astype(np.uint64) for name in ("link", "tag")}
        raw = np.empty(len(self.rows), object)
        raw[:] = [row.raw for row in self.rows]
        return Piece(told, airs, columns, raw)

    def _bssid(self) -> Ints:
        wide = np.zeros((len(self.rows), 8), np.uint8)
        wide[:, 8 - BSSID_BYTES :] = self.core["bssid"]
        return wide.view(">i8")[:, 0].astype(np.int64)

    def _airs(self) -> tuple[list[Heard], Ints]:
        """Return what reports heard, and for each report which of it."""
        found: dict[Heard, int] = {(None, None, None): 0}
        number_of = np.zeros(len(self.rows), np.int64)
        # What `air.heard` says depends on no more than this, and it is the same for most scans.
        alike: dict[tuple[object, ...], int] = {}
        scanned = self.blocks.scanned
        rssi_dbm = self.core["rssi_dbm"][scanned]
        well = (rssi_dbm >= WELL_DBM) & (rssi_dbm < wire.NO_RSSI)
        reason = self.core["layer_reasons"][scanned, _ASSOCIATION]
        lists, told = self.blocks.heard()
        known = zip(
            *(lists, told, self._bssid()[scanned].tolist(), well.tolist(), reason.tolist()),
            strict=True,
        )
        for number, key in zip(np.flatnonzero(scanned).tolist(), known, strict=True):
            if key not in alike:
                heard = air.heard(wire.unpack(self.rows[number].raw))
                alike[key] = found.setdefault(heard, len(found))
            number_of[number] = alike[key]
        return list(found), number_of


@dataclass(frozen=True)
class _Blocks:
    """What the extension blocks of reports have to do with the air.

    Attributes:
        octets: where they are.
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
    def of(cls, octets: Octets, begin: Ints, end: Ints) -> _Blocks:
        """Walk through the blocks of reports from one place to another, side by side."""
        at, end = begin + frame.CORE_BYTES, end - frame.SEAL_BYTES
        whole = np.ones(len(at), np.bool_)
        own_at, own_bytes, told = (np.full(len(at), -1, np.int64) for _ in range(3))
        left = np.flatnonzero(at < end)
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


def _cut(octets: Octets, at: Ints, kind: np.dtype[Any]) -> NDArray[Any]:
    """Return what lies at some places."""
    if not len(at):
        return np.empty(0, kind)
    return sliding_window_view(octets, kind.itemsize)[at].view(kind)[:, 0]
