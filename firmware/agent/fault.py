"""Exceptions that were survived: counted, and the last one told in the next report."""

import io
import sys

from micropython import const

_MAX_TEXT_BYTES = const(120)


class Faults:
    """What went wrong since boot.

    Args:
        secrets: texts that must never leave the board, whatever an exception says.
    """

    def __init__(self, secrets=()):
        self.count = 0
        self._secrets = [secret for secret in secrets if secret]
        self._text = ""

    def note(self, error):
        """Count an exception and keep its text: type, place, message."""
        self.count = min(self.count + 1, 0xFFFE)
        try:
            place = _place(error)
        except MemoryError:
            place = ""
        text = "%s %s %s" % (type(error).__name__, place, error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        self._text = "".join(c if " " <= c <= "~" else "?" for c in text)[:_MAX_TEXT_BYTES]
        print("netzpuls: survived", self._text)

    def take(self):
        """Return the text of the last exception not yet told, "" if there is none."""
        text, self._text = self._text, ""
        return text


def _place(error):
    """Return `file:line` of where an exception was raised, "" if it cannot be known."""
    if hasattr(sys, "print_exception"):
        buffer = io.StringIO()
        sys.print_exception(error, buffer)
        trace = buffer.getvalue()
    else:
        import traceback

        trace = "".join(traceback.format_exception(error))
    place = ""
    for line in trace.split("\n"):
        parts = line.strip().split('"')
        if len(parts) == 3 and parts[0] == "File " and parts[2].startswith(", line "):
            number = parts[2][len(", line ") :].split(",")[0]
            place = "%s:%s" % ("/".join(parts[1].split("/")[-2:]), number)
    return place
