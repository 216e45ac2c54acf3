"""The loader's protocol without a line; the real esptool is in test_esptool.py."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.board import slip
from hil.board.flash import SIZE_BYTES, TYPICAL, Flash
from hil.board.loader import Answer, Loader

MAC = bytes.fromhex("240ac4123456")


@pytest.fixture(scope="module")
def flash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flash]:
    opened = Flash(tmp_path_factory.mktemp("loader") / "flash.bin", TYPICAL)
    yield opened
    opened.close()


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def request(command: int, body: bytes = b"", checksum: int = 0) -> bytes:
    return struct.pack("<BBHI", 0, command, len(body), checksum) + body


def data_request(command: int, data: bytes, number: int = 0) -> bytes:
    checksum = 0xEF
    for byte in data:
        checksum ^= byte
    return request(command, struct.pack("<IIII", len(data), number, 0, 0) + data, checksum)


def ask(loader: Loader, frame: bytes) -> tuple[Answer, list[bytes]]:
    answer = loader.handle(frame)
    assert answer is not None
    return answer, slip.Decoder().feed(answer.data)


def is_good(frame: bytes, *, stub: bool) -> bool:
    return frame[-2 if stub else -4] == 0


def start_stub(loader: Loader) -> None:
    _, frames = ask(loader, request(0x06, struct.pack("<II", 0, 0x400BE598)))
    assert frames[-1] == b"OHAI"


def test_sync_tells_rom_from_stub(flash: Flash) -> None:
    loader = Loader(flash, MAC)
    _, frames = ask(loader, request(0x08, b"\x07\x07\x12\x20" + b"\x55" * 32))
    assert len(frames) == 8
    assert all(struct.unpack_from("<I", frame, 4)[0] for frame in frames)
    start_stub(loader)
    _, frames = ask(loader, request(0x08, b"\x07\x07\x12\x20" + b"\x55" * 32))
    assert [struct.unpack_from("<I", frame, 4)[0] for frame in frames] == [0] * 8


def test_the_rom_refuses_what_only_the_stub_knows(flash: Flash) -> None:
    loader = Loader(flash, MAC)
    for command in (0xD0, 0xD1, 0xD2, 0x14, 0x77):
        _, (frame,) = ask(loader, request(command, bytes(16)))
        assert frame[-4:-2] == b"\x01\x05"


def test_a_compressed_write_erases_as_it_goes_and_answers_first(flash: Flash) -> None:
    flash.program(0x20000, bytes(0x14000))
    loader = Loader(flash, MAC)
    start_stub(loader)
    data = bytes(range(256)) * 300  # 76,800 bytes: one block of 64 KB and three sectors
    ask(loader, request(0x10, struct.pack("<IIIII", len(data), 1, 0x4000, 0x20000, 0)))
    answer, (frame,) = ask(loader, data_request(0x11, zlib.compress(data)))
    assert is_good(frame, stub=True)
    assert answer.before_us == 0
    assert answer.after_us == 150_000 + 3 * 45_000 + 300 * 400
    assert flash.read(0x20000, len(data)) == data
    answer, (frame,) = ask(loader, request(0x12, struct.pack("<I", 1)))
    assert is_good(frame, stub=True)
    assert not answer.reboot
    _, (frame,) = ask(loader, request(0x13, struct.pack("<IIII", 0x20000, len(data), 0, 0)))
    assert frame[8:24] == md5(data)


def test_the_rom_erases_before_it_answers(flash: Flash) -> None:
    loader = Loader(flash, MAC)
    answer, _ = ask(loader, request(0x02, struct.pack("<IIII", 0x1000, 4, 0x400, 0x40000)))
    assert (answer.before_us, answer.after_us) == (45_000, 0)
    answer, _ = ask(loader, data_request(0x03, b"a" * 0x400))
    assert (answer.before_us, answer.after_us) == (4 * 400, 0)
    assert flash.read(0x40000, 0x400) == b"a" * 0x400


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (data_request(0x03, b"abc"), 0xC6),  # nothing was begun
        (request(0x03, struct.pack("<IIII", 4, 0, 0, 0) + b"abc"), 0xC0),
        (request(0x03, struct.pack("<IIII", 3, 0, 0, 0) + b"abc", 0x55), 0xC1),
        (request(0x10, struct.pack("<IIII", 8, 1, 0x4000, SIZE_BYTES - 4)), 0xC0),
        (request(0xD1, struct.pack("<II", 1, 4096)), 0xC0),
        (request(0x0A, b"\x01"), 0xC0),
        (request(0x55), 0xFF),
    ],
)
def test_what_cannot_be_done_is_answered_with_its_reason(
    flash: Flash, frame: bytes, code: int
) -> None:
    loader = Loader(flash, MAC)
    start_stub(loader)
    _, (answer,) = ask(loader, frame)
    assert answer[-2:] == bytes((1, code))


@pytest.mark.parametrize(
    ("size", "stream", "code"),
    [
        (100, b"no deflate stream", 0xC7),
        (100, zlib.compress(bytes(101)), 0xC4),
        (100, zlib.compress(bytes(1 << 24)), 0xC4),  # a bomb stays small
    ],
)
def test_a_bad_stream_is_refused(flash: Flash, size: int, stream: bytes, code: int) -> None:
    loader = Loader(flash, MAC)
    start_stub(loader)
    ask(loader, request(0x10, struct.pack("<IIIII", size, 1, 0x4000, 0x60000, 0)))
    _, (answer,) = ask(loader, data_request(0x11, stream))
    assert answer[-2:] == bytes((1, code))


def test_an_unfinished_write_is_an_error_at_its_end(flash: Flash) -> None:
    loader = Loader(flash, MAC)
    start_stub(loader)
    ask(loader, request(0x02, struct.pack("<IIIII", 0x2000, 1, 0x4000, 0x60000, 0)))
    _, (answer,) = ask(loader, request(0x04, struct.pack("<I", 0)))
    assert answer[-2] == 1


def test_a_read_keeps_its_distance_to_the_acknowledgements(flash: Flash) -> None:
    flash.erase_block(0x70000)
    loader = Loader(flash, MAC)
    start_stub(loader)
    _, frames = ask(loader, request(0xD2, struct.pack("<IIII", 0x70000, 0x3800, 0x1000, 2)))
    assert [len(frame) for frame in frames[1:]] == [0x1000, 0x1000]
    _, frames = ask(loader, struct.pack("<I", 0x2000))
    assert [len(frame) for frame in frames] == [0x1000, 0x800]
    _, frames = ask(loader, struct.pack("<I", 0x3800))
    assert frames == [md5(b"\xff" * 0x3800)]


def test_registers_say_what_esptool_looks_for(flash: Flash) -> None:
    loader = Loader(flash, MAC)

    def read(address: int) -> int:
        _, (frame,) = ask(loader, request(0x0A, struct.pack("<I", address)))
        return int(struct.unpack_from("<I", frame, 4)[0])

    assert read(0x40001000) == 0x00F01D83
    assert (read(0x3FF5A008) & 0xFFFF) << 32 | read(0x3FF5A004) == 0x240AC4123456
    assert read(0x3FF40014) == 40_000_000 // 115200
    ask(loader, request(0x0F, struct.pack("<II", 921600, 0)))
    assert read(0x3FF40014) == 40_000_000 // 921600


@given(st.lists(st.binary(min_size=1, max_size=200)))
def test_slip_carries_every_frame(frames: list[bytes]) -> None:
    assert slip.Decoder().feed(b"".join(map(slip.encode, frames))) == frames


@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(1, 10), max_size=60))
def test_slip_does_not_care_how_bytes_are_cut(frame: bytes, cuts: list[int]) -> None:
    stream, decoder, found = slip.encode(frame), slip.Decoder(), []
    for cut in [*cuts, len(stream)]:
        found += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [frame]


@given(st.binary(), st.binary(min_size=1, max_size=50))
def test_slip_recovers_after_noise(noise: bytes, frame: bytes) -> None:
    decoder = slip.Decoder()
    decoder.feed(noise)
    # At most one frame is spoilt by an END or ESCAPE in the noise.
    assert frame in decoder.feed(b"\xc0" + slip.encode(frame))


def test_slip_forgets_a_frame_without_end() -> None:
    decoder = slip.Decoder(limit_bytes=100)
    assert decoder.feed(b"\xc0" + bytes(300)) == []
    assert decoder.feed(slip.encode(b"after")) == [b"after"]


COMMANDS = st.sampled_from([*range(0x16), 0xD0, 0xD1, 0xD2, 0xD3, 0xD4, 0xFF])


@settings(max_examples=200)
@given(
    st.booleans(),
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(request, COMMANDS, st.binary(max_size=64), st.integers(0, 0xFFFFFFFF)),
            st.builds(
                lambda command, words: request(command, struct.pack(f"<{len(words)}I", *words)),
                COMMANDS,
                st.lists(st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0, 0x2000)), max_size=6),
            ),
            st.builds(data_request, COMMANDS, st.binary(max_size=64)),
        ),
        max_size=12,
    ),
)
def test_hostile_frames_never_break_the_loader(
    tmp_path_factory: pytest.TempPathFactory, stub: bool, frames: list[bytes]
) -> None:
    flash = Flash(shared_flash(tmp_path_factory), TYPICAL)
    loader = Loader(flash, MAC)
    if stub:
        start_stub(loader)
    for frame in frames:
        answer = loader.handle(frame)
        assert answer is None or isinstance(answer.data, bytes)
    assert flash.path.stat().st_size == SIZE_BYTES
    flash.close()


def shared_flash(factory: pytest.TempPathFactory) -> Path:
    return factory.getbasetemp() / "hostile.bin"
