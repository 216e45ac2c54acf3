"""Requests to the board process: 8 hex digits of length, then JSON; one answer each."""

import json
import sys

_file = open(int(sys.argv[2]), "r+b")

try:
    import ffi

    _mask = ffi.open(None).func("i", "sigprocmask", "ipp")
except (ImportError, OSError):
    _mask = None
_BLOCK, _UNBLOCK = 0, 1
_SIGINT = bytearray(128)
_SIGINT[0] = 2


def call(op, **request):
    """Ask the board process; an interrupt waits until the answer is there."""
    request["op"] = op
    data = json.dumps(request).encode()
    if _mask:
        _mask(_BLOCK, _SIGINT, None)
    try:
        _file.write(b"%08x" % len(data) + data)
        answer = json.loads(_file.read(int(_file.read(8), 16)))
    finally:
        if _mask:
            _mask(_UNBLOCK, _SIGINT, None)
    if "value" in answer:
        return answer["value"]
    raise OSError(answer.get("errno") or answer["error"])
