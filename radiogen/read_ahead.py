"""Read the next case while this one is being worked on."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    things: Iterable[T], read: Callable[[T], R], is_small: Callable[[T], bool]
) -> Iterator[tuple[T, Callable[[], R]]]:
    """Each thing, and a function that gives what was read of it or raises what reading it raised.

    While one thing is out, the next is read in a thread, if it is small; else when it is asked for. So at
    most two are in memory.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as reader:
        waiting: tuple[T, Callable[[], R]] | None = None
        try:
            for thing in things:
                coming = reader.submit(read, thing).result if is_small(thing) else partial(read, thing)
                if waiting:
                    yield waiting
                waiting = thing, coming
            if waiting:
                yield waiting
        finally:
            reader.shutdown(cancel_futures=True)
