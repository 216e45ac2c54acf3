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


async def emptied(box):
    """Await what is in a box, so that `within_ms` keeps nothing of a module on loan.

    MicroPython's tasks that wait may point at one that has ended, and that keeps what it awaited:
    this, which has let go of what was in the box and all of its module.
    """
    return await box.pop()
