"""The board of a soak: the compiled agent in a process of 32-bit MicroPython, with its files."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import NamedTuple

from hil import tool
from tests.board.site import ADDRESS, HERE, _place
from tests.board.soak.world import SERVICE_NAME, TARGET, TARGET_NAME, World
from tests.fleet.gateway.scene import GATEWAY

_NAMES = ("soak", "order", "worn", "way", "echo", "peak")
SCRIPTS = tuple(HERE / "lib" / f"{name}.py" for name in _NAMES)
_HANGS_S = 60.0
_LINES = 40


class SoakError(Exception):
    """The soak cannot go on."""


class Told(NamedTuple):
    """What the board says of itself before a cycle."""

    uptime_ms: int
    free_bytes: int
    waiting: int
    lost: int
    made: int
    survived: int


def furnish(root: Path, world: World) -> Path:
    """Make the board's file system."""
    (root / "identity").mkdir(parents=True)
    (root / "spool").mkdir()
    configuration = _place().configuration(
        board=world.board,
        uplink={"host": "10.1.0.2", "port": 8883, "server_name": GATEWAY},
        ntp=ADDRESS,
        dhcp_servers=["10.1.0.1"],
        hash_key="00112233445566778899aabbccddeeff",
        targets=[{"host": TARGET_NAME, "address": TARGET, "port": 443}],
        services=[
            {
                "name": "Zwei", "host": SERVICE_NAME, "port": 80, "path": "/", "tls": False,
                "status": 200,
            }
        ],
    )  # fmt: skip
    (root / "config.json").write_text(json.dumps(configuration))
    identity = world.city.ca.issue_board(world.board)
    for name, content in (
        ("ca.der", world.city.ca.certificate_der),
        ("roots.der", world.city.ca.certificate_der),
        ("board.der", identity.certificate_der),
        ("board.key.der", identity.key_der),
        ("report.key", world.key),
    ):
        (root / "identity" / name).write_bytes(content)
    (root / "nvs").mkdir()
    (root / "routes").write_text("".join(f"{ip} {at} {to}\n" for ip, at, to in world.routes()))
    return root


class Board:
    """The board from one start to its end.

    Args:
        script: "soak", or "peak" to learn when how much of the heap is left.

    Attributes:
        lines: what it printed last.
        left: by the modules that were loaded, the least that was left of its heap, in bytes.
        names: how many its heap holds.
    """

    def __init__(
        self, code: Path, root: Path, clock: Path, start_s: int, *, heap_kib: int, script: str
    ) -> None:
        command = [str(tool.find("micropython32")), "-X", f"heapsize={heap_kib}k", "-m", script]
        self._process = subprocess.Popen(
            [*command, str(root), str(clock), str(start_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=code,  # so that modules have the names of their files, without a folder, as flashed
            env={**os.environ, "MICROPYPATH": ":.frozen"},
        )
        self.lines: list[str] = []
        self.left: dict[frozenset[str], int] = {}
        self.names = 0
        self._read: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith("LEFT "):
                self._note_left(line)
            elif line.startswith("qstr pool: "):
                self.names = int(line.partition("n_qstr=")[2].partition(",")[0])
            else:
                self._read.put(line.rstrip("\n"))
        self._read.put(None)

    def _note_left(self, line: str) -> None:
        _, free_bytes, *modules = line.split()
        loaded = frozenset(modules)
        self.left[loaded] = min(int(free_bytes), self.left.get(loaded, 1 << 30))

    def told(self) -> tuple[Told, list[str]]:
        """Wait for the next cycle; return what the board says, and what it survived before.

        Raises: SoakError: it died, or hangs.
        """
        survived = []
        while True:
            try:
                line = self._read.get(timeout=_HANGS_S)
            except queue.Empty:
                raise SoakError("the board hangs: " + self._last_words()) from None
            if line is None:
                raise SoakError("the board died by itself: " + self._last_words())
            self.lines = [*self.lines[-_LINES:], line]
            if line.startswith("SOAK "):
                return Told(*(int(number) for number in line.split()[1:])), survived
            if line.startswith("netzpuls: survived "):
                survived.append(line.removeprefix("netzpuls: survived "))

    def _last_words(self) -> str:
        return "\n".join(["", *self.lines[-15:]])

    def order(self, flags: int, status: int, step_s: int, patience_ms: int) -> None:
        """Let the next cycle begin."""
        if self._process.stdin:
            self._process.stdin.write(f"{flags} {status} {step_s} {patience_ms}\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """Cut the power."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
