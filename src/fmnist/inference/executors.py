"""Executors of `concurrent.futures` that run on this machine: in this process, or in others that end with it."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class SerialExecutor(Executor):
    """Makes each call when it is submitted, in the thread that submits it."""

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Make the call. Only an interrupt is raised here; other exceptions are the future's."""
        future: Future[Result] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class WorkerExecutor(ProcessPoolExecutor):
    """Makes calls in processes. If one of them is killed, each other one ends after its present call."""

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Make the call in one of the processes, which may be started for it."""
        with _interrupt_blocked():
            return super().submit(_finish_call, function, *args, **kwargs)


@contextmanager
def worker_processes(number: int) -> Iterator[WorkerExecutor]:
    """Start processes that end with this block, and with this process, however it ends.

    An error in the block ends them at once. The loss of one of them ends the others after their present calls. They
    ignore Ctrl-C, which a terminal sends to all processes.

    Args:
        number: of processes.
    """
    context = get_context("spawn")
    # Nothing is sent. Each process has the reading end, and notices that the other one is closed.
    reader, writer = context.Pipe(duplex=False)
    executor = WorkerExecutor(number, context, _start_worker, (reader,))
    try:
        try:
            yield executor
        except BrokenExecutor:
            executor.shutdown()
            raise
        executor.shutdown()
    finally:
        writer.close()
        executor.shutdown(cancel_futures=True)
        reader.close()


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Block Ctrl-C until the end of this block. A process that is started in it keeps it blocked."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with, args=(connection,), daemon=True).start()


def _end_with(connection: Connection) -> None:
    """End this process when the other end of the connection is closed."""
    if hasattr(signal, "pthread_sigmask"):  # the main thread gets the signals, whose functions it calls
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    with suppress(OSError, EOFError):
        connection.recv_bytes()
    os._exit(1)


def _finish_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Make a call in a process. `SIGTERM`, by which the executor ends the others, waits until it is done."""
    signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    try:
        return function(*args, **kwargs)
    finally:
        signal.signal(signal.SIGTERM, before)
        if signals:
            os._exit(1)
