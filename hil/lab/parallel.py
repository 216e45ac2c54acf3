"""Work side by side in threads that an interrupt need not wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def side_by_side(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Return what `work` makes of each item, in their order.

    Raises: what the first that failed raised; the others go on, and are forgotten.
    """
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    found: dict[int, _Result] = {}

    def run(at: int, item: _Item) -> None:
        try:
            found[at] = work(item)
            done.put(None)
        except BaseException as error:
            done.put(error)

    threads = [
        threading.Thread(target=run, args=(at, item), name=f"beside {at}", daemon=True)
        for at, item in enumerate(items)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        error = done.get()
        if error is not None:
            raise error
    return [found[at] for at in range(len(threads))]
