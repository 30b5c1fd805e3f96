"""Processes that do one task on many items, as many at a time as are asked for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import TypeVar

from pipeline.errors import InterruptedRunError

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2
"""Items a process that may wait, read or done: they bound the memory."""


def in_order(
    task: Callable[[Item], Result], items: Iterable[Item], jobs: int = 1
) -> Generator[Result, None, None]:
    """The results of a task, in the order of its items; the items are read as they are needed.

    Args:
        task: done in other processes when there are several; then it must be picklable.
        items: read at most a few ahead of the results taken.
        jobs: processes; 1 for this one.

    However the iteration ends (close it, or a process would wait), no process is left: they live
    while this one holds a pipe that they listen at. Ctrl-C reaches this process alone.

    Raises:
        InterruptedRunError: a process was killed.
    """
    if jobs == 1:
        yield from map(task, items)
        return
    with _pool(jobs) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                with signals_held():
                    waiting.append(pool.submit(task, item))
                if len(waiting) > _AHEAD * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise InterruptedRunError(
                "a worker process was killed, perhaps for want of memory; try fewer --jobs"
            ) from error


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    ear, mouth = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, initializer=_prepare, initargs=(ear,))
    try:
        yield pool
        pool.shutdown()
    finally:
        mouth.close()
        pool.shutdown(cancel_futures=True)
        ear.close()


def _prepare(ear: Connection) -> None:
    """Make a new process one that computes in one thread and ends with the one that started it."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # It inherited a mask that holds both signals back: the process that started it ends it.
    threading.Thread(target=_end_with, args=(ear,), daemon=True).start()


def _end_with(ear: Connection) -> None:
    with suppress(EOFError, OSError):
        ear.recv_bytes()
    os._exit(1)


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back what would interrupt: a process started meanwhile holds it back for ever.

    So Ctrl-C does not meet it half started, when Python would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It starts with the first process and lets signals through again: so it starts before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
