"""The folder of a bench that is made of programs: emptied, marked and held while it is alive."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from fleet import file
from fleet.errors import BenchError


@contextlib.contextmanager
def emptied(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder that was made, or that an earlier one of its kind filled and is empty now.

    `what` is made there, such as a "virtual city".

    Raises: BenchError: something else is in it, another is alive there, or it cannot be written.
    """
    mark = folder / f".netzpuls-{what.replace(' ', '-')}"
    hint = "name another folder with --dir"
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file.locked(folder, wait=False))
            if any(folder.iterdir()) and not mark.exists():
                raise BenchError(f"{folder} is not empty and not a {what}'s", hint=hint)
            mark.touch()
            file.private_folder(folder)
            for entry in folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                elif entry != mark:
                    entry.unlink()
        except BlockingIOError:
            raise BenchError(f"another {what} is alive in {folder}", hint=hint) from None
        except OSError as error:
            raise BenchError(f"cannot make {folder}: {error.strerror}", hint=hint) from None
        yield
