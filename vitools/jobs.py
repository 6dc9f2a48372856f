"""Many fits, one beside another: jobs of joblib, on whatever back end it is given.

A loop over fits that do not need one another is ``for item, found in each(function, items, jobs)``. With one job
it is that loop, in this process. With more, joblib runs them: on processes of this machine, or where
``joblib.parallel_config`` says (threads, Dask, Ray, Spark, …). A job computes on one thread where it has a process
of its own, and a fit depends on its own seed alone, so that the numbers do not depend on how many there
are, where they run and in which order they end.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cloudpickle
import torch

from vitools.errors import NotSupportedError, OptionError, ProcessError, first_words
from vitools.whole_numbers import is_whole

A = TypeVar("A")
R = TypeVar("R")

_HERE = uuid.uuid4().hex
"""Of this process; one that was forked has it, too, but another number."""


def check_jobs(jobs: Any) -> None:
    """Raise :class:`OptionError` for what is no number of jobs."""
    if jobs is not None and (not is_whole(jobs) or jobs == 0):
        raise OptionError(
            "jobs: expected how many fits to run side by side, -1 for as many as there are cores, or None for what "
            f"joblib.parallel_config says (else one), got {jobs!r}."
        )


def num_jobs(jobs: int | None) -> int:
    """How many fits run side by side; negative where the back end decides."""
    from joblib import Parallel

    return int(Parallel(n_jobs=jobs).n_jobs)


def each(
    function: Callable[[A], R], items: Iterable[A], jobs: int | None = None
) -> Iterator[tuple[A, R]]:
    """``function`` of every item, with the item, as they are done.

    An error of one ends them all, and so does Ctrl-C, which the processes of the jobs leave to this one; what
    was handed out before stands.

    Args:
        function: any function where jobs share this process, else one that cloudpickle can send.
        jobs: as :func:`check_jobs` says.

    Example:
        >>> sorted(each(abs, [-2, 1]))
        [(-2, 2), (1, 1)]
    """
    check_jobs(jobs)
    asked = list(items)
    if len(asked) < 2 or num_jobs(jobs) == 1:
        for item in asked:
            yield item, function(item)
        return
    here = _Here()
    calls = [_Call(place, function, item, here) for place, item in enumerate(asked)]
    try:
        for place, found in _as_done(calls, jobs):
            yield asked[place], found.thing
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        if not _is_of_pickling(error):
            raise
        raise NotSupportedError(
            f"jobs: what is to be computed cannot be sent to another process ({_cause(error)}). Use jobs=1, or "
            "joblib.parallel_config(backend='threading')."
        ) from error
    except BrokenProcessPool as error:
        raise ProcessError(
            f"jobs: a process that computed has ended ({first_words(error).partition('. ')[0]}). Where memory was "
            "short, use fewer jobs."
        ) from error
    finally:
        here.close()


def _as_done(calls: Sequence[_Call], jobs: int | None) -> Iterator[tuple[int, _Sent]]:
    """In the order in which they end, or, of a back end that hands out lists, a few at a time in their own."""
    from joblib import Parallel, delayed

    options: dict[str, Any] = {"n_jobs": jobs, "batch_size": 1, "max_nbytes": None}
    try:
        parallel = Parallel(return_as="generator_unordered", **options)
    except ValueError:  # a back end without generators
        size = max(1, num_jobs(jobs))
        for start in range(0, len(calls), size):
            yield from Parallel(**options)(delayed(call)() for call in calls[start : start + size])
        return
    found = parallel(delayed(call)() for call in calls)
    try:
        yield from found
    finally:
        found.close()


class _Sent:
    """A thing that goes to another process, or comes from there, however it was made (a closure, say)."""

    def __init__(self, thing: Any):
        self.thing = thing

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (cloudpickle.dumps(self.thing),)


def _received(sent: bytes) -> _Sent:
    return _Sent(pickle.loads(sent))


class _Here:
    """The calls that run in threads of this process, none of which outlives the loop that asked for it."""

    def __init__(self) -> None:
        self._changed, self._running, self._closed = threading.Condition(), 0, False

    def __enter__(self) -> None:
        with self._changed:
            if self._closed:
                raise RuntimeError("a job that nobody waits for")
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._running)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Here, ()


class _Call:
    """One call of the function, and where it comes from."""

    def __init__(self, place: int, function: Callable[[Any], Any], item: Any, here: _Here):
        self.place, self.what, self.here = place, _Sent((function, item)), here
        self.home = (_HERE, os.getpid())

    def __call__(self) -> tuple[int, _Sent]:
        if self.home != (_HERE, os.getpid()):  # a process of its own
            torch.set_num_threads(1)
            if threading.current_thread() is threading.main_thread():
                # a terminal sends Ctrl-C to all; the process that asked ends this one
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        function, item = self.what.thing
        with self.here:
            return self.place, _Sent(function(item))


def _is_of_pickling(error: Exception) -> bool:
    return isinstance(error, pickle.PicklingError) or "cannot pickle" in str(error)


def _cause(error: BaseException) -> str:
    """What went wrong first, of which another process sends the whole traceback."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().strip('"').strip().splitlines()
    return lines[-1] if lines else type(error).__name__
