import pytest

from fleet.gateway import intake
from fleet.gateway.keyring import Keyring
from tests.fleet.gateway.scene import Sealer

BOARD = "np-240ac4000001"
TOPIC = f"netzpuls/v1/{BOARD}/report"
KEYS = Keyring({BOARD: {1: bytes(32), 2: bytes([2]) * 32}})
MAX_BYTES = 4096


def reasons(payload: bytes, topic: str = TOPIC) -> tuple[list[int], list[str]]:
    found = intake.examine(topic, payload, KEYS, MAX_BYTES)
    assert all(refusal.device in (BOARD, "") for refusal in found.refusals)
    return [item.seq for item in found.reports], [r.reason for r in found.refusals]


def good(count: int, key: bytes = bytes(32), key_id: int = 1) -> list[bytes]:
    sealer = Sealer(key, key_id)
    return [sealer.make() for _ in range(count)]


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def test_good_reports_pass_whole() -> None:
    first, second = good(2)
    found = intake.examine(TOPIC, first + second, KEYS, MAX_BYTES)
    assert found.refusals == []
    assert [(i.device, i.key_id, i.seq, i.oldest_seq) for i in found.reports] == [
        (BOARD, 1, 1, 1),
        (BOARD, 1, 2, 1),
    ]
    assert [item.raw for item in found.reports] == [first, second]


def test_each_key_seals_its_own() -> None:
    assert reasons(good(1, bytes([2]) * 32, 2)[0]) == ([1], [])
    assert reasons(good(1, bytes(32), 2)[0]) == ([], ["seal-wrong"])
    assert reasons(good(1, bytes(32), 3)[0]) == ([], ["key-unknown"])


@pytest.mark.parametrize("at", [4, 20, 71, 72, 87, 88, 103])
def test_a_changed_byte_is_noticed_and_its_neighbours_stay(at: int) -> None:
    first, second, third = good(3)
    assert reasons(first + flipped(second, at) + third) == ([1, 3], ["seal-wrong"])


def test_a_cut_keeps_what_was_before() -> None:
    first, second = good(2)
    for cut in range(1, len(second)):
        assert reasons(first + second[:cut]) == ([1], ["cut-short"])


def test_another_version_ends_the_message() -> None:
    first, second = good(2)
    assert reasons(first + b"\x02" + second) == ([1], ["version-unknown"])
    assert reasons(b"{}") == ([], ["version-unknown"])


def test_an_extension_that_is_cut_is_malformed() -> None:
    sealer = Sealer(bytes(32))
    raw = sealer.make(text="abc")
    assert reasons(raw[:73] + b"\xff" + raw[74:]) == ([], ["malformed"])


def test_sequences_that_cannot_be_are_refused() -> None:
    sealer = Sealer(bytes(32))
    assert reasons(sealer.make(oldest_seq=2)) == ([], ["sequence-invalid"])
    assert reasons(sealer.make(oldest_seq=0)) == ([], ["sequence-invalid"])
    sealer.seq = -1
    assert reasons(sealer.make(oldest_seq=0)) == ([], ["sequence-invalid"])


def test_sizes_are_bounded() -> None:
    assert reasons(b"") == ([], ["message-empty"])
    assert reasons(bytes(MAX_BYTES + 1)) == ([], ["message-too-large"])


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("netzpuls/v1/np-240ac4000002/report", "board-unknown"),
        ("netzpuls/v1/np-240AC4000001/report", "board-name"),
        ("netzpuls/v1/np-240ac4000001/x/report", "board-name"),
        ("netzpuls/v1/../report", "board-name"),
        ("\x1b[31m", "board-name"),
    ],
)
def test_a_topic_that_is_no_board_of_ours_is_refused(topic: str, reason: str) -> None:
    found = intake.examine(topic, good(1)[0], KEYS, MAX_BYTES)
    assert found.reports == []
    assert [r.reason for r in found.refusals] == [reason]
    assert "\x1b" not in found.refusals[0].detail
