"""What the board needs before it can start: its configuration and its identity. On loan."""

from . import config
from .certificate import not_before_s


class SetupError(ValueError):
    """The board was not set up as it must be; `part` is "config" or "identity"."""

    def __init__(self, part, message):
        super().__init__(message)
        self.part = part


def load(root, board_id):
    """Load what belongs to this board, whose id is None where nobody knows it.

    Returns: (configuration, report key, the certificate's beginning in Unix seconds).
    Raises:  SetupError: something is missing, is not what it should be, or is another board's.
    """
    try:
        found = config.load(root + "/config.json")
    except ValueError as error:
        raise SetupError("config", str(error))
    if board_id not in (None, found.board):
        raise SetupError("config", "this is %s, not %s" % (board_id, found.board))
    key, certificate = load_identity(root + "/identity")
    return found, key, not_before_s(certificate)


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
