"""Downloading the data set: parallel processes, a full disk, and servers that fail."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from fmnist.data import download
from fmnist.errors import FmnistError

REAL_CACHE = download.keras_folder()
LOAD_SCRIPT = """
import sys
from pathlib import Path
from fmnist.data import download

copy = Path(sys.argv[1])
download.SOURCES = {"Keras' cache": download.SOURCES["Keras' cache"], "the copy": lambda _: copy}
print("ready", flush=True)
sys.stdin.readline()
print(sorted(download.load_verified()[0]) == sorted(download.FILES))
"""


@pytest.mark.parametrize("damage", ["empty cache", "damaged cache"])
def test_parallel_processes_all_succeed(fashion, keras_home, damage):
    assert fashion.is_fashion_mnist
    if damage == "damaged cache":
        keras_home.mkdir(parents=True)
        for name in download.FILES:
            (keras_home / f"{name}.gz").write_text("<!doctype html>")
    command = [sys.executable, "-c", LOAD_SCRIPT, REAL_CACHE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
        # The others start as soon as the first one has started to fill the cache.
        while not keras_home.exists() or not any(keras_home.iterdir()):
            time.sleep(0.001)
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "True\n"), err
    download.read_verified(keras_home)
    others = {path.name for path in keras_home.iterdir()} - {f"{name}.gz" for name in download.FILES}
    assert all(".gz.damaged" in name for name in others)
    assert damage == "damaged cache" or not others


def test_full_disk_during_a_download_is_one_line_and_leaves_nothing(cli, keras_home, monkeypatch):
    folders = []

    def fail(new_folder):
        folders.append(new_folder())
        (folders[0] / "half.gz").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(download, "SOURCES", {"a download": fail})
    monkeypatch.setenv("FMNIST_DATA", "")
    code, out, err = cli("data")
    assert (code, out) == (1, "")
    assert "Tried: a download (no space left on the disk; free some and try again)." in err
    assert not folders[0].exists()
    assert not keras_home.exists()
    copy = shutil.copytree(REAL_CACHE, keras_home.parent / "copy")
    monkeypatch.setattr(download, "SOURCES", {"the copy": lambda _: copy})
    assert cli("data")[0] == 0


@pytest.fixture
def only_keras_download(keras_home, monkeypatch):
    """Make Keras' download the only source."""
    monkeypatch.setattr(download, "SOURCES", {"Keras' download": download.SOURCES["Keras' download"]})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return keras_home


@pytest.fixture
def serve(only_keras_download, monkeypatch):
    """Start a server on this machine whose GET handler is given, and download from it."""
    servers = []

    def start(respond):
        handler = type("Handler", (BaseHTTPRequestHandler,), {"do_GET": respond, "log_message": lambda *_: None})
        servers.append(HTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=[0.01], daemon=True).start()
        monkeypatch.setattr(download, "KERAS_URL", f"http://127.0.0.1:{servers[-1].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send(handler, content, length=None):
    handler.send_response(200)
    handler.send_header("Content-Length", str(length or len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def test_keras_download(serve, only_keras_download):
    serve(lambda handler: send(handler, (REAL_CACHE / handler.path[1:]).read_bytes()))
    contents, source = download.load_verified()
    assert source == "Keras' download"
    assert list(contents) == list(download.FILES)
    assert download.read_verified(only_keras_download) == contents


FAILURES = {
    "not found": (lambda handler: handler.send_error(404), r"the host refused \(404"),
    "incomplete": (lambda handler: send(handler, b"half", length=8), "the connection broke off; try again"),
    "HTML page": (lambda handler: send(handler, b"<!doctype html>"), "not a gzip file"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_failed_download_is_one_line_and_leaves_the_cache_empty(serve, only_keras_download, case):
    respond, expected = FAILURES[case]
    serve(respond)
    with pytest.raises(FmnistError, match=expected) as caught:
        download.load_verified()
    assert "\n" not in str(caught.value)
    assert not only_keras_download.exists()


def test_a_disk_that_fills_up_is_not_taken_for_the_network(serve, only_keras_download, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    serve(lambda handler: send(handler, b"content"))
    monkeypatch.setattr("requests.Response.iter_content", fail)
    with pytest.raises(FmnistError, match="no space left on the disk; free some"):
        download.load_verified()


def test_silent_server_is_given_up(only_keras_download, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(download, "KERAS_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.3)
        with pytest.raises(FmnistError, match="no answer in time"):
            download.load_verified()


def test_an_unexpected_error_of_a_source_is_not_the_end(keras_home, monkeypatch):
    def fail(_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/somewhere")

    copy = shutil.copytree(REAL_CACHE, keras_home.parent / "copy")
    monkeypatch.setattr(download, "SOURCES", {"a closed folder": fail, "the copy": lambda _: copy})
    assert download.load_verified()[1] == "the copy"


def test_a_user_without_a_home_directory_has_a_cache(monkeypatch, tmp_path):
    """As a user id that the system does not know, in a container."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert download.keras_folder().is_absolute()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("home", ["new", "new/below", "."])
def test_looking_for_the_data_creates_nothing(monkeypatch, tmp_path, home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", home)
    assert download.keras_folder() == Path(home, "datasets", "fashion-mnist")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_a_file_is_replaced(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    assert tmp_path not in download.keras_folder().parents


def test_the_current_folder_can_be_the_home_of_keras(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", ".")
    assert download.keras_folder() == Path("datasets", "fashion-mnist")


def test_download_without_requests_names_the_extra(only_keras_download, monkeypatch):
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(FmnistError, match=r"pip install 'fmnist\[train\]'"):
        download.load_verified()
