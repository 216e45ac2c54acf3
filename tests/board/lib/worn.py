"""The files of a spool on a flash that fails, or is full."""

import errno

from agent.loan import borrow

_ENOSPC = 28
_BLOCK_BYTES = 4096


class Files:
    """Stands for `agent.segment.Files`.

    Attributes:
        folder: where the files are.
        fails: nothing can be written or removed; otherwise there is only room for what was.
    """

    def __init__(self, folder):
        self.folder = folder
        self.fails = True
        self._left_bytes = 0

    def _files(self):
        # Who asks has this module on loan anyway.
        return borrow("agent.segment").Files(self.folder)

    def _good(self):
        if self.fails:
            raise OSError(errno.EIO)
        return self._files()

    def names(self):
        return self._files().names()

    def write(self, name, offset, content):
        good = self._good()
        if self._left_bytes < len(content):
            raise OSError(_ENOSPC)
        self._left_bytes -= len(content)
        good.write(name, offset, content)

    def open(self, name):
        return self._files().open(name)

    def remove(self, name):
        self._good().remove(name)
        self._left_bytes += _BLOCK_BYTES

    def free_bytes(self):
        return self._left_bytes
