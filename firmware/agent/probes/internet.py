"""Internet: does a known web server beyond the line answer 204?"""

import errno

from linkreport.table import (
    ADDRESSING,
    CONNECT_REFUSED,
    CONNECT_TIMEOUT,
    HTTP_SILENT,
    HTTP_UNEXPECTED,
    INTERNET,
    INTERNET_SLOW,
    NETWORK_UNREACHABLE,
    OK,
)
from micropython import const

from ..connection import connect, receive
from . import Result

LAYER = INTERNET
NEEDS = ADDRESSING

_EXPECTED = const(204)
_MAX_LINE_BYTES = const(256)
_REASONS = {
    errno.ETIMEDOUT: CONNECT_TIMEOUT,
    errno.ECONNREFUSED: CONNECT_REFUSED,
}


async def probe(port, config, evidence):  # noqa: ARG001 - all probes are called alike
    """Connect, ask, read the status line."""
    target = config.internet
    half_ms = config.deadline_ms["internet"] // 2
    start_ms = port.uptime_ms()
    try:
        sock = await connect(port, target.address, target.port, half_ms)
    except OSError as error:
        return Result(_REASONS.get(error.errno or 0, NETWORK_UNREACHABLE), {})
    connected_ms = port.uptime_ms()
    measures = {"internet_connect_ms": connected_ms - start_ms}
    try:
        sock.send(request(target.host, target.path))
        line = await _first_line(port, sock, connected_ms + half_ms)
    except OSError:
        line = b""
    finally:
        sock.close()
    if not line:
        return Result(HTTP_SILENT, measures)
    now_ms = port.uptime_ms()
    measures["internet_http_ms"] = now_ms - connected_ms
    code = status(line)
    if code is not None:
        measures["http_status"] = code
    if code != _EXPECTED:
        return Result(HTTP_UNEXPECTED, measures)
    slow = now_ms - start_ms > config.thresholds.internet_ms
    return Result(INTERNET_SLOW if slow else OK, measures)


async def _first_line(port, sock, until_ms):
    """Return the first line that comes, as far as it fits; b"" if none came in time."""
    line = b""
    while b"\n" not in line and len(line) < _MAX_LINE_BYTES:
        more = await receive(port, sock, _MAX_LINE_BYTES - len(line), until_ms)
        if not more:
            return line if port.uptime_ms() < until_ms else b""
        line += more
    return line


def request(host, path):
    """Return the bytes that ask for a path."""
    text = "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: netzpuls\r\nConnection: close\r\n\r\n"
    return (text % (path, host)).encode()


def status(line):
    """Return the status code of an HTTP status line, None if it is none."""
    code = line[9:12]
    if line[:7] != b"HTTP/1." or line[8:9] != b" " or line[12:13] not in (b" ", b"\r", b"\n", b""):
        return None
    if len(code) != 3 or not all(48 <= digit <= 57 for digit in code) or code[0] < 49:
        return None
    return int(code)
