"""A board's link, read along into a pcap file that Wireshark and scapy open.

Source: the pcap file format, magic 0xa1b2c3d4, link type 1 (Ethernet).
"""

from __future__ import annotations

import select
import struct
import threading
import time
from pathlib import Path

from hil.lab.error import LabError
from hil.lab.namespace import Namespace
from hil.lab.relay import drained, packet_socket

_HEAD = struct.Struct("=IHHiIII")
_RECORD = struct.Struct("=IIII")
_MAGIC, _SNAP_BYTES, _ETHERNET = 0xA1B2C3D4, 65535, 1
_POLL_S = 0.1


class Capture:
    """Writes every frame of some interfaces, both ways, until `close`.

    Raises: LabError: the file cannot be written.
    """

    def __init__(self, namespace: Namespace, interfaces: list[str], path: Path) -> None:
        self.frames = 0
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise LabError(
                f"{path} cannot be written: {error.strerror}", hint="name another file"
            ) from None
        self._file.write(_HEAD.pack(_MAGIC, 2, 4, 0, 0, _SNAP_BYTES, _ETHERNET))
        self._sockets = [packet_socket(namespace, each, both_ways=True) for each in interfaces]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for sock in select.select(self._sockets, [], [], _POLL_S)[0]:
                for frame in drained(sock):
                    second, rest_ns = divmod(time.time_ns(), 1_000_000_000)
                    size = len(frame)
                    self._file.write(_RECORD.pack(second, rest_ns // 1000, size, size) + frame)
                    self.frames += 1

    def close(self) -> int:
        """Stop; return how many frames were written."""
        self._stopping.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()
        self._file.close()
        return self.frames
