"""TOML files that people write: read strictly, faults named by file and key."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic import ValidationError as _ValidationError

from fleet.errors import READABLE, ConfigurationError


class Table(BaseModel):
    """A TOML table; a key that it does not name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


File = TypeVar("File", bound=Table)


def load(model: type[File], path: Path) -> File:
    """Read and check one file.

    Raises: ConfigurationError: it cannot be read, is no TOML, or does not fit the model.
    """
    return check(model, read(path), path)


def read(path: Path) -> dict[str, Any]:
    """Read one file.

    Raises: ConfigurationError: it cannot be read or is no TOML.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait without end
            raise ConfigurationError(f"cannot read {path}: it is no file", hint=READABLE)
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        duplicate = re.search(r"Cannot (?:declare|overwrite)|twice|[Dd]uplicate", str(error))
        what = "an id or key stands there twice" if duplicate else "it is not valid TOML"
        raise ConfigurationError(
            f"{path}: {what}: {error}", hint="mend the line named and run the command again"
        ) from None
    except RecursionError:
        raise ConfigurationError(
            f"{path}: its values are nested too deep", hint="mend it and run the command again"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8: {error.reason}", hint="save it as UTF-8"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", hint=READABLE) from None


def check(model: type[File], data: dict[str, Any], path: Path) -> File:
    """Check what a file holds.

    Raises: ConfigurationError: with the first fault in the message and more in the hint.
    """
    try:
        return model.model_validate(data)
    except _ValidationError as error:
        raise faulty(
            path, [_fault(item["loc"], item["type"], item["msg"]) for item in error.errors()]
        ) from None


def faulty(path: Path, faults: list[str]) -> ConfigurationError:
    """Return the error for a file with these faults."""
    hint = "mend it and run the command again"
    if len(faults) > 1:
        hint = "and also: " + "; ".join(faults[1:6])
    return ConfigurationError(f"{path}: {faults[0]}", hint=hint)


def _fault(where: tuple[int | str, ...], kind: str, message: str) -> str:
    place = ".".join(str(part) for part in where if part != "[key]")
    if kind == "extra_forbidden":
        return f"unknown key {place}"
    if kind == "missing":
        return f"{place} is missing"
    return f"{place}: {message.removeprefix('Value error, ')}"
