"""Places that a desk is giving to boards, so that another desk gives them to no others.

    secrets/claim/<digest>    a lock for each place; it holds nothing

The kernel gives a lock back when its process ends, however it ends. What was enrolled the registry
knows; this is only about the minutes before. Desks on different machines share no lock: there it
shows when their registries are merged.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from fleet import file
from fleet.inventory import SECRETS_FOLDER, Role
from provisioning.errors import JournalError

_FOLDER = "claim"


class Claims:
    """The places of one site that this desk holds."""

    def __init__(self, city: Path, site: str) -> None:
        self._city = city
        self._site = site
        self._held: dict[tuple[str, Role], int] = {}

    def hold(self, room: str, role: Role) -> bool:
        """Hold a place; tell whether no other desk does.

        Raises: JournalError: the city's folder cannot be written.
        """
        if (room, role) in self._held:
            return True
        digest = hashlib.sha256(f"{self._site}\0{room}\0{role}".encode()).hexdigest()[:16]
        folder = self._city / SECRETS_FOLDER / _FOLDER
        try:
            file.secret_folder(folder.parent)
            file.private_folder(folder)
            lock = os.open(folder / digest, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, file.PRIVATE)
        except OSError as error:
            raise JournalError(
                f"cannot note who gets which room in {folder}: {error.strerror or error}",
                hint="make room, or the folder writable",
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._held[room, role] = lock
        return True

    def let_go(self, room: str, role: Role) -> None:
        """Leave a place to other desks, if this one holds it."""
        lock = self._held.pop((room, role), None)
        if lock is not None:
            os.close(lock)

    def close(self) -> None:
        """Leave all places to other desks."""
        for room, role in list(self._held):
            self.let_go(room, role)
