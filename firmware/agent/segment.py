"""A segment of the spool on flash, append-only: what its parts share. On loan.

    segment = header ‖ record ‖ record ‖ …        file name: first sequence number, in hex
    header  = "NZ" ‖ version (B) ‖ 0 (B) ‖ key id (H) ‖ first sequence (I) ‖ oldest sequence (I)
              ‖ lost (I) ‖ link of the first record (16) ‖ CRC-32 of all that (I): 38 bytes
    record  = size (B) ‖ size XOR 255 (B) ‖ code ‖ first 4 bytes of the tag

The code is the body's difference to the record before (`agent.delta`; size 0: the body as it
is). Link and tag are made again when a report is read: the link is the tag before it, and the
tag must begin as the record says. A segment is one block of LittleFS. A plain report takes 16 bytes
of flash, one that is full of blocks whose every field moves 58: 27 days of one report a minute
fit the 960 KiB of the OTA layout beside the agent's own files, and 7.5 in the worst case.
"""

import binascii
import os
import struct

_MAGIC = b"NZ\x02\x00"
_HEADER = ">4sHIII16s"
HEADER_BYTES = 38
MARK_BYTES = 4


class Files:
    """The few file operations that the spool needs, in one folder."""

    def __init__(self, folder):
        self._folder = folder

    def names(self):
        """Go through the names of the files; a folder that is not there yet is made."""
        try:
            os.mkdir(self._folder)
        except OSError:  # it is there; if not, what follows says so
            pass
        if hasattr(os, "ilistdir"):  # MicroPython's: all names at once may be 7 KB
            return (entry[0] for entry in os.ilistdir(self._folder))
        return os.listdir(self._folder)

    def write(self, name, offset, content):
        """Write at an offset, which is the file's end; 0 makes the file anew."""
        with open(self._folder + "/" + name, "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(content)

    def open(self, name):
        """Open a file for reading."""
        return open(self._folder + "/" + name, "rb")

    def remove(self, name):
        """Remove a file."""
        os.remove(self._folder + "/" + name)

    def free_bytes(self):
        """Return the free space."""
        stat = os.statvfs(self._folder)
        return stat[0] * stat[3]


def files(spool):
    """Return the files of a spool."""
    return Files(spool.files) if isinstance(spool.files, str) else spool.files


def header(spool, link):
    """Return the header of the segment that begins with what comes next on flash."""
    seq = spool.flash_seq
    content = struct.pack(_HEADER, _MAGIC, spool.key_id, seq, spool.oldest_seq, spool.lost, link)
    return content + binascii.crc32(content).to_bytes(4, "big")


def parse(content, name):
    """Return (key id, first sequence, oldest sequence, lost, link), None for no good header."""
    if len(content) == HEADER_BYTES:
        magic, *rest = struct.unpack(_HEADER, content[:-4])
        good = int.from_bytes(content[-4:], "big") == binascii.crc32(content[:-4])
        if good and magic == _MAGIC and file_name(rest[1]) == name:
            return rest
    return None


def drop(spool):
    """Remove the segments of which all is acknowledged, but never the newest."""
    firsts = spool.firsts
    while len(firsts) > 1 and firsts[1] <= spool.acked + 1:
        files(spool).remove(file_name(firsts[0]))
        firsts.pop(0)


def set_aside(spool):
    """See that numbers used now are not used again, should the flash forget them all."""
    spool.remember("seq_bound", spool.firsts[-1] + spool.most_records + 1)
    spool.remember("key_id", spool.key_id)


def file_name(first_seq):
    """Return the name of the segment that begins with a sequence number."""
    return "%08x.seg" % first_seq
