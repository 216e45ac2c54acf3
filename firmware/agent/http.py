"""What a web server answers: its status, and where that is asked for a small body. On loan."""

from linkreport.table import HTTP_SILENT, HTTP_UNEXPECTED
from micropython import const

from .connection import receive

_MAX_LINE_BYTES = const(256)
_MAX_HEADER_BYTES = const(2048)
_PIECE_BYTES = const(256)


async def answer(port, sock, until_ms, seen, body_bytes):
    """Read an answer into a `web.Visit`."""
    start_ms = port.uptime_ms()
    raw = b""
    while b"\n" not in raw and len(raw) < _MAX_LINE_BYTES:
        more = await _more(port, sock, _MAX_LINE_BYTES - len(raw), until_ms)
        if not more:
            break
        raw += more
    now_ms = port.uptime_ms()
    if not raw or (now_ms >= until_ms and b"\n" not in raw):
        seen.reason = HTTP_SILENT
        return
    seen.http_ms = now_ms - start_ms
    seen.status = status(raw)
    if seen.status is None:
        seen.reason = HTTP_UNEXPECTED
    elif body_bytes:
        seen.body = await _body(port, sock, until_ms, raw, body_bytes)


async def _body(port, sock, until_ms, raw, body_bytes):
    """Return what follows the headers; b"" if those have no end."""
    while len(raw) < _MAX_HEADER_BYTES + body_bytes:
        end = raw.find(b"\r\n\r\n")
        if end > _MAX_HEADER_BYTES or (end < 0 and len(raw) > _MAX_HEADER_BYTES):
            return b""
        if end >= 0 and len(raw) - end - 4 >= body_bytes:
            break
        more = await _more(port, sock, _PIECE_BYTES, until_ms)
        if not more:
            break
        raw += more
    end = raw.find(b"\r\n\r\n")
    return raw[end + 4 :][:body_bytes] if end >= 0 else b""


async def _more(port, sock, size, until_ms):
    """Return what comes; b"" when nothing more does, however that is told."""
    try:
        return await receive(port, sock, size, until_ms) if port.uptime_ms() < until_ms else b""
    except OSError:
        return b""


def status(line):
    """Return the status code of an HTTP status line, None if it is none."""
    code = line[9:12]
    if line[:7] != b"HTTP/1." or line[8:9] != b" " or line[12:13] not in (b" ", b"\r", b"\n", b""):
        return None
    if len(code) != 3 or not all(48 <= digit <= 57 for digit in code) or code[0] < 49:
        return None
    return int(code)
