from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.board.application import PARTITIONS
from hil.board.flash import INSTANT, Flash
from hil.board.nvs import NAME_TOO_LONG, NO_SPACE, NOT_FOUND, VALUE_TOO_LONG, Nvs, NvsError

NVS_ADDRESS = 0x9000


@pytest.fixture
def flash(tmp_path: Path) -> Iterator[Flash]:
    opened = Flash(tmp_path / "flash.bin", INSTANT)
    yield opened
    opened.close()


# Of what esp-idf-nvs-partition-gen 0.3.0 makes of the namespace "app" with the 32-bit number
# boots = 5 and the blob token = 100 times 0xAB, for a partition of 0x6000 bytes.
GENERATED_SHA256 = "e640990fe22a4456a662c3ce72f28b376c81384449c636f527c32ec03ab5b017"


def test_the_bytes_are_those_of_esp_idfs_own_generator(flash: Flash) -> None:
    store = Nvs(flash, list(PARTITIONS))
    store.set("app", "boots", number=5)
    store.set("app", "token", blob="ab" * 100)
    partition = flash.read(NVS_ADDRESS, 0x6000)
    assert hashlib.sha256(partition).hexdigest() == GENERATED_SHA256


def test_errors_have_esp_idfs_codes(flash: Flash) -> None:
    store = Nvs(flash, list(PARTITIONS))

    def code(call: object, *arguments: object, **options: object) -> int:
        assert callable(call)
        with pytest.raises(NvsError) as caught:
            call(*arguments, **options)
        return caught.value.code

    assert code(store.get, "app", "key", "number") == NOT_FOUND
    assert code(store.erase, "app", "key") == NOT_FOUND
    assert code(store.open, "a-name-of-16-byte") == NAME_TOO_LONG
    assert code(store.set, "app", "a-key-of-16-bytes", number=1) == NAME_TOO_LONG
    assert code(store.set, "app", "key", blob="00" * 5000) == VALUE_TOO_LONG
    for number in range(5):
        store.set("app", f"blob{number}", blob="ab" * 3900)
    before = [store.get("app", f"blob{number}", "blob") for number in range(5)]
    assert code(store.set, "app", "more", blob="cd" * 3900) == NO_SPACE
    assert [store.get("app", f"blob{number}", "blob") for number in range(5)] == before


def test_many_writes_fit_because_old_ones_are_cleared_away(flash: Flash) -> None:
    store = Nvs(flash, list(PARTITIONS))
    store.set("app", "kept", blob="0102")
    for number in range(2000):
        store.set("app", "count", number=number)
    assert Nvs(flash, list(PARTITIONS)).get("app", "count", "number") == 1999
    assert store.get("app", "kept", "blob") == "0102"


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["one", "two"]),
        st.sampled_from(["a", "b", "c"]),
        st.one_of(st.integers(-(2**31), 2**31 - 1), st.binary(max_size=1500), st.just(None)),
    ),
    max_size=40,
)


@settings(max_examples=30)
@given(OPERATIONS)
def test_it_behaves_as_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[str, str, int | bytes | None]],
) -> None:
    flash = Flash(tmp_path_factory.getbasetemp() / "nvs.bin", INSTANT)
    flash.erase_region(NVS_ADDRESS, 0x6000)
    store, model = Nvs(flash, list(PARTITIONS)), dict[tuple[str, str], int | bytes]()
    for space, key, value in operations:
        if value is None:
            if model.pop((space, key), None) is not None:
                store.erase(space, key)
        elif isinstance(value, int):
            store.set(space, key, number=value)
            model[space, key] = value
        else:
            store.set(space, key, blob=value.hex())
            model[space, key] = value
    fresh = Nvs(flash, list(PARTITIONS))
    for (space, key), value in model.items():
        if isinstance(value, int):
            assert fresh.get(space, key, "number") == value
        else:
            assert fresh.get(space, key, "blob") == value.hex()
    flash.close()


@settings(max_examples=50)
@given(st.binary(max_size=300), st.integers(0, 4096))
def test_garbage_in_the_partition_is_survived(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, at: int
) -> None:
    flash = Flash(tmp_path_factory.getbasetemp() / "garbage.bin", INSTANT)
    flash.erase_region(NVS_ADDRESS, 0x6000)
    store = Nvs(flash, list(PARTITIONS))
    store.set("app", "blob", blob="11" * 100)
    flash.program(NVS_ADDRESS + at, garbage)
    for action in (
        lambda: store.get("app", "blob", "blob"),
        lambda: store.set("app", "number", number=1),
    ):
        with contextlib.suppress(NvsError):
            action()
    flash.close()
