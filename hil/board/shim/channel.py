"""Requests to the board process: 8 hex digits of length, then JSON; one answer each."""

import json
import sys

try:
    import ffi

    _mask = ffi.open(None).func("i", "sigprocmask", "ipp")
except (ImportError, OSError):  # a build without it: an interrupt may then break a request
    _mask = None

_file = open(int(sys.argv[2]), "r+b")
_SIG_BLOCK, _SIG_UNBLOCK = 0, 1
_SIGINT_SET = bytearray(128)
_SIGINT_SET[0] = 2


def call(op, **request):
    """Ask the board process; an interrupt waits until the answer is there."""
    request["op"] = op
    data = json.dumps(request).encode()
    if _mask:
        _mask(_SIG_BLOCK, _SIGINT_SET, None)
    try:
        _file.write(b"%08x" % len(data) + data)
        answer = json.loads(_file.read(int(_file.read(8), 16)))
    finally:
        if _mask:
            _mask(_SIG_UNBLOCK, _SIGINT_SET, None)
    if "value" in answer:
        return answer["value"]
    raise OSError(answer.get("errno") or answer["error"])
