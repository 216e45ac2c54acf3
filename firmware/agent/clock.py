"""The board's clock: where its time comes from, and how good it is.

An ESP32 has no battery: it starts in 2000 and would then hold every certificate for not
yet valid. Until a real time is known the clock is therefore set to a moment that is past
for sure, and reports say time 0 and quality `none`.
"""

from linkreport.table import CLOCK_ACK, CLOCK_KEPT, CLOCK_NONE, CLOCK_NTP
from micropython import const

from .loan import borrow, give_back

_POWER_LOST = (0, 1)  # unknown, power-on: the counter of seconds started anew
_RENEW_MS = const(6 * 3600 * 1000)
_RETRY_MS = const(10 * 60 * 1000)
_STEP_S = const(2)
_LATEST_S = const(0xFFFFFFFE)


class Clock:
    """Unix time with its quality.

    Args:
        floor_s: a moment that is past for sure; a time before it is nonsense.
        last_s: a later moment that is past if the clock was right then.
    """

    def __init__(self, port, floor_s, last_s=0):
        self._port = port
        self._floor_s = floor_s
        self._ntp_due_ms = 0
        kept = port.recall("clock_set") == 1 and port.reset_cause() not in _POWER_LOST
        self.quality = CLOCK_KEPT if kept and port.time_s() >= floor_s else CLOCK_NONE
        if port.time_s() < max(floor_s, last_s) and self.quality == CLOCK_NONE:
            port.set_time_s(max(floor_s, last_s))
        if self.quality == CLOCK_NONE and port.recall("clock_set") == 1:
            _remember_set(port, 0)

    def now(self):
        """Return (Unix seconds, quality); 0 seconds while the time is not known."""
        if self.quality == CLOCK_NONE:
            return 0, CLOCK_NONE
        return min(self._port.time_s(), _LATEST_S), self.quality

    async def ask_ntp(self, host, resolver):
        """Ask NTP if that is due: takes some seconds, so ask only when online."""
        now_ms = self._port.uptime_ms()
        if not host or now_ms < self._ntp_due_ms:
            return
        self._ntp_due_ms = now_ms + _RETRY_MS
        try:
            time_s = await borrow("agent.ntp").ask(self._port, host, resolver)
        finally:
            give_back("agent.ntp", "agent.dns", "agent.connection")
        if time_s is not None and self._floor_s <= time_s <= _LATEST_S:
            self._set(time_s, CLOCK_NTP)
            self._ntp_due_ms = now_ms + _RENEW_MS

    def hear_ack(self, time_s):
        """Take the collector's time, unless a better one is known.

        Returns: how many seconds it is ahead of NTP's; 0 without NTP.
        """
        if self.quality == CLOCK_NTP:
            ahead_s = time_s - self._port.time_s()
            return max(-0x80000000, min(ahead_s, 0x7FFFFFFF))
        if not self._floor_s <= time_s <= _LATEST_S:
            return 0
        # Small steps are the way of the message, not a wrong clock.
        if self.quality != CLOCK_ACK or abs(time_s - self._port.time_s()) >= _STEP_S:
            self._set(time_s, CLOCK_ACK)
        return 0

    def _set(self, time_s, quality):
        self._port.set_time_s(time_s)
        if self.quality == CLOCK_NONE:
            _remember_set(self._port, 1)
        self.quality = quality


def _remember_set(port, number):
    """Remember whether the clock was set; it does without where the flash is worn out."""
    try:
        port.remember("clock_set", number)
    except OSError:
        return
