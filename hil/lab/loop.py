"""An event loop in a thread of its own, on which all of the lab's small servers run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

_Result = TypeVar("_Result")
_ANSWER_S = 20.0


class Loop:
    """Runs from entering to leaving; calls from other threads wait for their result."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine to its end there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_S)

    def call(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        """Call a function there."""

        async def called() -> _Result:
            return function(*arguments)

        return self.run(called())
