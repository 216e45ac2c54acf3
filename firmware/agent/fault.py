"""Exceptions that were survived: counted, and the last one told in the next report.

One that ends the agent is kept on flash (/fault.txt) and told by the next boot.
"""

from .loan import borrow, give_back


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
        self._untold = None
        self._text = self._trace("last_words", path) if path else ""

    def note(self, error):
        """Count an exception and keep its text: type, place, message."""
        self.put_off(error)
        self.tell()

    def put_off(self, error):
        """Count an exception while a probe has the memory that telling it takes."""
        self.count = min(self.count + 1, 0xFFFE)
        self._untold = error

    def tell(self):
        """Tell what was put off, if anything was."""
        error, self._untold = self._untold, None
        if error:
            self._text = self._trace("told", error, error, self._secrets)
            print("netzpuls: survived", self._text)

    def keep(self, error):
        """Keep on flash what ends the agent."""
        if self._trace("keep", self._path, error, error, self._secrets):  # no memory for more
            try:
                with open(self._path, "w") as file:
                    file.write("died: " + type(error).__name__)
            except OSError:
                return

    def _trace(self, verb, *arguments):
        try:
            return getattr(borrow("agent.trace"), verb)(*arguments)
        except MemoryError:
            return "MemoryError"
        finally:
            give_back("agent.trace")

    def take(self):
        """Return the text of the last exception not yet told, "" if there is none."""
        text, self._text = self._text, ""
        return text
