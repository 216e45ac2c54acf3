"""What a board sent, examined: which reports are its own and whole, which are refused and why.

Pure: no clock, no database, no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from firmware.linkreport import report
from firmware.linkreport.report import CORE_BYTES, SEAL_BYTES, VERSION
from firmware.linkreport.seal import Seal
from fleet.gateway.keyring import Keyring
from fleet.text import printable

TOPIC = re.compile(r"netzpuls/v1/(np-[0-9a-f]{12})/(report|status)")

# Reasons for refusing; they are stored and counted, so they keep their meaning.
BOARD_NAME = "board-name"
BOARD_UNKNOWN = "board-unknown"
MESSAGE_TOO_LARGE = "message-too-large"
MESSAGE_EMPTY = "message-empty"
VERSION_UNKNOWN = "version-unknown"
CUT_SHORT = "cut-short"
MALFORMED = "malformed"
SEQUENCE_INVALID = "sequence-invalid"
KEY_UNKNOWN = "key-unknown"
SEAL_WRONG = "seal-wrong"
FORKED = "forked"


class Verified(NamedTuple):
    """A report with a right seal."""

    device: str
    key_id: int
    seq: int
    oldest_seq: int
    raw: bytes


class Refusal(NamedTuple):
    """Something that does not go into the store. `device` is empty if it is no board's id."""

    reason: str
    device: str
    detail: str = ""


class Seals(Protocol):
    """Knows the boards' keys."""

    def seal(self, board: str, key_id: int, /) -> Seal | None:
        """Return the seal of one of a board's keys, None if there is no such key."""


@dataclass(frozen=True)
class Examined:
    """What became of one message."""

    reports: list[Verified]
    refusals: list[Refusal]


def device_of(topic: str) -> str | None:
    """Return the board that a topic belongs to, None if it is no board's topic."""
    match = TOPIC.fullmatch(topic)
    return match[1] if match else None


def tag_of(raw: bytes) -> bytes:
    """Return a report's own tag."""
    return bytes(report.tag_of(raw))


def link_of(raw: bytes) -> bytes:
    """Return the tag of the report before this one."""
    return bytes(report.link_of(raw))


def examine(topic: str, payload: bytes, keyring: Keyring, max_bytes: int) -> Examined:
    """Examine one message; what is wrong with one report does not touch the others."""
    device = device_of(topic)
    if device is None:
        return _refused(BOARD_NAME, "", f"topic {printable(topic, 80)}")
    if device not in keyring:
        return _refused(BOARD_UNKNOWN, device, "not among this gateway's boards")
    if len(payload) > max_bytes:
        return _refused(MESSAGE_TOO_LARGE, device, f"{len(payload)} bytes")
    if not payload:
        return _refused(MESSAGE_EMPTY, device)
    reports: list[Verified] = []
    refusals: list[Refusal] = []
    for piece in _pieces(payload, device):
        if isinstance(piece, Refusal):
            refusals.append(piece)
            continue
        found = verify(device, piece, keyring)
        if isinstance(found, Refusal):
            refusals.append(found)
        else:
            reports.append(Verified(device, found.key_id, found.seq, found.oldest_seq, piece))
    return Examined(reports, refusals)


def _refused(reason: str, device: str, detail: str = "") -> Examined:
    return Examined([], [Refusal(reason, device, detail)])


def _pieces(payload: bytes, device: str) -> Iterator[bytes | Refusal]:
    """Cut a message into reports; where it goes wrong, the rest is one refusal.

    `report.split` answers all or nothing; here the good reports before a cut are kept.
    """
    at = 0
    while at < len(payload):
        if payload[at] != VERSION:
            yield Refusal(VERSION_UNKNOWN, device, f"version {payload[at]} at byte {at}")
            return
        body_bytes = payload[at + 1] if at + 1 < len(payload) else 0
        end = at + body_bytes + SEAL_BYTES
        if body_bytes < CORE_BYTES or end > len(payload):
            yield Refusal(CUT_SHORT, device, f"{len(payload) - at} bytes left at byte {at}")
            return
        yield payload[at:end]
        at = end


def verify(device: str, raw: bytes, seals: Seals) -> report.Report | Refusal:
    """Return what one report says if it is whole and its board's own, else why it is refused."""
    try:
        fields: report.Report = report.unpack(raw)
    except report.ReportError as error:
        return Refusal(MALFORMED, device, str(error))
    place = f"key_id {fields.key_id} seq {fields.seq}"
    seal = seals.seal(device, fields.key_id)
    if seal is None:
        return Refusal(KEY_UNKNOWN, device, place)
    if not report.sealed(raw, seal):
        return Refusal(SEAL_WRONG, device, place)
    if not 1 <= fields.oldest_seq <= fields.seq:
        return Refusal(SEQUENCE_INVALID, device, f"{place} oldest_seq {fields.oldest_seq}")
    return fields
