"""The gateway of a soak's board, as far as it answers pings; of ten it loses three, if told to."""

import errno
import struct


class Echo:
    """A raw ICMP socket whose other end answers at once.

    Args:
        answers: whether it does; `loses`: three of ten are lost.
    """

    def __init__(self, answers, loses):
        self._answers = answers
        self._loses = loses
        self._number = 0
        self._reply = None

    def setblocking(self, flag):
        pass

    def bind(self, address):
        pass

    def sendto(self, packet, target):
        if self._answers and not (self._loses and self._number % 10 < 3):
            # Type 8 becomes 0, so the checksum grows by 0x0800 (RFC 1624).
            summed = struct.unpack(">H", packet[2:4])[0] + 0x0800
            summed = (summed & 0xFFFF) + (summed >> 16)
            reply = b"\x00\x00" + struct.pack(">H", summed) + packet[4:]
            self._reply = b"\x45" + bytes(19) + reply
        self._number += 1
        return len(packet)

    def recv(self, size):
        reply, self._reply = self._reply, None
        if reply is None:
            raise OSError(errno.EAGAIN)
        return reply

    def close(self):
        pass
