"""What the board reads from itself: configuration, identity, flash and sensors."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import json
import struct

import agent.sensor as sensors
from agent.certificate import not_after_s, not_before_s
from agent.config import ConfigError, parse
from agent.sensor import bme280
from agent.spool import Spool
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linkreport import block, report
from linkreport.seal import Seal
from medium import FakeFiles, Store, drained, make
from place import REPORT_KEY, configuration
from port.null import NullPort
from test_sensor import FakeBus, FakeFaults, Settings

from tests.board.fuzz.mutant import JSON, documents, many, mutants

SEAL = Seal(REPORT_KEY)
WLAN = {"ssid": "Gast", "key": "", "security": "open", "bssids": []}
PAGE = {"host": "a.example.org", "address": "203.0.113.80", "port": 80, "path": "/x"}
FULL = configuration(
    watch=[WLAN],
    lan="olimex-esp32-poe",
    dhcp_servers=["10.1.0.1"],
    ntp="ntp.example.org",
    targets=[{"host": "a.example.org", "address": "203.0.113.82", "port": 443}],
    services=[{"name": "A", "host": "a", "port": 443, "path": "/", "tls": True, "status": 200}],
    throughput=dict(PAGE, bytes=262144, every=60),
    sensors=["scd4x", "bme280"],
    i2c={"sda": 21, "scl": 22},
    light=[4, 5, 13],
    led=2,
    hash_key="0" * 32,
    deadline_ms={"cycle": 40000, "radio": 9000},
)
FULL["wlan"] = dict(FULL["wlan"], portal=dict(PAGE, tls=True), bssids=["02:00:00:00:00:01"])


def taken(raw: bytes) -> bool:
    said = ""
    try:
        parse(raw)
    except ConfigError as error:
        said = str(error) or "\0"
    assert all(" " <= c <= "~" for c in said)
    return not said


def test_the_full_configuration_is_good() -> None:
    assert taken(json.dumps(FULL).encode())


@given(st.binary(max_size=200) | documents(*FULL))
@example(b"[" * 5000)
@example(b'{"version":' * 2000)
@example(b"9" * 5000)
@example(b'{"\xc3\xa4": 1}')
@many
def test_configurations(raw: bytes) -> None:
    assert not taken(raw)


@given(mutants(json.dumps(FULL).encode()))
@many
def test_mutant_configurations(raw: bytes) -> None:
    taken(raw)


def places(value: object) -> list[tuple[object, ...]]:
    """Return the ways to every value in a document."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [()] + [(key, *way) for key, each in inner for way in places(each)]


@given(st.sampled_from(places(FULL)[1:]), JSON | st.integers(-(2**70), 2**70))
@settings(max_examples=600)
def test_configurations_with_one_odd_value(way: tuple[object, ...], value: object) -> None:
    document = json.loads(json.dumps(FULL))
    inner = document
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = value
    taken(json.dumps(document).encode())


@given(st.binary(max_size=400))
@many
def test_certificates(raw: bytes) -> None:
    assert not_before_s(raw) >= 0
    assert not_after_s(raw) >= 0
    assert not_after_s(b"\x17\x0d261122061500Z" + raw) >= 0


VALIDITY = b"\x30\x1e\x17\x0d261122061500Z\x17\x0d361122061500Z"
LONG_VALIDITY = b"\x30\x22\x17\x0d261122061500Z\x18\x0f20761122061500Z"


@given(mutants(bytes(20) + VALIDITY + bytes(20), LONG_VALIDITY))
@many
def test_mutant_certificates(raw: bytes) -> None:
    assert not_before_s(raw) >= 0
    assert not_after_s(raw) >= 0


@given(st.binary(max_size=700))
@many
def test_reports(raw: bytes) -> None:
    with contextlib.suppress(report.ReportError):
        for each in report.split(raw):
            assert not report.sealed(each, SEAL)
            report.unpack(each)
    with contextlib.suppress(report.ReportError):
        report.unpack(raw)


@given(st.integers(0, 4).flatmap(lambda n: st.binary(min_size=3 * n, max_size=3 * n)))
@many
def test_sensirion_answers(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(0 <= word <= 0xFFFF for word in sensors.words(raw))


@given(st.binary(min_size=33, max_size=33), st.binary(min_size=8, max_size=8))
@example(bytes(33), bytes(8))
@example(b"\xff" * 33, b"\xff" * 8)
@example(b"\x80\x00" * 16 + b"\x80", b"\x00" * 8)
@many
def test_bme280_bytes(calibration: bytes, raw: bytes) -> None:
    centi_celsius, pressure, humidity = bme280.compensate(calibration, raw)
    assert isinstance(centi_celsius, int)
    assert isinstance(pressure, int)
    assert 0 <= humidity <= 102400


@st.composite
def buses(draw: st.DrawFn) -> FakeBus:
    """Buses on which every chip answers with bytes of its own, or with too few."""
    answers: dict[tuple[int, bytes], object] = {}
    for address, command, size in (
        (0x62, b"\x36\x82", 9), (0x62, b"\xe4\xb8", 3), (0x62, b"\xec\x05", 9), (0x44, b"\xfd", 6),
        (0x76, b"\xd0", 1), (0x76, b"\x88", 26), (0x76, b"\xe1", 7), (0x76, b"\xf3", 1),
        (0x76, b"\xf7", 8),
    ):  # fmt: skip
        raw = draw(st.binary(min_size=size, max_size=size))
        if address != 0x76 and draw(st.booleans()):
            words = [raw[at : at + 2] for at in range(0, size, 3)]
            raw = b"".join(word + bytes((sensors.crc8(word),)) for word in words)
        if command == b"\xd0" and draw(st.booleans()):
            raw = b"\x60"
        if command == b"\xf3" and draw(st.booleans()):
            raw = b"\x00"
        answers[address, command] = draw(st.sampled_from((raw, raw, raw, raw[:-1], OSError(5))))
    return FakeBus(answers)


@given(buses())
@settings(max_examples=60)
def test_a_sensor_says_what_can_be_or_is_told_to_fail(bus: FakeBus) -> None:
    port, faults, state = NullPort(), FakeFaults(), []
    port.bus = bus
    content = asyncio.run(sensors.read(port, Settings("scd4x", "sht4x", "bme280"), state, faults))
    failed, co2_ppm, centi_celsius, permille = struct.unpack(block.SENSOR_FORMAT, content)
    assert failed < 8
    assert co2_ppm == 0xFFFF or 250 <= co2_ppm <= 40000
    assert centi_celsius == -32768 or -4000 <= centi_celsius <= 8500
    assert permille == 0xFFFF or permille <= 1000
    assert bool(failed) == bool(faults.texts)


@given(st.integers(0, 12), st.data())
@settings(max_examples=150)
def test_a_spool_on_damaged_flash_works_and_never_repeats_a_number(
    count: int, data: st.DataObject
) -> None:
    files, store = FakeFiles(), Store()
    limits = {"most_records": 4, "max_segments": 8}
    spool = Spool(files, SEAL, 1, store, **limits)
    made = {}
    for _ in range(count):
        seq = spool.next_seq
        made[seq] = make(spool)
    for name in sorted(files.content):
        content = bytearray(files.content[name])
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] ^= data.draw(st.integers(1, 255))
        files.content[name] = bytes(content)
    spool = Spool(files, SEAL, 1, store, **limits)
    raw = make(spool)
    found = drained(spool)
    assert found[-1] == raw
    assert all(report.sealed(each, SEAL) for each in found)
    seqs = [report.unpack(each).seq for each in found]
    assert seqs == sorted(set(seqs))
    spool.acknowledge(spool.last_seq)
    assert spool.waiting == 0
    assert spool.oldest_seq == spool.next_seq
    assert report.unpack(raw).seq not in made
    assert set(found[:-1]) <= set(made.values())


def written() -> dict[str, bytes]:
    files = FakeFiles()
    spool = Spool(files, SEAL, 1, Store(), most_records=4, max_segments=8)
    for _ in range(9):
        make(spool)
    return files.content


SEGMENTS = written()


@st.composite
def flashes(draw: st.DrawFn) -> dict[str, bytes]:
    """Folders of segments that are cut, mixed up, foreign, or well sealed with odd numbers."""
    content = {}
    for name, raw in SEGMENTS.items():
        named = draw(st.sampled_from((name, name, name, "00000001.seg", "x", "ffffffff.seg")))
        content[named] = draw(st.just(raw) | mutants(raw))
    if draw(st.booleans()):
        first = draw(st.sampled_from((1, 5, 9, 10, 1000)))
        oldest = draw(st.integers(0, first))
        lost = draw(st.sampled_from((0, 1, 100000)))
        header = struct.pack(">2sBBHIII16s", b"NZ", 2, 0, 1, first, oldest, lost, bytes(16))
        header += struct.pack(">I", binascii.crc32(header))
        content[f"{first:08x}.seg"] = header + draw(mutants(SEGMENTS["00000001.seg"][38:]))
    return content


@given(flashes())
@settings(max_examples=200)
def test_a_spool_finds_its_way_on_any_flash(content: dict[str, bytes]) -> None:
    files = FakeFiles()
    files.content = dict(content)
    store = Store()
    spool = Spool(files, SEAL, 1, store, most_records=4, max_segments=8)
    raw = make(spool)
    found = drained(spool)
    assert found[-1] == raw
    assert all(report.sealed(each, SEAL) for each in found)
    seqs = [report.unpack(each).seq for each in found]
    assert seqs == sorted(set(seqs))
    spool.acknowledge(spool.last_seq)
    assert spool.waiting == 0
    assert len(files.content) <= 8
    again = Spool(files, SEAL, 1, store, most_records=4, max_segments=8)
    assert again.next_seq >= spool.next_seq
