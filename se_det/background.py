"""Work beside the main thread, in order: reading what comes next, and writing what is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, ParamSpec, TypeVar

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """The same items, each fetched in another thread while the caller still works with the one before it.

    An exception of `items` is raised where its item would have come.
    """
    end: Any = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, iterator, end)
            yield item


def map_ahead(function: Callable[[S], T], items: Iterable[S], *, threads: int, ahead: int) -> Iterator[T]:
    """`map(function, items)` in the same order, with up to `ahead` of the items begun in `threads` other threads.

    An exception, of `items` too, is raised where its result would have come.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future] = deque()
        end = False
        while begun or not end:
            while not end and len(begun) < ahead:
                try:
                    begun.append(pool.submit(function, next(iterator)))
                except StopIteration:
                    end = True
                except Exception as error:  # after the results of the items before it
                    end = True
                    begun.append(Future())
                    begun[-1].set_exception(error)
            if begun:
                yield begun.popleft().result()


class SerialExecutor(Generic[P]):
    """Calls made in one other thread, in the order given; at most `depth` wait, so that memory stays bounded.

    As a context manager it ends when all calls have been made. What a call raises is raised by a later one or at the
    end, and the calls after it are not made.
    """

    def __init__(self, call: Callable[P, object], *, depth: int = 2) -> None:
        self._call = call
        self._depth = depth
        self._pending: deque[Future] = deque()
        self._pool = ThreadPoolExecutor(1)
        self._failed = False

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Have the call made."""
        while len(self._pending) >= self._depth:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._call_unless_failed, *args, **kwargs))

    def wait(self) -> None:
        """Until all calls given so far have been made."""
        while self._pending:
            self._pending.popleft().result()

    def _call_unless_failed(self, *args: P.args, **kwargs: P.kwargs) -> None:
        if self._failed:
            return
        try:
            self._call(*args, **kwargs)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> SerialExecutor[P]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(cancel_futures=kind is not None)
