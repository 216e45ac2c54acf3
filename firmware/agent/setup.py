"""What the board needs before it can start: its configuration and its identity."""

import sys


class SetupError(ValueError):
    """The board was not set up as it must be; `part` is "config" or "identity"."""

    def __init__(self, part, message):
        super().__init__(message)
        self.part = part


def load_config(path):
    """Load the configuration.

    Raises: SetupError: it cannot be used.
    """
    from . import config

    try:
        return config.load(path)
    except ValueError as error:
        raise SetupError("config", str(error))
    finally:
        # The checker is not needed again, and is a tenth of all the code in memory.
        del sys.modules["agent.config"], sys.modules["agent"].config


def load_identity(folder):
    """Read the report key and the board's certificate, and see that the rest is there.

    Returns: (report key, certificate as DER).
    Raises:  SetupError: a file is missing or is not what it should be.
    """
    found = {}
    for name in ("ca.der", "board.der", "board.key.der", "report.key"):
        try:
            with open(folder + "/" + name, "rb") as file:
                found[name] = file.read()
        except OSError as error:
            raise SetupError("identity", "%s/%s cannot be read: %s" % (folder, name, error))
        if name.endswith(".der") and found[name][:1] != b"\x30":
            raise SetupError("identity", "%s/%s is not DER" % (folder, name))
    if len(found["report.key"]) != 32:
        raise SetupError("identity", "%s/report.key must have 32 bytes" % folder)
    return found["report.key"], found["board.der"]
