"""Executors: calls in this process, and in processes that end with it."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from fmnist.inference.executors import SerialExecutor, worker_processes


def is_running(pid):
    """Check whether a process runs. One that has ended can stay in the table of processes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def write_slowly(path):
    path.with_suffix(".begun").touch()
    time.sleep(0.5)
    path.touch()


def wait_and_die(path):
    wait_until(path.with_suffix(".begun").exists)
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    raise KeyboardInterrupt


def test_serial_calls_are_made_at_once():
    executor = SerialExecutor()
    assert executor.submit(divmod, 7, 2).result(0) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 7, 0).result(0)
    with pytest.raises(KeyboardInterrupt):
        executor.submit(interrupt)


def test_calls_are_made_in_processes():
    with worker_processes(2) as executor:
        pids = {executor.submit(os.getpid).result() for _ in range(4)}
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 7, 0).result()
    assert os.getpid() not in pids
    assert not any(map(is_running, pids))


def test_the_loss_of_a_process_lets_the_others_finish_their_calls(tmp_path):
    def use_processes():
        with worker_processes(2) as executor:
            executor.submit(write_slowly, tmp_path / "a")
            executor.submit(wait_and_die, tmp_path / "a").result()

    with pytest.raises(BrokenExecutor):
        use_processes()
    assert (tmp_path / "a").exists()


def test_an_interrupt_ends_the_processes_at_once():
    pids = []

    def use_processes():
        with worker_processes(1) as executor:
            pids.append(executor.submit(os.getpid).result())
            executor.submit(time.sleep, 60)
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        use_processes()
    assert not is_running(pids[0])
    assert time.monotonic() - started < 10


def test_processes_ignore_ctrl_c():
    with worker_processes(1) as executor:
        pid = executor.submit(os.getpid).result()
        sleeping = executor.submit(time.sleep, 0.3)
        for _ in range(3):
            os.kill(pid, signal.SIGINT)
            time.sleep(0.05)
        sleeping.result()
        assert executor.submit(os.getpid).result() == pid


def test_processes_end_with_the_one_that_started_them():
    script = (
        "import os, time\n"
        "from fmnist.inference.executors import worker_processes\n"
        "with worker_processes(2) as executor:\n"
        "    print(executor.submit(os.getpid).result(), flush=True)\n"
        "    executor.submit(time.sleep, 60).result()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        assert is_running(pid)
        process.kill()
    wait_until(lambda: not is_running(pid))
