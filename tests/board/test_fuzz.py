"""Whatever bytes come from the air, the flash or a file: the right error, or none."""

import asyncio
import contextlib
import json

from agent import dns, ntp, web
from agent.clock import not_after_s, not_before_s
from agent.config import ConfigError, parse
from agent.mqtt import MAX_PACKET_BYTES, MqttError, parse_publish, read_packet
from agent.probes import gateway
from agent.spool import Spool
from hypothesis import given, settings
from hypothesis import strategies as st
from linkreport import ack, report
from linkreport.seal import Seal
from place import REPORT_KEY, configuration
from test_spool import FakeFiles, Store, drained, make

SEAL = Seal(REPORT_KEY)
QUESTION = dns.query(0xABCD, "probe.example.org")
HEADER = QUESTION[:2] + b"\x81\x80\x00\x01\x00\x03\x00\x00\x00\x00" + QUESTION[12:]
ACK = ack.pack(1, 5, 1790000000, SEAL)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
many = settings(max_examples=300, deadline=None)


@given(st.binary(max_size=600), st.booleans())
@many
def test_dns_answers(raw: bytes, headed: bool) -> None:
    with contextlib.suppress(dns.NotAnAnswerError):
        rcode, addresses = dns.parse(HEADER + raw if headed else raw, QUESTION)
        assert 0 <= rcode <= 15
        assert all(address.count(".") == 3 for address in addresses)


@given(st.binary(max_size=100))
@many
def test_http_status_lines(raw: bytes) -> None:
    code = web.status(raw)
    assert code is None or 100 <= code <= 999
    headed = web.status(b"HTTP/1.1 " + raw)
    assert headed is None or 100 <= headed <= 999


@given(st.binary(max_size=100))
@many
def test_echo_replies(raw: bytes) -> None:
    assert gateway.answered(raw, 0x1234) == 0
    assert gateway.answered(b"\x45" + raw, 0x1234) == 0


class Stream:
    def __init__(self, content: bytes) -> None:
        self.content = content

    async def readexactly(self, size: int) -> bytes:
        if len(self.content) < size:
            raise EOFError
        piece, self.content = self.content[:size], self.content[size:]
        return piece


@given(st.binary(max_size=2000))
@many
def test_mqtt_packets(raw: bytes) -> None:
    with contextlib.suppress(MqttError, EOFError):
        kind, body = asyncio.run(read_packet(Stream(raw)))
        assert len(body) <= MAX_PACKET_BYTES
        parse_publish(kind, body)


@given(st.binary(max_size=60), st.integers(0, len(ACK) - 1), st.integers(1, 255))
@many
def test_acknowledgements(raw: bytes, at: int, flip: int) -> None:
    altered = bytearray(ACK)
    altered[at] ^= flip
    for each in (raw, bytes(altered)):
        with contextlib.suppress(ack.AckError):
            ack.unpack(each, SEAL)
            raise AssertionError("a forged acknowledgement was taken")


@given(st.binary(max_size=700))
@many
def test_reports(raw: bytes) -> None:
    with contextlib.suppress(report.ReportError):
        for each in report.split(raw):
            assert not report.sealed(each, SEAL)
            report.unpack(each)
    with contextlib.suppress(report.ReportError):
        report.unpack(raw)


@given(st.binary(max_size=200), JSON)
@many
def test_configurations(raw: bytes, document: object) -> None:
    for each in (raw, json.dumps(document).encode()):
        with contextlib.suppress(ConfigError):
            parse(each)
            raise AssertionError("it cannot be right")


@given(st.sampled_from(sorted(configuration())), JSON)
@many
def test_configurations_with_one_odd_value(key: str, value: object) -> None:
    with contextlib.suppress(ConfigError):
        parse(json.dumps(configuration(**{key: value})).encode())


@given(st.sampled_from(["wlan", "uplink", "resolver", "internet", "thresholds"]), st.data(), JSON)
@many
def test_configurations_with_one_odd_value_below(
    section: str, data: st.DataObject, value: object
) -> None:
    document = configuration()
    document[section][data.draw(st.sampled_from(sorted(document[section])))] = value
    with contextlib.suppress(ConfigError):
        parse(json.dumps(document).encode())


@given(st.binary(max_size=400))
@many
def test_certificates(raw: bytes) -> None:
    assert not_before_s(raw) >= 0
    assert not_after_s(raw) >= 0
    assert not_after_s(b"\x17\x0d261122061500Z" + raw) >= 0


@given(st.binary(max_size=100))
@many
def test_ntp_answers(raw: bytes) -> None:
    assert ntp.parse(raw, b"12345678", 0) is None
    told = ntp.parse(b"\x24\x02" + bytes(22) + b"12345678" + raw, b"12345678", 0)
    assert told is None or -62e6 < told < 4.3e9


@given(st.integers(0, 12), st.data())
@settings(max_examples=150, deadline=None)
def test_a_spool_on_damaged_flash_works_and_never_repeats_a_number(
    count: int, data: st.DataObject
) -> None:
    files, store = FakeFiles(), Store()
    limits = {"segment_bytes": 38 + 4 * 88, "max_segments": 8}
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
