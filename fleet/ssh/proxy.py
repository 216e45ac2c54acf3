"""A way to a host through a program, as ssh_config's `ProxyCommand` names it.

The program is only a wire: what is at its end must show its host key as everybody else.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import subprocess

from fleet.ssh.host import Host

_END_S = 1.0
_TOKEN = re.compile(r"%(.)")


class Way(socket.socket):
    """A socket at whose other end a program reads and writes; both end together."""

    program: subprocess.Popen[bytes]

    def close(self) -> None:
        """Close it, and end the program if that does not end by itself."""
        super().close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.program.wait(_END_S)
            return
        self.program.kill()
        self.program.wait()


def way_to(host: Host) -> Way:
    """Start the program through which a host is reached.

    Raises: OSError: it cannot be started.
    """
    near, far = socket.socketpair()
    way = Way(fileno=near.detach())
    with far:
        # As ssh does it: the shell makes way. A Ctrl-C is ours, and ends what it should.
        way.program = subprocess.Popen(
            ["sh", "-c", f"exec {_line(host)}"],
            stdin=far.fileno(),
            stdout=far.fileno(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return way


def _line(host: Host) -> str:
    """Return the command with what it says in signs put in; ssh_config(5), TOKENS."""
    values = {"h": host.address, "n": host.address, "p": str(host.port), "r": host.user}
    quoted = {sign: shlex.quote(value) for sign, value in values.items()} | {"%": "%"}
    return _TOKEN.sub(lambda match: quoted.get(match[1], match[0]), host.proxy)
