"""A TLS connection as probes want it. On loan, as long as there is one."""

import errno


class Stream:
    """A TLS connection that behaves like a non-blocking socket."""

    def __init__(self, stream, sock):
        self.stream = stream
        self._sock = sock

    def recv(self, size):
        """Receive.

        Raises: OSError: EAGAIN, nothing is there yet; or what TLS says.
        """
        content = self.stream.read(size)
        if content is None:
            raise OSError(errno.EAGAIN)
        return content

    def close(self):
        """Close; after a failed handshake TLS no longer knows the socket below."""
        for each in (self.stream, self._sock):
            try:
                each.close()
            except OSError:
                continue
