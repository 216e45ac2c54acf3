"""Waiting with an end, in milliseconds, on MicroPython and in tests on CPython."""

import asyncio

TimeoutError = asyncio.TimeoutError  # noqa: A001 - MicroPython has no built-in one

if hasattr(asyncio, "sleep_ms"):
    sleep_ms = asyncio.sleep_ms
    within_ms = asyncio.wait_for_ms
else:

    def sleep_ms(duration):
        """Sleep."""
        return asyncio.sleep(duration / 1000)

    def within_ms(awaitable, duration):
        """Await with a deadline.

        Raises: TimeoutError: the time is up; the awaitable was cancelled.
        """
        return asyncio.wait_for(awaitable, duration / 1000)
