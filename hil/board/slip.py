"""SLIP framing (RFC 1055), as ESP32 loaders speak it: 0xC0 before and after each frame."""

from __future__ import annotations

END = 0xC0
ESCAPE = 0xDB
_ESCAPED = {0xDC: END, 0xDD: ESCAPE}


def encode(frame: bytes) -> bytes:
    """Return the bytes that carry one frame over the line."""
    return b"\xc0" + frame.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


class Decoder:
    """Cuts a stream of bytes into frames; noise before the first END and broken frames are lost."""

    def __init__(self, limit_bytes: int = 0x10000) -> None:
        self._limit_bytes = 2 * limit_bytes  # every byte may be escaped
        self._partial: bytearray | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes from the line; return the frames that are complete now."""
        frames: list[bytes] = []
        *ended, rest = data.split(b"\xc0")
        for piece in ended:
            if self._partial is not None:
                frame = _unescape(bytes(self._partial + piece))
                if frame:
                    frames.append(frame)
            self._partial = bytearray()
        if self._partial is not None:
            self._partial += rest
            if len(self._partial) > self._limit_bytes:
                self._partial = None
        return frames


def _unescape(raw: bytes) -> bytes | None:
    head, *rest = raw.split(b"\xdb")
    parts = [head]
    for piece in rest:
        if not piece or piece[0] not in _ESCAPED:
            return None
        parts += (bytes((_ESCAPED[piece[0]],)), piece[1:])
    return b"".join(parts)
