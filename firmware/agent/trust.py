"""Whom probes trust that speak TLS. On loan.

/identity/roots.der holds the certificates that are trusted, one behind the other. Without that
file a handshake proves only that TLS speaks.
"""

from .connection import NO_MEMORY


def trust(identity):
    """Return a TLS context that trusts what `identity`/roots.der holds; None without memory.

    Raises: OSError, ValueError: the file holds something else than certificates.
    """
    import tls

    try:
        context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_NONE  # type: ignore[attr-defined]
        for certificate in _certificates(identity + "/roots.der"):
            context.load_verify_locations(certificate)
            context.verify_mode = tls.CERT_REQUIRED  # type: ignore[attr-defined]
    except MemoryError:
        return None
    except OSError as error:
        if error.errno in NO_MEMORY:
            return None
        raise
    return context


def _certificates(path):
    """Yield one certificate after the other; of more in one call mbedTLS sees only the first."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError:
        return
    try:
        while len(head := file.read(4)) == 4:
            yield head + file.read(head[2] << 8 | head[3])
    finally:
        file.close()
