"""Who ran what where: audit.jsonl in the city's folder, one JSON object a line, only added to.

    {"time": "…", "run": "3f2a…", "event": "begin", "who": "Erika Muster", "command": […], …}
    {"time": "…", "run": "3f2a…", "event": "host", "host": "gw-mitte", "exit_code": 0, …}
    {"time": "…", "run": "3f2a…", "event": "end", "succeeded": 1, "failed": 0, "interrupted": false}

Each line is on disk before what comes after it happens: a run without an end was cut off.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleet import file
from fleet.errors import StoreError
from fleet.maintenance import author

AUDIT_FILE = "audit.jsonl"


class Run:
    """One run in the log."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / AUDIT_FILE
        self.id = uuid.uuid4().hex[:16]

    def begin(self, command: Sequence[str], hosts: Sequence[str]) -> None:
        """Say who is going to run what where.

        Raises: StoreError: it cannot be written; then nothing must be run.
        """
        self._write(
            "begin",
            who=author(self.path.parent),
            login=getpass.getuser(),
            sudo_user=os.environ.get("SUDO_USER"),
            machine=socket.gethostname(),
            command=list(command),
            hosts=list(hosts),
        )

    def host(self, host: str, **result: Any) -> None:
        """Say what became of one host.

        Raises: StoreError: it cannot be written.
        """
        self._write("host", host=host, **result)

    def end(self, succeeded: int, failed: int, *, interrupted: bool) -> None:
        """Say that it has ended, and how.

        Raises: StoreError: it cannot be written.
        """
        self._write("end", succeeded=succeeded, failed=failed, interrupted=interrupted)

    def _write(self, event: str, **fields: Any) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": moment, "run": self.id, "event": event} | fields)
        try:
            is_new = not self.path.exists()
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, file.PRIVATE)
            try:
                # A line that a power cut left half is closed, so that only that one is lost.
                end = os.lseek(descriptor, 0, os.SEEK_END)
                torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
                data = ("\n" * torn + line + "\n").encode()
                if os.write(descriptor, data) != len(data):
                    raise OSError(0, "the line does not fit")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_new:
                file.sync_folder(self.path.parent)
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: {error.strerror}",
                hint="look at free space and rights there: without it nothing is run",
            ) from None
