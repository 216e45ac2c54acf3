"""The registry of boards: a file that people read and git keeps, and the files beside it.

    registry.toml                     one table per board, sorted; holds no secret
    boards/<id>.pem                   the board's certificates, the newest first
    secrets/keys/<id>.<key id>.key    a report key: 32 bytes in hex, mode 0600

A board is enrolled when the registry says so, and not before: while it is flashed its identity
stands in the journal (`provisioning.journal`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from cryptography import x509

from fleet import file, inventory, reportkey, revocation
from fleet.inventory import REGISTRY_FILE, Board, Inventory
from provisioning import assignment
from provisioning.assignment import Change
from provisioning.errors import EnrolmentError, RegistryError

BOARDS_FOLDER = "boards"

_HEAD = "# Written by `netzpuls board`. Holds no secret: keep it in git.\n\n"


def enrol(
    city: Path,
    board_id: str,
    change: Callable[[Board | None], Board],
    *,
    admitted: Board | None,
    report_key: bytes,
    certificate_pem: bytes,
    ends: Sequence[x509.Certificate] = (),
) -> Board:
    """Put a board into the registry, its report key and certificate beside it.

    Done again with the same board it changes nothing.

    Args:
        city: its folder.
        board_id: the board.
        change: says what its entry becomes, looking at the one that the registry has then.
        admitted: the entry when the work on the board began, perhaps minutes ago.
        report_key: 32 bytes.
        certificate_pem: the board's certificate.
        ends: certificates that are revoked by this.

    Returns: its entry.

    Raises:
        EnrolmentError: the city's folder cannot be written, or somebody else changed the board
            meanwhile in what the work on it was based on.
        AuthorityError: `ends` cannot be revoked.
        The registry is as it was, then.
    """
    try:
        with file.locked(city):
            known = inventory.load(city)
            current = known.boards.get(board_id)
            _check_unchanged(board_id, admitted, current)
            board = change(current)
            key_path = reportkey.path(known.secrets, board_id, board.key_id)
            stored = reportkey.read(known.secrets, board_id, board.key_id)
            # A run that was cut may have written the key and no more.
            if stored != report_key and next_key_id(known, board_id) != board.key_id:
                raise _enrolled_meanwhile(board_id)
            # First of all: a run that is cut after this goes on, and one that cannot do this has
            # changed nothing.
            if ends:
                revocation.update(city, add=ends)
            file.secret_folder(key_path.parent.parent)
            file.private_folder(key_path.parent)
            certificate_path = city / BOARDS_FOLDER / f"{board_id}.pem"
            certificate_path.parent.mkdir(exist_ok=True)
            before = certificate_path.read_bytes() if certificate_path.exists() else None
            try:
                # The registry comes last: what is in it has its key and certificate, on disk.
                file.write(key_path, reportkey.encode(report_key), file.PRIVATE)
                file.write(certificate_path, _with_earlier(certificate_pem, before or b""))
                entry = assignment.enrolled(known, board_id, board)
                file.write(city / REGISTRY_FILE, render({**known.boards, board_id: entry}))
            except OSError:
                _take_back(key_path, certificate_path, stored is None, before)
                raise
    except OSError as error:
        raise EnrolmentError(
            f"cannot enrol {board_id} in {city}: {error.strerror or error}",
            hint="make room, or the folder writable, and flash the board again",
        ) from None
    return entry


# What the work on a board is based on: whether it may be done, and what is written into the board.
_BASIS = ("key_id", "revoked", "retired", "site", "room", "since", "role", "hardware")


def _check_unchanged(board_id: str, admitted: Board | None, current: Board | None) -> None:
    if admitted is None or current is None:
        if admitted is not current:
            raise _enrolled_meanwhile(board_id)
        return
    differs = [name for name in _BASIS if getattr(admitted, name) != getattr(current, name)]
    if not differs:
        return
    if current.revoked and "revoked" in differs:
        told = "was revoked"
    elif current.retired and "retired" in differs:
        told = "was retired"
    elif "site" in differs or "room" in differs:
        told = f"was moved to {current.site}, {current.room}"
    else:
        told = f"was changed in the registry ({', '.join(differs)})"
    raise EnrolmentError(
        f"{board_id} {told} meanwhile, and is not enrolled anew",
        hint="if that is as it should be, run the same command again: it goes on from there",
    )


def _enrolled_meanwhile(board_id: str) -> EnrolmentError:
    return EnrolmentError(
        f"somebody else enrolled {board_id}, or removed it, meanwhile",
        hint="flash it again, at one desk",
    )


def _take_back(key: Path, certificate: Path, is_new: bool, before: bytes | None) -> None:
    """Undo what came before a registry that could not be written, as far as that goes."""
    with contextlib.suppress(OSError):
        if is_new:
            key.unlink(missing_ok=True)
        if before is None:
            certificate.unlink(missing_ok=True)
        elif certificate.read_bytes() != before:
            file.write(certificate, before)


def _with_earlier(certificate_pem: bytes, before: bytes) -> bytes:
    """Return all certificates of a board, the newest first: revoking it means every one."""
    return before if before.startswith(certificate_pem) else certificate_pem + before


def certificate(city: Path, board_id: str) -> x509.Certificate | None:
    """Return a board's certificate as it was enrolled, None if there is none that can be read."""
    try:
        return x509.load_pem_x509_certificate(
            (city / BOARDS_FOLDER / f"{board_id}.pem").read_bytes()
        )
    except (OSError, ValueError):
        return None


def next_key_id(city: Inventory, board_id: str) -> int:
    """Return the number of a board's next report key.

    The key files count too: a registry that was brought back from a backup must not make a
    number, and with it a sequence, a second time.

    Raises: EnrolmentError: there are no more numbers.
    """
    known = city.boards.get(board_id)
    used = [known.key_id] if known else []
    number = max(used + reportkey.key_ids(city.secrets).get(board_id, []), default=0) + 1
    if number > 0xFFFF:
        raise EnrolmentError(
            "this board was flashed 65535 times: its key ids are used up", hint="take another one"
        )
    return number


def change(city: Path, decide: Callable[[Inventory], Change], *, dry_run: bool = False) -> Change:
    """Change the registry in one step, held against everybody else.

    Args:
        city: its folder.
        decide: says what is to change, looking at the registry as it is then.
        dry_run: only say it.

    Raises: RegistryError: the registry cannot be written, or somebody else holds it for too
        long; it is as it was, then. And whatever `decide` raises.
    """
    if dry_run:
        return decide(inventory.load(city))
    try:
        with file.locked(city):
            known = inventory.load(city)
            chosen = decide(known)
            file.write(city / REGISTRY_FILE, render({**known.boards, **chosen.boards}))
    except OSError as error:
        raise RegistryError(
            f"cannot change {city / REGISTRY_FILE}: {error.strerror or error}",
            hint="nothing was changed: wait for that process, or see to rights and free space, "
            "then run the command again",
        ) from None
    return chosen


def render(boards: dict[str, Board]) -> str:
    """Return the registry's text: the same boards give the same text."""
    tables: dict[str, Any] = {
        board_id: boards[board_id].model_dump(exclude_defaults=True) for board_id in sorted(boards)
    }
    return _HEAD + tomli_w.dumps({"version": 1, "board": tables})
