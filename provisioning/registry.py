"""The registry of boards: a file that people read and git keeps, and the files beside it.

    registry.toml                     one table per board, sorted; holds no secret
    boards/<id>.pem                   the board's certificate
    secrets/keys/<id>.<key id>.key    a report key: 32 bytes in hex, mode 0600

A board is enrolled when the registry says so, and not before: its files are staged while it
is flashed, and take their names in the moment of enrolment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import tomli_w

from fleet import file, inventory, reportkey
from fleet.inventory import REGISTRY_FILE, SECRETS_FOLDER, Board, Inventory
from provisioning import assignment
from provisioning.assignment import Change
from provisioning.errors import EnrolmentError, RegistryError

BOARDS_FOLDER = "boards"

_HEAD = "# Written by `netzpuls board`. Holds no secret: keep it in git.\n\n"


class Enrolment:
    """One board on its way into the registry.

    As a context it stages the board's files, so that a full disk or a missing right shows
    before the board is touched, and leaves nothing behind unless `commit` was called.
    """

    def __init__(
        self, city: Path, board_id: str, key_id: int, report_key: bytes, certificate_pem: bytes
    ) -> None:
        self._city = city
        self._board_id = board_id
        self._key_id = key_id
        self._report_key = report_key
        self._certificate_pem = certificate_pem
        self._key_path = reportkey.path(city / SECRETS_FOLDER, board_id, key_id)
        self._certificate_path = city / BOARDS_FOLDER / f"{board_id}.pem"
        self._staged_key = self._key_path.with_name(f".{board_id}.staged")
        self._staged_certificate = city / BOARDS_FOLDER / f".{board_id}.staged"

    def __enter__(self) -> Self:
        try:
            file.secret_folder(self._key_path.parent.parent)
            file.private_folder(self._key_path.parent)
            self._certificate_path.parent.mkdir(exist_ok=True)
            file.write(self._staged_key, reportkey.encode(self._report_key), file.PRIVATE)
            file.write(self._staged_certificate, self._certificate_pem)
        except OSError as error:
            self._discard()
            raise self._failed(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def commit(self, board: Board) -> None:
        """Enrol the board.

        Raises: EnrolmentError: the city's folder cannot be written, or somebody else
            enrolled the same board meanwhile. The registry is as it was, then.
        """
        try:
            with file.locked(self._city):
                city = inventory.load(self._city)
                boards = dict(city.boards)
                if next_key_id(city, self._board_id) != self._key_id:
                    raise EnrolmentError(
                        f"somebody else enrolled {self._board_id} meanwhile",
                        hint="flash it again, at one desk",
                    )
                boards[self._board_id] = assignment.enrolled(city, self._board_id, board)
                self._take_names(render(boards))
        except OSError as error:
            raise self._failed(error) from None

    def _take_names(self, registry: str) -> None:
        certificate = self._certificate_path
        before = certificate.read_bytes() if certificate.exists() else None
        # The registry comes last: what is in it has its key and certificate, on disk.
        self._staged_key.replace(self._key_path)
        self._staged_certificate.replace(certificate)
        try:
            file.sync_folder(self._key_path.parent)
            file.sync_folder(certificate.parent)
            file.write(self._city / REGISTRY_FILE, registry)
        except OSError:
            self._key_path.unlink()
            if before is None:
                certificate.unlink()
            else:
                file.write(certificate, before)
            raise

    def _discard(self) -> None:
        for staged in (self._staged_key, self._staged_certificate):
            with contextlib.suppress(OSError):
                staged.unlink()

    def _failed(self, error: OSError) -> EnrolmentError:
        return EnrolmentError(
            f"cannot enrol {self._board_id} in {self._city}: {error.strerror or error}",
            hint="make room, or the folder writable, and flash the board again",
        )


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
