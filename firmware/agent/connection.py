"""Non-blocking sockets: connect and receive, each with an end.

Only literal addresses are given to getaddrinfo, so it never asks a resolver.
"""

import errno
import select

from micropython import const

from .deadline import sleep_ms

# What a refused connection looks like: Linux tells ECONNREFUSED, lwIP one of the others.
_REFUSED = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN)
# No memory: as the stack tells it, and as parts of mbedTLS do (big numbers, X.509, keys).
NO_MEMORY = (errno.ENOMEM, 0x10, -0x2880, -0x3F80)
_POLL_MS = const(5)


def resolve(port, address, number):
    """Return what connect and sendto want, for a literal address."""
    return port.socket.getaddrinfo(address, number)[0][-1]


async def connect(port, address, number, deadline_ms, bind=None):
    """Open a TCP connection over the WLAN, or over what `bind` binds the socket to.

    Returns: a non-blocking socket.
    Raises:  OSError: ETIMEDOUT, ECONNREFUSED or what the stack says.
    """
    until_ms = port.uptime_ms() + deadline_ms
    sock = port.socket.socket(port.socket.AF_INET, port.socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        (bind or port.bind_wlan)(sock)
        try:
            sock.connect(resolve(port, address, number))
        except OSError as error:
            if error.errno != errno.EINPROGRESS:
                raise
        events = await _writable(port, sock, until_ms)
        if events & (select.POLLERR | select.POLLHUP):
            _raise_refusal(sock)
    except BaseException:
        sock.close()
        raise
    return sock


async def _writable(port, sock, until_ms):
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    while True:
        ready = poller.poll(0)
        if ready:
            return ready[0][1]
        if port.uptime_ms() >= until_ms:
            raise OSError(errno.ETIMEDOUT, "no answer")
        await sleep_ms(_POLL_MS)


def _raise_refusal(sock):
    try:
        sock.recv(1)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    raise OSError(errno.ECONNREFUSED, "refused")


async def receive(port, sock, size, until_ms, pause_ms=_POLL_MS):
    """Receive once from a non-blocking socket.

    Returns: the bytes; none if the time is up or a stream has ended.
    Raises:  OSError: what the stack says.
    """
    while True:
        try:
            return sock.recv(size)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        if port.uptime_ms() >= until_ms:
            return b""
        await sleep_ms(pause_ms)
