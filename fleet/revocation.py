"""The certificates that no longer hold: revoked.pem beside ca.pem, public.

It is a certificate revocation list (CRL) of the city's CA, made when a board is revoked; without
it nothing was revoked yet. `fleet collect` and `gateway prepare` bring it to the gateways, whose
brokers then refuse the connection.

Source: RFC 5280, 5. Checked with mosquitto 2.0.21 and OpenSSL 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fleet import authority, file
from fleet.authority import AuthorityError
from fleet.errors import READABLE
from fleet.inventory import SECRETS_FOLDER

REVOKED_FILE = "revoked.pem"


def read(folder: Path) -> bytes | None:
    """Return a city's list as it is on disk, None if nothing was revoked yet.

    Raises: AuthorityError: it cannot be read.
    """
    path = folder / REVOKED_FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuthorityError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None


def parse(content: bytes, name: str) -> x509.CertificateRevocationList:
    """Return a list.

    Raises: AuthorityError: it is none; `name` says where it is from.
    """
    try:
        return x509.load_pem_x509_crl(content)
    except ValueError:
        raise AuthorityError(
            f"{name} is no revocation list in PEM", hint="bring it back from git or a backup"
        ) from None


def serials(content: bytes | None, name: str = REVOKED_FILE) -> dict[int, datetime]:
    """Return the serial numbers on a list and since when they stand there.

    Raises: AuthorityError: it is no list.
    """
    if content is None:
        return {}
    return {each.serial_number: each.revocation_date_utc for each in parse(content, name)}


def update(
    folder: Path,
    add: Iterable[x509.Certificate] = (),
    remove: Iterable[x509.Certificate] = (),
) -> bool:
    """Put certificates on a city's list, or take them off it; tell whether it has changed.

    A list holds as long as the CA that signed it: after that was renewed it is signed anew.

    Raises: AuthorityError: there is no CA here to sign it with, or it cannot be read or written.
    """
    ca = authority.load(folder)
    path = folder / REVOKED_FILE
    now = datetime.now(UTC).replace(microsecond=0)
    gone = {certificate.serial_number for certificate in remove}
    try:
        with file.locked(folder / SECRETS_FOLDER):
            content = read(folder)
            known = serials(content, str(path))
            wanted = {
                **{certificate.serial_number: now for certificate in add},
                **{serial: since for serial, since in known.items() if serial not in gone},
            }
            present = parse(content, str(path)) if content else None
            holds = present is None or present.next_update_utc == ca.certificate.not_valid_after_utc
            if wanted.keys() == known.keys() and holds:
                return False
            before = present.last_update_utc if present else None
            signed = ca.sign_revocations(wanted, after=before)
            file.write(path, signed.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise AuthorityError(
            f"cannot write {path}: {error.strerror or error}",
            hint="the folder must be yours and writable; then run the command again",
        ) from None
    return True


def certificates(folder: Path, board_id: str) -> list[x509.Certificate]:
    """Return the certificates of a board that the city knows, the newest first.

    Raises: AuthorityError: the file with them cannot be read or holds none.
    """
    path = folder / "boards" / f"{board_id}.pem"
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AuthorityError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None
    except ValueError:
        raise AuthorityError(
            f"{path} holds no certificate in PEM", hint="bring it back from git or a backup"
        ) from None
