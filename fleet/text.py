"""Text from boards, access points and hosts, made safe to show."""

from __future__ import annotations

import unicodedata

MAX_SHOWN = 200


def printable(text: str | bytes, limit: int = MAX_SHOWN) -> str:
    r"""Return text with control and invisible characters as `\xNN`, cut to `limit`.

    Whatever a peer says of itself may hold escape sequences that move the cursor or hide
    text in a terminal or a log.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    shown = "".join(
        c if unicodedata.category(c)[0] != "C" else c.encode("unicode_escape").decode()
        for c in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
