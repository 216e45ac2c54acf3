"""Exceptions that were survived: counted, and the last one told in the next report.

One that ends the agent is kept on flash (/fault.txt) and told by the next boot.
"""

import io
import os
import sys

from micropython import const

_MAX_TEXT_BYTES = const(120)


class Faults:
    """What went wrong since boot.

    Args:
        secrets: texts that must never leave the board, whatever an exception says.
        path: file that outlives the boot, None for none.
    """

    def __init__(self, secrets=(), path=None):
        self.count = 0
        self._secrets = [secret for secret in secrets if secret]
        self._path = path
        self._text = self._last_words() if path else ""

    def note(self, error):
        """Count an exception and keep its text: type, place, message."""
        self.count = min(self.count + 1, 0xFFFE)
        self._text = self._told(error, error)
        print("netzpuls: survived", self._text)

    def keep(self, error, is_harmless=True):
        """Keep on flash what ends the agent; without its message, should that hold a secret."""
        text = "died: " + self._told(error, error if is_harmless else "")
        print("netzpuls:", text)
        try:
            with open(self._path, "wb") as file:
                file.write(text.encode())
        except OSError:  # a flash that takes no report takes no last words either
            return

    def _last_words(self):
        """Return what `keep` left, once."""
        try:
            with open(self._path, "rb") as file:
                text = file.read(_MAX_TEXT_BYTES)
            os.remove(self._path)
        except OSError:  # nothing there, which is how it should be
            return ""
        return "".join(chr(c) for c in text if 32 <= c <= 126)

    def _told(self, error, message):
        try:
            place = _place(error)
        except MemoryError:
            place = ""
        text = "%s %s %s" % (type(error).__name__, place, message)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return "".join(c if " " <= c <= "~" else "?" for c in text)[:_MAX_TEXT_BYTES]

    def take(self):
        """Return the text of the last exception not yet told, "" if there is none."""
        text, self._text = self._text, ""
        return text


def _place(error):
    """Return `file:line` (compiled: `module:line`) of where it was raised, "" if unknown."""
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
