"""A virtual ESP32, used by the real esptool and mpremote.

Run one in the foreground with `netzpuls lab board`, one in a process of its own with
`BoardProcess`, one inside an asyncio program with `Board`.
"""

from __future__ import annotations

from hil.board.board import Board, Settings, serve
from hil.board.control import ControlClient
from hil.board.process import BoardProcess

__all__ = ["Board", "BoardProcess", "ControlClient", "Settings", "serve"]
