"""Reports examined together are examined as each would be alone."""

from __future__ import annotations

import itertools
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.linkreport import block, body
from firmware.linkreport import report as wire
from firmware.linkreport.seal import Seal as BoardSeal
from fleet import batch
from fleet.gateway import intake
from fleet.gateway.keyring import Keyring
from fleet.gateway.transfer import Row
from fleet.seal import Seal
from fleet.store import air as air_of
from fleet.store.piece import Piece
from tests.fleet.town import DAY_S, TestBoard, Verified, layers, piece_of

BOARDS = [
    TestBoard(f"np-240ac400001{n}", "a", "101", key_id=1 + n, key=bytes([n]) * 32) for n in range(3)
]
# The last one's key is not known.
KEYS = Keyring({board.id: {board.key_id: board.key} for board in BOARDS[:-1]})
BSSIDS = st.sampled_from([bytes(6), b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2", b"\xff" * 6])
_BITS = {"B": 8, "b": 8, "H": 16, "I": 32}


def fields() -> st.SearchStrategy[dict[str, Any]]:
    """Draw what a board may say, sensible or not."""
    codes = body.CORE[1:].replace("9s", "L").replace("6s", "A")
    kinds: dict[str, st.SearchStrategy[Any]] = {}
    for name, code in zip(wire.Report._fields, codes, strict=False):
        if code == "L":
            kinds[name] = st.lists(st.sampled_from([0, 1, 20, 21, 22]), min_size=9, max_size=9).map(
                bytes
            )
        elif code == "A":
            kinds[name] = BSSIDS
        elif code == "b":
            kinds[name] = st.sampled_from([-128, -81, -80, -79, -1, 0, 1, 127])
        else:
            most = (1 << _BITS[code]) - 1
            kinds[name] = st.integers(0, 3) | st.integers(0, most) | st.just(most)
    for name in ("version", "body_bytes", "key_id"):
        del kinds[name]
    return st.fixed_dictionaries({"extensions": extensions()}, optional=kinds)


def extensions() -> st.SearchStrategy[bytes]:
    """Draw blocks of which some say what is in the air, some are damaged, some are anything."""
    entry = st.builds(
        lambda bssid, rssi_dbm, rest: struct.pack(block.OWN_FORMAT, bssid, rssi_dbm, rest, rest),
        BSSIDS, st.sampled_from([-128, -81, -80, -79, 0, 127]), st.integers(0, 3),
    )  # fmt: skip
    own = st.lists(entry, max_size=5).map(lambda found: body.extension(block.OWN, b"".join(found)))
    air = st.sampled_from([0, 1, 2, 3, 255]).map(
        lambda told: body.extension(block.AIR, bytes([told]))
    )
    other = st.builds(
        lambda kind, content: bytes([kind, len(content)]) + content,
        st.sampled_from([block.OWN, block.AIR, block.PATH, 99]), st.binary(max_size=9),
    )  # fmt: skip
    blocks = st.lists(own | air | other, max_size=4).map(lambda found: b"".join(found)[:183])
    return st.just(b"") | blocks | st.binary(max_size=183)


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    """Draw what a gateway may send: reports of boards, copies, damaged ones, and anything."""
    found: list[Row] = []
    for board in BOARDS:
        board.tag = wire.NO_TAG  # the same draws make the same reports
    for number in range(draw(st.integers(0, 12))):
        board = draw(st.sampled_from(BOARDS))
        raw = board.report(**{"time_s": DAY_S, "seq": 7} | draw(fields()))
        raw = draw(st.just(raw) | damaged(raw) | st.binary(max_size=300))
        device = draw(st.sampled_from([board.id, BOARDS[0].id, "../../np", "np-240ac4ffffff"]))
        found += [Row(number, draw(st.integers(0, 9)), device, raw)] * draw(st.integers(1, 2))
    return found


def damaged(raw: bytes) -> st.SearchStrategy[bytes]:
    flipped = st.integers(0, len(raw) * 8 - 1).map(
        lambda bit: (int.from_bytes(raw) ^ 1 << bit).to_bytes(len(raw))
    )
    return flipped | st.integers(0, len(raw)).map(lambda end: raw[:end]) | st.just(raw + b"\0")


def reports(piece: Piece) -> Iterator[dict[str, Any]]:
    """Yield what a piece says of each report."""
    assert piece.raw is not None
    for number in range(len(piece)):
        said = {name: column[number] for name, column in piece.columns.items()}
        origin, air = piece.origins[said.pop("origin")], piece.airs[said.pop("air")]
        kinds = {f"{name} kind": column.dtype for name, column in piece.columns.items()}
        yield {**said, **kinds, "origin": origin, "air": air, "raw": piece.raw[number]}


@settings(max_examples=60, deadline=None)
@given(rows())
def test_many_are_examined_as_one_by_one(given_rows: list[Row]) -> None:
    good, refused = [], Counter[str]()
    for row in given_rows:
        found = intake.verify(row.device, row.raw, KEYS)
        if isinstance(found, intake.Refusal):
            refused[found.reason] += 1
        else:
            good.append(Verified(row.device, row.received_s, row.raw, found))
    examined = batch.examine("gw-1", given_rows, KEYS)
    assert examined.refused == refused
    # A piece of none has no kind for its bytes.
    assert len(examined.piece) == len(good)
    if good:
        assert list(reports(examined.piece)) == list(reports(piece_of(good)))


def own(*entries: tuple[bytes, int], rest: int = 0) -> bytes:
    content = [struct.pack(block.OWN_FORMAT, *entry, rest, rest) for entry in entries]
    return bytes(body.extension(block.OWN, b"".join(content)))


def test_what_is_in_the_air_is_heard_as_one_by_one() -> None:
    """Of reports that differ in one thing only, none may be taken for the other."""
    board, one, other = BOARDS[0], b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"
    told = [b"", b"\x03\0", b"\x03\1\0", b"\x03\1\1", b"\x03\1\2", b"\x03\1\xff"]
    lists = [b"", own(), b"\x04\1\0", own((bytes(6), -60))]
    lists += [own((one, rssi_dbm)) for rssi_dbm in (-81, -80, -79, 0, 127)]
    lists += [own((one, -60), rest=3), own((other, -60)), own((one, -60), (one, -90))]
    lists += [own((one, -90), (other, -60)), own((other, -60), (one, -90))]
    lists += [own(*[(bytes([2, 0, 0, 0, 1, n]), -60) for n in range(10)])]
    raws = []
    for number, content in enumerate(
        air + found for air in told for found in [*lists, *(told if air else ())]
    ):
        more = content + lists[number % len(lists)]
        both = [content, more] if len(more) <= 183 else [content]
        for extensions, (bssid, rssi_dbm, reason) in itertools.product(
            both, [(one, -60, 1), (one, -85, 1), (one, 0, 1), (bytes(6), -60, 1), (one, -60, 21)]
        ):
            reasons = layers(association=reason)
            values = {"bssid": bssid, "rssi_dbm": rssi_dbm, "layer_reasons": reasons}
            raws.append(board.report(DAY_S, **values, extensions=extensions))
    examined = batch.examine("gw-1", [Row(1, DAY_S, board.id, raw) for raw in raws], KEYS)
    assert not examined.refused
    heard = [examined.piece.airs[number] for number in examined.piece.columns["air"]]
    assert heard == [air_of.heard(wire.unpack(raw)) for raw in raws]
    assert len(set(heard)) >= 16


def test_what_is_right_of_all_passes_and_each_refusal_is_seen() -> None:
    """The test above proves nothing if it never draws these."""
    board, stranger = BOARDS[0], BOARDS[-1]
    whole = board.report(DAY_S, seq=9, extensions=b"\x03\x01\x02\x04\x00")
    cases = {
        intake.MALFORMED: [whole[:-1], whole + b"\0", b"", b"\2" + whole[1:], whole[:103]],
        intake.SEAL_WRONG: [whole[:-1] + b"\0", whole[:80] + b"\1" + whole[81:]],
        intake.SEQUENCE_INVALID: [
            board.report(DAY_S, oldest_seq=0),
            board.report(DAY_S, seq=1, oldest_seq=2),
            board.report(DAY_S, seq=0),
        ],
    }
    cut = board.report(DAY_S, seq=9, extensions=b"\x03\x02\x02")
    sent = [Row(1, DAY_S, board.id, raw) for raws in cases.values() for raw in (*raws, whole)]
    sent += [Row(2, DAY_S, board.id, cut), Row(3, DAY_S, stranger.id, stranger.report(DAY_S))]
    examined = batch.examine("gw-1", sent, KEYS)
    assert len(examined.piece) == len(cases)
    assert examined.piece.airs[examined.piece.columns["air"][0]] == (False, b"", b"")
    assert examined.refused == {
        intake.MALFORMED: 6, intake.SEAL_WRONG: 2, intake.SEQUENCE_INVALID: 3,
        intake.KEY_UNKNOWN: 1,
    }  # fmt: skip


@given(st.binary(min_size=32, max_size=32), st.lists(st.binary(max_size=200), max_size=4))
def test_a_seal_is_what_a_board_makes(key: bytes, parts: list[bytes]) -> None:
    board, ours = BoardSeal(key), Seal(key)
    tag = ours.tag(*parts)
    assert tag == board.tag(*parts)
    assert ours.fits(tag, *parts)
    assert not ours.fits(tag[:-1], *parts)
    assert not ours.fits(bytes([tag[0] ^ 1]) + tag[1:], *parts)
