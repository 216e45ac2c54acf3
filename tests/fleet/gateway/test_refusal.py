"""Who gets nothing into the store, through a real broker and the real collector."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from fleet import authority
from tests.fleet.gateway.scene import (
    Board,
    RunningGateway,
    Scene,
    Sealer,
    board_id,
    knock,
    served,
)

ROBBED, THIEF, NEIGHBOUR = board_id(1), board_id(2), board_id(3)


class Place:
    """A gateway with three boards; the first one's key is known to the tests."""

    def __init__(self, scene: Scene, gateway: RunningGateway, keys: dict[str, bytes]) -> None:
        self.scene, self.gateway, self.keys = scene, gateway, keys
        # A board that behaves, to show that all before it has been dealt with.
        self.neighbour = Board(
            scene.connection(scene.city.ca.issue_board(NEIGHBOUR)), NEIGHBOUR, keys[NEIGHBOUR]
        )

    def board(self, name: str, *, certificate_of: str | None = None) -> Board:
        identity = self.scene.city.ca.issue_board(certificate_of or name)
        return Board(self.scene.connection(identity), name, self.keys[name])

    def settled(self) -> None:
        self.neighbour.make()
        self.neighbour.drain()

    def stored(self, name: str) -> list[Any]:
        rows = self.gateway.rows("SELECT device, key_id, seq FROM report ORDER BY row")
        return [row[1:] for row in rows if row[0] == name]

    def refusals(self, name: str) -> dict[str, int]:
        rows = self.gateway.rows("SELECT device, reason, count FROM refusal")
        return {reason: count for device, reason, count in rows if device == name}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    scene = Scene(tmp_path_factory.mktemp("refusal"))
    keys = {name: scene.city.enrol(name) for name in map(board_id, range(1, 10))}
    with served(scene) as gateway:
        yield Place(scene, gateway, keys)
        scene.close()


def test_good_reports_are_stored_and_acknowledged(place: Place) -> None:
    board = place.board(board_id(4))
    made = board.make(3)
    board.drain()
    assert board.acked == 3
    raws = place.gateway.rows("SELECT device, raw FROM report ORDER BY row")
    assert [raw for device, raw in raws if device == board.name] == made


def test_a_board_that_comes_online_hears_how_far_it_is(place: Place) -> None:
    board = place.board(board_id(5))
    board.make(2)
    board.drain()
    again = place.board(board_id(5))
    again.take_acks(timeout_s=10)
    assert again.acked == 2


def test_another_boards_certificate_opens_no_other_boards_topic(place: Place) -> None:
    board = place.board(ROBBED, certificate_of=THIEF)
    board.make()
    board.send(board.spool[1])
    place.gateway.said("refused", "reason=topic-denied", f"device={THIEF}", ROBBED)
    place.settled()
    assert place.stored(ROBBED) == []


def test_another_boards_certificate_does_not_help_its_own_topic(place: Place) -> None:
    thief = place.board(THIEF)
    thief.send(Sealer(place.keys[ROBBED]).make())
    place.gateway.said("refused", "reason=seal-wrong", f"device={THIEF}")
    place.settled()
    assert place.stored(THIEF) == []
    assert place.refusals(THIEF)["seal-wrong"] == 1


def test_a_board_hears_only_its_own_acknowledgements(place: Place) -> None:
    thief = place.board(THIEF)
    thief.connection.subscribe(f"netzpuls/v1/{board_id(6)}/ack")
    thief.connection.subscribe("netzpuls/v1/+/ack")
    thief.connection.subscribe("#")
    thief.take_acks(timeout_s=1)  # its own, for coming online
    board = place.board(board_id(6))
    board.make()
    board.drain()
    place.settled()
    assert thief.connection.acks.empty()


# With TLS 1.3 a client hears of its refusal late, or only that the line is gone.
REFUSED = (ssl.SSLError, ConnectionError)


def test_no_certificate_no_connection(place: Place) -> None:
    with pytest.raises(REFUSED):
        knock(place.scene, None)
    place.gateway.said("refused", "reason=certificate-missing")


def test_a_certificate_of_another_ca_or_expired_or_of_a_server_is_no_boards(
    place: Place,
) -> None:
    ca = place.scene.city.ca
    foreign = authority.ensure(place.scene.root / "other", "anderswo")
    begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    for identity in (
        foreign.issue_board(ROBBED),
        ca.issue_board(ROBBED, valid_from=begin, valid_for=dt.timedelta(days=1)),
        ca.issue_gateway("gw-nord"),
    ):
        with pytest.raises(REFUSED):
            knock(place.scene, identity)
    place.gateway.said("refused", "reason=certificate-invalid")


def test_a_board_does_not_accept_another_gateway(place: Place) -> None:
    board = place.scene.city.ca.issue_board(ROBBED)
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'gw-nord'"):
        knock(place.scene, board, server_name="gw-nord")
    assert knock(place.scene, board) == bytes((0x20, 2, 0, 0))  # CONNACK, accepted


@pytest.mark.parametrize(
    ("version", "good"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)]
)
def test_tls_is_at_least_1_2(place: Place, version: str, *, good: bool) -> None:
    board = place.scene.city.ca.issue_board(ROBBED)
    if good:
        assert knock(place.scene, board, version=version)
    else:
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            knock(place.scene, board, version=version)


def test_a_client_id_is_no_mans_to_take(place: Place) -> None:
    board = place.board(board_id(7))
    intruder = place.scene.connection(place.scene.city.ca.issue_board(THIEF), client_id=board_id(7))
    intruder.start()
    intruder.wait("connected")
    board.make()
    board.drain()
    assert "lost" not in board.connection.seen()


def test_bad_reports_are_refused_each_with_its_reason(place: Place) -> None:
    name = board_id(8)
    board = place.board(name)
    first, second, third = board.make(3)
    fork = Sealer(place.keys[name])
    fork.make()
    forged = fork.make(text="the second again, otherwise")
    unknown = Sealer(place.keys[name], 9)
    for payload in (
        first,
        first[:-1] + bytes([first[-1] ^ 1]),
        unknown.make(),
        second + third[:50],
        forged,
        b"\x07nonsense",
        b"",
        first,  # once more: a duplicate is no refusal
        first + first[:-1] + bytes([first[-1] ^ 1]) + third,
    ):
        board.send(payload)
    board.drain()
    assert place.stored(name) == [(1, 1), (1, 2), (1, 3)]
    assert place.refusals(name) == {
        "seal-wrong": 2,
        "key-unknown": 1,
        "cut-short": 1,
        "forked": 1,
        "version-unknown": 1,
        "message-empty": 1,
    }
    for reason in place.refusals(name):
        place.gateway.said("warning refused", f"reason={reason}", f"device={name}")


def test_an_oversize_message_ends_the_connection(place: Place) -> None:
    board = place.board(THIEF)
    board.send(bytes(100_000))
    place.gateway.said("refused", "reason=message-too-large", f"device={THIEF}")
    place.settled()
    assert place.stored(THIEF) == []


def test_a_board_enrolled_while_the_gateway_runs_is_served(place: Place) -> None:
    name = board_id(20)
    board = Board(place.scene.connection(place.scene.city.ca.issue_board(name)), name, bytes(32))
    board.send(board.make()[0])
    place.gateway.said("refused", "reason=board-unknown", f"device={name}")
    key = place.scene.city.enrol(name)
    place.scene.prepare()
    place.gateway.said("boards-changed")
    board.sealer, board.spool = Sealer(key), {}
    board.make(2)
    board.drain()
    assert place.stored(name) == [(1, 1), (1, 2)]


def test_a_loss_and_a_break_are_told_and_do_not_stop_the_rest(place: Place) -> None:
    board = place.board(board_id(9))
    board.make(2)
    board.drain()
    board.make(3)
    board.spool.clear()  # it had to give them up
    board.make()
    board.drain()
    place.gateway.said("reports-lost", board.name, "seq 3..5")
    board.sealer.link = bytes(range(16))
    board.make()
    board.drain()
    place.gateway.said("chain-broken", board.name, "seq 7")
    assert board.acked == 7
    assert [seq for _, seq in place.stored(board.name)] == [1, 2, 6, 7]
