"""The folder of a bench that is made of programs: emptied, marked and held while it is alive."""

from __future__ import annotations

import contextlib
import fnmatch
import shutil
from collections.abc import Iterator
from pathlib import Path

from fleet import file
from fleet.errors import BenchError
from fleet.text import printable

_LISTED = 3


@contextlib.contextmanager
def emptied(folder: Path, what: str, own: tuple[str, ...]) -> Iterator[None]:
    """Hold a folder that was made, or that an earlier one of its kind filled and is empty now.

    `what` is made there, such as a "virtual city"; `own` are patterns of the names it gives.

    Raises: BenchError: something else is in it, another is alive there, or it cannot be written.
    """
    mark = folder / f".netzpuls-{what.replace(' ', '-')}"
    hint = "name another folder with --dir"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file.locked(folder, wait=False))
            entries = [entry for entry in folder.iterdir() if entry != mark]
            if entries and not mark.exists():
                raise BenchError(f"{folder} is not empty and not a {what}'s", hint=hint)
            others = [entry.name for entry in entries if not _matches(entry.name, own)]
            if others:
                raise BenchError(
                    f"{folder} holds what is not a {what}'s: {_listed(others)}",
                    hint=f"move it away, or {hint}",
                )
            mark.touch()
            file.private_folder(folder)
            for entry in entries:
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        except BlockingIOError:
            raise BenchError(
                f"another {what} is alive in {folder}", hint=f"end it, or {hint}"
            ) from None
        except OSError as error:
            raise BenchError(f"cannot make {folder}: {error.strerror}", hint=hint) from None
        yield


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _listed(names: list[str]) -> str:
    more = len(names) - _LISTED
    shown = ", ".join(printable(name) for name in sorted(names)[:_LISTED])
    return f"{shown} and {more} more" if more > 0 else shown
