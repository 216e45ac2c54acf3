"""The enrolment id: which board, under which of its keys, as text that a label's code holds.

    np-240ac4123456/1      board id, "/", key id; docs/provisioning.md

It holds no secret and no colon: some phones take what stands before a colon for the name of an app
that they do not have, and show nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fleet.errors import UsageError

_FORM = re.compile(r"(np-[0-9a-f]{12})(?:/([1-9][0-9]{0,4}))?")


class EnrolmentId(NamedTuple):
    """A board under one of its keys; as text what its label's code holds."""

    board_id: str
    key_id: int

    def __str__(self) -> str:
        return f"{self.board_id}/{self.key_id}"


def parse(text: str) -> tuple[str, int | None]:
    """Return the board id and, of an enrolment id, the key id: scanned, copied or typed.

    Raises: UsageError: it is neither.
    """
    match = _FORM.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(
            f"{text!r} is no board",
            hint="a board is np- and 12 digits (0-9, a-f), as on its label; its code adds /KEY",
        )
    return match[1], int(match[2]) if match[2] else None
