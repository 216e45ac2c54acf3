"""A week of reports in the file system that the OTA layout leaves, beside the agent's own files."""

from __future__ import annotations

import agent.writer
import pytest
from agent.spool import Spool

from firmware.linkreport import report
from firmware.linkreport.seal import Seal
from tests.board.flash import WEEK, Flash, LittleFiles, Numbers, Week, furnished

SEAL = Seal(bytes(range(32)))


@pytest.mark.timeout(300)
def test_a_week_without_a_collector_fits_with_every_block_and_every_field_in_motion() -> None:
    flash = Flash(furnished())
    numbers = Numbers()
    week = Week(is_restless=True)
    spool = Spool(LittleFiles(flash), SEAL, 1, numbers)
    tags = []
    body_bytes = 0
    for _ in range(WEEK):
        spool.make_room()
        values = week.values(spool.next_seq, spool.oldest_seq, spool.waiting)
        raw = report.pack(values, SEAL, spool.tag)
        spool.append(raw)
        tags.append(spool.tag)
        body_bytes += raw[1]
    assert body_bytes / WEEK > 245, "the blocks fill the report"
    assert (spool.error, spool.lost, spool.waiting) == (None, 0, WEEK)
    again = Spool(LittleFiles(flash), SEAL, 1, numbers)
    found, seq = 0, 1
    while found < WEEK:
        message, seq = again.batch(seq, 8192)
        reports = report.split(message)
        assert [report.tag_of(raw) for raw in reports] == tags[found : found + len(reports)]
        found += len(reports)
    assert (again.lost, again.next_seq, again.tag) == (0, WEEK + 1, spool.tag)
    assert flash.overwritten == 0


def test_what_no_longer_fits_is_the_oldest_and_is_counted() -> None:
    """The flash is filled up by something else, so that the spool runs out of room soon."""
    flash = Flash(furnished())
    files = LittleFiles(flash)
    with files.fs.open("/ballast", "wb") as ballast:
        ballast.write(bytes(files.free_bytes() - agent.writer._RESERVE_BYTES - 8 * 4096))
    numbers = Numbers()
    week = Week(is_restless=True)
    spool = Spool(files, SEAL, 1, numbers)
    made = []
    for _ in range(1500):
        spool.make_room()
        values = week.values(spool.next_seq, spool.oldest_seq, spool.waiting)
        made.append(report.pack(values, SEAL, spool.tag))
        spool.append(made[-1])
    assert spool.error is None
    assert spool.lost > 500
    assert spool.lost + spool.waiting == 1500
    for held in (spool, Spool(LittleFiles(flash), SEAL, 1, numbers)):
        assert held.oldest_seq == spool.lost + 1
        found, seq = [], 1
        while message := (read := held.batch(seq, 8192))[0]:
            found += report.split(message)
            seq = read[1]
        assert found == made[spool.lost :]
