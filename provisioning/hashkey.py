"""The city's hash key: secrets/hash.key, 16 bytes as 32 hex digits, mode 0600.

Every board gets it. With it a board turns the BSSIDs of foreign access points into hashes that
change with the day: boards of one city still agree on them, and nobody else can undo them. It
is made once; with a new one boards disagree until all are flashed again.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from fleet import file
from fleet.errors import READABLE, ConfigurationError
from fleet.inventory import SECRETS_FOLDER

KEY_BYTES = 16

_NAME = "hash.key"


def ensure(city: Path) -> bytes:
    """Return the key of the city in this folder; make it if there is none yet.

    Raises: ConfigurationError: it cannot be made or read, or is none.
    """
    folder = city / SECRETS_FOLDER
    path = folder / _NAME
    try:
        file.secret_folder(folder)
        with file.locked(folder):
            if not path.exists():
                file.write(path, secrets.token_hex(KEY_BYTES) + "\n", file.PRIVATE)
            text = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigurationError(
            f"cannot make or read {path}: {error.strerror or error}", hint=READABLE
        ) from None
    except ValueError:
        text = ""
    # No more than lower case digits: bytes.fromhex would take spaces too.
    if len(text) != 2 * KEY_BYTES or not set(text) <= set("0123456789abcdef"):
        raise ConfigurationError(
            f"{path} is no hash key: not {2 * KEY_BYTES} hex digits",
            hint="bring it back from a backup, or delete it and flash all boards again",
        )
    return bytes.fromhex(text)
