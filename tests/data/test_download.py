"""Fetching the data set with company, and without room."""

import errno
import os
import shutil
import subprocess
import sys
import time

import pytest

from fmnist.data import download as sources

REAL_CACHE = sources.keras_folder()
FETCH = """
import sys
from pathlib import Path
from fmnist.data import download as sources

copy = Path(sys.argv[1])
sources.SOURCES = {"Keras' cache": sources.SOURCES["Keras' cache"], "the copy": lambda _: copy}
print("ready", flush=True)
sys.stdin.readline()
print(sorted(sources.load_verified()[0]) == sorted(sources.FILES))
"""


@pytest.mark.parametrize("damage", ["an empty cache", "a damaged cache"])
def test_several_at_once_all_succeed(fashion, keras_home, damage):
    assert fashion.is_fashion_mnist
    if damage == "a damaged cache":
        keras_home.mkdir(parents=True)
        for name in sources.FILES:
            (keras_home / f"{name}.gz").write_text("<!doctype html>")
    command = [sys.executable, "-c", FETCH, REAL_CACHE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
        # The others begin as soon as the first one has begun to fill the cache.
        while not keras_home.exists() or not any(keras_home.iterdir()):
            time.sleep(0.001)
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "True\n"), err
    sources.read_verified(keras_home)
    others = {path.name for path in keras_home.iterdir()} - {f"{name}.gz" for name in sources.FILES}
    assert all(".gz.damaged" in name for name in others)
    assert damage == "a damaged cache" or not others


def test_a_full_disk_while_fetching_is_one_line_and_leaves_nothing(cli, keras_home, monkeypatch):
    folders = []

    def download(new_folder):
        folders.append(new_folder())
        (folders[0] / "half.gz").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sources, "SOURCES", {"a download": download})
    monkeypatch.setenv("FMNIST_DATA", "")
    code, out, err = cli("data")
    assert (code, out, err) == (1, "", "fmnist: error: no space left on the disk; free some and try again\n")
    assert not folders[0].exists()
    assert not keras_home.exists()
    copy = shutil.copytree(REAL_CACHE, keras_home.parent / "copy")
    monkeypatch.setattr(sources, "SOURCES", {"the copy": lambda _: copy})
    assert cli("data")[0] == 0
