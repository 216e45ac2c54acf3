"""What is under way at the desk, so that a run that was cut goes on and makes nothing twice.

    secrets/journal/<id>.json    one board between its identity and its enrolment, mode 0600

It holds the identity that the board is given: a board whose flashing was cut at any moment gets
the same one from the next run. It is gone when the registry has the board.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from firmware.linkreport.seal import KEY_BYTES
from fleet import file
from fleet.authority import Authority
from fleet.inventory import SECRETS_FOLDER
from provisioning.errors import JournalError

FOLDER = "journal"

_VERSION = 1
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Pending:
    """A board that is being flashed, or was when the work was cut.

    Attributes:
        key_id, report_key, certificate_der, key_der: its identity.
        keeps: the board had this identity before, and holds reports under it.
        ends: certificates for other keys are to be revoked when it is enrolled.
        stage: how far it came, as `flash.Progress` names it.
        problem: why it went no further, "" if it was cut.
        since: when the work on it began.
    """

    board: str
    key_id: int
    report_key: bytes = field(repr=False)
    certificate_der: bytes = field(repr=False)
    key_der: bytes = field(repr=False)
    keeps: bool = False
    ends: bool = False
    stage: str = ""
    problem: str = ""
    since: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def at(self, stage: str) -> Self:
        """Return the same board, further."""
        return replace(self, stage=stage, problem="")

    def failed(self, problem: str) -> Self:
        """Return the same board, stopped by a problem."""
        return replace(self, problem=problem)

    def document(self) -> dict[str, Any]:
        """Return what people may see of it: no secret."""
        return {
            "board": self.board,
            "stage": self.stage,
            "problem": self.problem,
            "since": self.since.isoformat(),
        }

    def certificate(self) -> x509.Certificate:
        """Return the board's certificate."""
        return x509.load_der_x509_certificate(self.certificate_der)

    def certified(self, ca: Authority) -> Self:
        """Return the same board, by the same keys, with a certificate that begins now.

        Raises: AuthorityError: the CA has expired.
        """
        key = cast("EllipticCurvePrivateKey", load_der_private_key(self.key_der, None))
        made = ca.issue_board(self.board, key=key)
        return replace(self, certificate_der=made.certificate_der)

    def is_whole(self) -> bool:
        """Tell whether report key, private key and certificate are some, and belong together."""
        try:
            key = load_der_private_key(self.key_der, None)
            fits = key.public_key() == self.certificate().public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            return False
        return fits and len(self.report_key) == KEY_BYTES


def save(city: Path, pending: Pending) -> None:
    """Write a board's entry, on disk when this returns.

    Raises: JournalError: the city's folder cannot be written.
    """
    document = {
        "version": _VERSION,
        "board": pending.board,
        "key_id": pending.key_id,
        "keeps": pending.keeps,
        "ends": pending.ends,
        "stage": pending.stage,
        "problem": pending.problem,
        "since": pending.since.isoformat(),
        "report_key": _text(pending.report_key),
        "certificate": _text(pending.certificate_der),
        "key": _text(pending.key_der),
    }
    path = _path(city, pending.board)
    try:
        file.secret_folder(city / SECRETS_FOLDER)
        file.private_folder(path.parent)
        file.write(path, json.dumps(document, indent=1) + "\n", file.PRIVATE)
    except OSError as error:
        raise JournalError(
            f"cannot note {pending.board} in {path.parent}: {error.strerror or error}",
            hint="make room, or the folder writable, and flash the board again",
        ) from None


def load(city: Path, board: str) -> Pending | None:
    """Return a board's entry, None if there is none.

    Raises: JournalError: it cannot be read.
    """
    path = _path(city, board)
    try:
        return _pending(json.loads(_content(path)), board)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(
            f"cannot read {path}: {error.strerror}", hint="it must be yours: see ls -l"
        ) from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise JournalError(
            f"{path} is damaged", hint="delete it: the board gets a new identity then"
        ) from None


def _content(path: Path) -> bytes:
    """Read no more than an entry can hold, and wait for nobody: it may be anything by now."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(_MOST_BYTES + 1)
    if not content or len(content) > _MOST_BYTES:
        raise ValueError
    return content


def boards(city: Path) -> list[Pending]:
    """Return all entries that can be read, by board."""
    found = []
    for path in sorted((city / SECRETS_FOLDER / FOLDER).glob("np-*.json")):
        with contextlib.suppress(JournalError):
            pending = load(city, path.stem)
            if pending:
                found.append(pending)
    return found


def discard(city: Path, board: str) -> None:
    """Forget a board's entry, if there is one."""
    with contextlib.suppress(OSError):
        _path(city, board).unlink(missing_ok=True)


def _path(city: Path, board: str) -> Path:
    return city / SECRETS_FOLDER / FOLDER / f"{board}.json"


def _pending(document: dict[str, Any], board: str) -> Pending:
    if document["version"] != _VERSION or document["board"] != board:
        raise ValueError
    return Pending(
        board=board,
        key_id=int(document["key_id"]),
        report_key=_bytes(document["report_key"]),
        certificate_der=_bytes(document["certificate"]),
        key_der=_bytes(document["key"]),
        keeps=bool(document["keeps"]),
        ends=bool(document.get("ends")),
        stage=str(document["stage"]),
        problem=str(document["problem"]),
        since=datetime.fromisoformat(document["since"]),
    )


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
