"""Who a board is to be: its own identity, that of a run that was cut, or a new one."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from fleet import inventory, reportkey, revocation
from fleet.authority import Authority
from fleet.inventory import SECRETS_FOLDER, Board
from provisioning import content, journal, registry
from provisioning.errors import DiskError
from provisioning.guard import GuardedDisk
from provisioning.journal import Pending

REPORT_KEY_BYTES = 32
# A certificate that ends sooner is made anew when its board is on the desk.
RENEW_BEFORE = timedelta(days=365)


def choose(
    city: Path, board: str, known: Board | None, there: GuardedDisk | None, ca: Authority
) -> Pending:
    """Return who a board is to be: who it is, whom a run that was cut made it, or new.

    Args:
        city: the city's folder.
        board: its id.
        known: what the registry has of it.
        there: its file system, None if it has none that can be kept.
        ca: who certifies it.

    Raises: JournalError, EnrolmentError: as journal and registry say.
    """
    begun = resumed(city, board, known, ca)
    return _held(city, board, known, there, ca) or begun or made(city, board, ca)


def resumed(city: Path, board: str, known: Board | None, ca: Authority) -> Pending | None:
    """Return whom a run that was cut made a board, if that is still to be given.

    Raises: JournalError, EnrolmentError: as journal and registry say.
    """
    begun = journal.load(city, board)
    if begun is None or not _is_good(begun, ca):
        return None
    next_id = registry.next_key_id(inventory.load(city), board)
    return begun if _goes_on(city, begun, known, next_id) else None


def made(city: Path, board: str, ca: Authority, *, ends: bool = False) -> Pending:
    """Return a new identity; `ends` says that it ends all earlier ones.

    Raises: AuthorityError, EnrolmentError: as CA and registry say.
    """
    next_id = registry.next_key_id(inventory.load(city), board)
    issued = ca.issue_board(board)
    report_key = secrets.token_bytes(REPORT_KEY_BYTES)
    return Pending(board, next_id, report_key, issued.certificate_der, issued.key_der, ends=ends)


def ended(city: Path, pending: Pending) -> list[x509.Certificate]:
    """Return the certificates that an identity ends: the board's for other keys.

    Raises: AuthorityError: they cannot be read.
    """
    if not pending.ends:
        return []
    key = pending.certificate().public_key()
    return [
        each for each in revocation.certificates(city, pending.board) if each.public_key() != key
    ]


def _goes_on(city: Path, begun: Pending, known: Board | None, next_id: int) -> bool:
    """Tell whether the identity of a run that was cut is still the one to give."""
    if begun.keeps:
        # It was in use, and its file system is lost: the board's settings, which are not
        # erased then, say which sequence numbers are used up. It ends like any in use.
        is_over = known is None or known.revoked
        return not is_over and _is_enrolled(city, begun, known)
    if begun.key_id == next_id:
        return True
    # A run that was cut while it enrolled the board has left its key, and no more.
    stored = reportkey.read(city / SECRETS_FOLDER, begun.board, begun.key_id)
    in_use = known.key_id if known else 0
    return in_use < begun.key_id == next_id - 1 and stored == begun.report_key


def _is_enrolled(city: Path, pending: Pending, known: Board | None) -> bool:
    """Tell whether an identity is the one that the city has of the board.

    That is its keys: they may have been certified anew since.
    """
    certificate = registry.certificate(city, pending.board)
    stored = reportkey.read(city / SECRETS_FOLDER, pending.board, pending.key_id)
    return (
        known is not None
        and known.key_id == pending.key_id
        and certificate is not None
        and pending.is_whole()
        and pending.certificate().public_key() == certificate.public_key()
        and pending.report_key == stored
    )


def _held(
    city: Path, board: str, known: Board | None, there: GuardedDisk | None, ca: Authority
) -> Pending | None:
    """Return the identity that the board has, if it is the registry's, certified to last."""
    if known is None or there is None:
        return None
    try:
        report_key = there.read(content.REPORT_KEY) or b""
        certificate_der = there.read(content.CERTIFICATE) or b""
        key_der = there.read(content.PRIVATE_KEY) or b""
    except DiskError:
        return None
    held = Pending(board, known.key_id, report_key, certificate_der, key_der, keeps=True)
    enrolled = registry.certificate(city, board)
    if enrolled is None or not _is_enrolled(city, held, known):
        return None
    # A renewal that was cut has left one of them behind.
    if enrolled.not_valid_after_utc > held.certificate().not_valid_after_utc:
        held = replace(held, certificate_der=enrolled.public_bytes(serialization.Encoding.DER))
    return held if _is_good(held, ca) else held.certified(ca)


def _is_good(pending: Pending, ca: Authority) -> bool:
    """Tell whether an identity is whole, this board's, from the CA, and will last a while."""
    if not pending.is_whole():
        return False
    certificate = pending.certificate()
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if [name.value for name in names] != [pending.board]:
            return False
        certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return certificate.not_valid_after_utc > datetime.now(UTC) + RENEW_BEFORE
