"""What is in the air: networks of any name, address, channel, strength and protection."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

from agent.config import parse
from agent.cycle import Evidence
from agent.link import Link
from agent.probes import association, radio
from agent.statement import extensions
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linkreport import block
from place import configuration
from port.null import NullPort

OWN = b"\x02\x00\x00\x00\x00\x01"
MOST_BLOCKS_BYTES = 183
CONFIG = parse(
    json.dumps(
        configuration(
            hash_key="0f" * 16,
            deadline_ms={"radio": 50, "association": 50},
            wlan=dict(configuration()["wlan"], bssids=["02:00:00:00:00:01"]),
        )
    ).encode()
)
Network = tuple[bytes, bytes, int, int, int]

networks: st.SearchStrategy[Network] = st.tuples(
    st.sampled_from((b"Schule", b"", b"\xff\xfe", b"\x00" * 32)) | st.binary(max_size=32),
    st.sampled_from((OWN, bytes(6), b"\xff" * 6)) | st.binary(min_size=6, max_size=6),
    st.integers(0, 255),
    st.integers(-128, 0),
    st.integers(0, 12),
)


@given(st.lists(networks, max_size=60), st.integers(0, 60000))
@example([(b"Schule", OWN, 0, -128, 1)], 20000)
@example([(b"Schule", OWN, 255, 0, 1)] * 60, 20000)
@settings(max_examples=60)
def test_whatever_a_scan_shows_is_a_verdict(found: list[Network], day: int) -> None:
    port = NullPort()
    port.networks = found
    link = Link(port)
    link.day = day
    evidence = Evidence(link, CONFIG.wlan)

    async def go() -> list[Any]:
        return [await probe.probe(port, CONFIG, evidence) for probe in probes(evidence)]

    for result in asyncio.run(go()):
        assert 0 < result.reason < 256
        measures = result.measures
        for kind, form in (
            (block.OWN, block.OWN_FORMAT),
            (block.FOREIGN, block.FOREIGN_FORMAT),
            (block.AIR, block.AIR_FORMAT),
        ):
            assert len(measures.get(kind, b"")) % struct.calcsize(form) == 0
        assert len(extensions(measures)) <= MOST_BLOCKS_BYTES
        hidden = measures.get(block.FOREIGN, b"")
        assert not any(bssid in hidden for _, bssid, _, _, _ in found)


def probes(evidence: Evidence) -> Any:
    """The radio, and then the association if there is an access point for it."""
    yield radio
    if evidence.access_point:
        yield association
