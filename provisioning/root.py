"""The trust anchors that a board gets: /identity/roots.der, one DER after the other.

City hall keeps them as PEM beside the inventory, under the name that `measurement.roots` gives.
MicroPython 1.25 takes one DER certificate a call of `SSLContext.load_verify_locations` and adds
them up; of more in one call it sees only the first. PEM it takes whole and without a NUL, but a
board has no room for the text. A test holds real MicroPython to this.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleet.errors import READABLE, ConfigurationError
from fleet.inventory import INVENTORY_FILE, Inventory
from fleet.text import printable

BOARD_PATH = "identity/roots.der"
# The board holds them all in memory while it verifies.
MOST = 8

_EXPORT = "put the root certificates there as PEM: one for each issuer of a target or service"


def anchors(inventory: Inventory) -> bytes:
    """Return what goes onto the board, b"" if the inventory names no roots.

    Raises: ConfigurationError: the file cannot be read, holds no certificates or too many, or
        one that has expired or may not issue others.
    """
    name = inventory.measurement.roots
    if name is None:
        return b""
    path = inventory.folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}, which measurement.roots in {INVENTORY_FILE} names: "
            f"{error.strerror}",
            hint=_EXPORT if isinstance(error, FileNotFoundError) else READABLE,
        ) from None
    try:
        found = x509.load_pem_x509_certificates(content)
    except ValueError:
        raise ConfigurationError(f"{path} holds no certificates in PEM", hint=_EXPORT) from None
    if len(found) > MOST:
        raise ConfigurationError(
            f"{path} holds {len(found)} certificates; a board has room for {MOST}",
            hint="keep those that vouch for your targets and services, not a whole system's",
        )
    for certificate in found:
        _check(certificate, f"{path}: {printable(certificate.subject.rfc4514_string())}")
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in found)


def _check(certificate: x509.Certificate, what: str) -> None:
    if certificate.not_valid_after_utc <= datetime.now(UTC):
        raise ConfigurationError(
            f"{what} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint="put the issuer's present root certificate there",
        )
    try:
        extension = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        is_issuer = extension.value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_issuer = False
    if not is_issuer:
        raise ConfigurationError(
            f"{what} is no issuer's certificate",
            hint="a server's own certificate changes too often; take its issuer's root",
        )
