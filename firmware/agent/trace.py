"""What is told of an exception, and what outlives the boot of one that ended the agent. On loan."""

import io
import os
import sys

from micropython import const

_MAX_TEXT_BYTES = const(120)


def keep(path, error, message, secrets):
    """Write to a file what ends the agent."""
    text = "died: " + told(error, message, secrets)
    print("netzpuls:", text)
    try:
        with open(path, "wb") as file:
            file.write(text.encode())
    except OSError:  # a flash that takes no report takes no last words either
        return


def last_words(path):
    """Return what `keep` left, once."""
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_TEXT_BYTES)
        os.remove(path)
    except OSError:  # nothing there, which is how it should be
        return ""
    return bytes(byte for byte in text if 32 <= byte <= 126).decode()


def told(error, message, secrets):
    """Return type, place and message in one short line of ASCII, without secrets."""
    try:
        place = _place(error)
    except MemoryError:
        place = ""
    text = "%s %s %s" % (type(error).__name__, place, message)
    for secret in secrets:
        text = text.replace(secret, "***")
    raw = text.encode()[:_MAX_TEXT_BYTES]
    return bytes(byte if 32 <= byte <= 126 else 63 for byte in raw).decode()


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
