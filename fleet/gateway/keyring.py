"""The report keys of a gateway's boards: boards.toml, mode 0600.

    version = 1
    [board.np-240ac4123456.keys]
    1 = "…64 hex digits…"       # key_id = the report key under that id

A board that is not in it gets nothing into the store, whatever certificate it has.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from firmware.linkreport.seal import KEY_BYTES
from fleet import document
from fleet.document import Table
from fleet.errors import ConfigurationError
from fleet.inventory import BoardId
from fleet.seal import Seal

_KEY_ID_MAX = 0xFFFF
_PREPARE = "run `netzpuls gateway prepare` again and copy what it made"

KeyId = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,4}$")]
Key = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{2 * KEY_BYTES}}}$")]


class _BoardKeys(Table):
    keys: dict[KeyId, Key]


class _BoardsFile(Table):
    version: Literal[1]
    board: dict[BoardId, _BoardKeys] = Field(default_factory=dict)


class Keyring:
    """The seals of all boards, by board and key id."""

    def __init__(self, keys: Mapping[str, Mapping[int, bytes]]) -> None:
        self._seals = {
            board: {key_id: Seal(key) for key_id, key in by_id.items()}
            for board, by_id in keys.items()
        }

    def __contains__(self, board: str) -> bool:
        return board in self._seals

    def __iter__(self) -> Iterator[str]:
        return iter(self._seals)

    def __len__(self) -> int:
        return len(self._seals)

    def seal(self, board: str, key_id: int) -> Seal | None:
        """Return the seal of one of a board's keys, None if there is no such key."""
        return self._seals.get(board, {}).get(key_id)

    def latest_key_id(self, board: str) -> int | None:
        """Return the id of the newest key of a board, None if it has none."""
        return max(self._seals.get(board, {}), default=None)


def load(path: Path) -> Keyring:
    """Read boards.toml.

    Raises: ConfigurationError: it is missing or wrong. The message never holds a key.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no {path}", hint=_PREPARE)
    file = document.load(_BoardsFile, path)
    keys: dict[str, dict[int, bytes]] = {}
    for board, entry in file.board.items():
        if any(int(key_id) > _KEY_ID_MAX for key_id in entry.keys):
            raise ConfigurationError(
                f"{path}: {board} has a key id beyond {_KEY_ID_MAX}", hint=_PREPARE
            )
        keys[board] = {int(key_id): bytes.fromhex(key) for key_id, key in entry.keys.items()}
    return Keyring(keys)


def check(content: bytes, path: Path) -> int:
    """Return how many boards a boards.toml has that is to be written to `path`.

    Raises: ConfigurationError: it is none. The message never holds a key.
    """
    try:
        data = tomllib.loads(content.decode())
    except ValueError:
        raise ConfigurationError(
            f"what is to become {path} is no TOML", hint="is city hall's Netzpuls as new as this?"
        ) from None
    return len(document.check(_BoardsFile, data, path).board)


def render(keys: Mapping[str, Mapping[int, bytes]]) -> str:
    """Return a boards.toml that holds these keys."""
    lines = ["# Report keys: whoever has one can forge that board's reports.", "version = 1"]
    for board, by_id in sorted(keys.items()):
        lines += ["", f"[board.{board}.keys]"]
        lines += [f'{key_id} = "{key.hex()}"' for key_id, key in sorted(by_id.items())]
    return "\n".join(lines) + "\n"
