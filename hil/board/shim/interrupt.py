"""Ctrl-C, let through only while the heap is whole.

The unix port raises KeyboardInterrupt inside its signal handler, out of whatever C code is
running. Out of the garbage collector that leaves half-marked blocks, and the next collection
frees what is still in use. So the board process sends SIGUSR1; its handler here looks whether
an allocation is possible, which it is not during a collection, and only then raises SIGINT.
"""

from . import channel

_SIGINT, _SIGUSR1, _SIGALRM = 2, 10, 14
_AGAIN_US = 500

_signal = _SIGINT


def allow(char, raw=False):
    """Let the byte `char` from the host interrupt the program; -1: none."""
    channel.call("interrupt", char=char, raw=raw, signal=_signal)


def _gate(_):
    try:
        bytearray(1)
    except MemoryError:
        _ualarm(_AGAIN_US, 0)
        return
    channel.block_sigint()
    _raise(_SIGINT)  # delivered when this handler returns, which gives the old mask back


if channel.libc:
    _raise = channel.libc.func("i", "raise", "i")
    _ualarm = channel.libc.func("i", "ualarm", "ii")
    _handler = channel.ffi.callback("v", _gate, "i")
    for _number in (_SIGUSR1, _SIGALRM):
        channel.libc.func("p", "signal", "iC")(_number, _handler)
    _signal = _SIGUSR1
