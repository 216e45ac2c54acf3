"""The boards' report keys as city hall keeps them: secrets/keys/<board>.<key id>.key.

One file for each provisioning of a board, mode 0600: 32 bytes as 64 hex digits. Old keys stay,
because reports sealed with them may still come.
"""

from __future__ import annotations

import re
from pathlib import Path

from firmware.linkreport.seal import KEY_BYTES
from fleet.errors import READABLE, ConfigurationError

_FOLDER = "keys"
_BOARD = re.compile(r"np-[0-9a-f]{12}")
_NAME = re.compile(rf"({_BOARD.pattern})\.([1-9][0-9]{{0,4}})\.key")


def path(secrets: Path, board: str, key_id: int) -> Path:
    """Return where a key is kept, or would be."""
    return secrets / _FOLDER / f"{board}.{key_id}.key"


def encode(key: bytes) -> str:
    """Return what the file of a key holds."""
    return key.hex() + "\n"


def read(secrets: Path, board: str, key_id: int) -> bytes | None:
    """Return a key, None if there is none.

    `board` and `key_id` may come from a peer: what is no board's id names no file.

    Raises: ConfigurationError: the file cannot be read or holds no key.
    """
    if not _BOARD.fullmatch(board):
        return None
    file = path(secrets, board, key_id)
    try:
        key = bytes.fromhex(file.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}", hint=READABLE) from None
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(
            f"{file} is no report key: not {2 * KEY_BYTES} hex digits",
            hint="bring it back from a backup, or flash the board again",
        )
    return key


def key_ids(secrets: Path) -> dict[str, list[int]]:
    """Return the ids of all keys that are there, by board."""
    found: dict[str, list[int]] = {}
    for file in sorted((secrets / _FOLDER).glob("*.key")):
        match = _NAME.fullmatch(file.name)
        if match:
            found.setdefault(match[1], []).append(int(match[2]))
    return found
