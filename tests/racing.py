"""Threads that keep searching while a test updates an index."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def searching(finds_fault: Callable[[], object], threads: int = 2) -> Iterator[None]:
    """Call ``finds_fault`` again and again in threads; it must return None every time."""
    stop, faults = threading.Event(), []

    def search() -> None:
        try:
            while not stop.is_set() and not faults:
                fault = finds_fault()
                if fault is not None:
                    faults.append(fault)
        except BaseException as error:  # what a thread raises would be lost
            faults.append(error)

    running = [threading.Thread(target=search, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join()
    assert not faults, faults[0]
