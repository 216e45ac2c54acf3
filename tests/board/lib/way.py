"""Where a soak's board finds an address: ROOT/routes says it, one `address port port-here` a line.

On loan. No host has the address that DHCP offers to a client that comes new.
"""

import errno
import socket

_OFFERED = "10.1.0.77"


def find(root, address, number):
    """Return what `socket.getaddrinfo` would."""
    way = "%s %d " % (address, number)
    with open(root + "/routes") as file:
        for line in file:
            if line.startswith(way):
                return socket.getaddrinfo("127.0.0.1", int(line[len(way) :]))
    if address == _OFFERED:
        raise OSError(errno.EHOSTUNREACH)
    return socket.getaddrinfo(address, number)
