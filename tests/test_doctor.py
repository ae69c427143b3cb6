"""fmnist doctor: each line from injected facts, and the real command without a network."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fmnist
from fmnist import doctor
from fmnist.doctor import GB

VERSIONS = {"keras": "3.15.1", "numpy": "2.4.6"}
NEEDED = ["keras<4,>=3.15.1", "numpy<3,>=2.1", "colorama>=1; sys_platform == 'none'", "jupyterlab; extra == 'notebook'"]

LINES = {
    "Python": (doctor.python("3.12.1", "<3.14,>=3.11"), "ok", "3.12.1"),
    "Python too old": (doctor.python("3.10.9", "<3.14,>=3.11"), "error", "install Python <3.14,>=3.11"),
    "Python too new": (doctor.python("3.14.0rc1", "<3.14,>=3.11"), "error", "install Python <3.14,>=3.11"),
    "packages": (doctor.packages(NEEDED, VERSIONS.get), "ok", "all 2 within their bounds: keras 3.15.1, numpy 2.4.6"),
    "a package outside": (
        doctor.packages(NEEDED, {**VERSIONS, "numpy": "3.0"}.get),
        "warning",
        "numpy 3.0 (expected <3,>=2.1)",
    ),
    "a package missing": (doctor.packages(NEEDED, {"numpy": "2.4"}.get), "error", "missing: keras"),
    "Keras": (doctor.keras(0, "tensorflow backend"), "ok", "starts: tensorflow backend"),
    "Keras fails": (doctor.keras(1, "No module named 'jax'"), "error", "No module named 'jax'"),
    "Keras crashes": (doctor.keras(-4, ""), "error", "signal 4"),
    "bfloat16": (doctor.processor("X", True), "ok", "training takes bfloat16"),
    "float32": (doctor.processor("X", False), "ok", "training takes float32"),
    "two threads": (doctor.threads(2), "ok", "2"),
    "one thread": (doctor.threads(1), "warning", "more processors"),
    "memory": (doctor.memory(8 * GB), "ok", "8.0 GB available"),
    "little memory": (doctor.memory(2 * GB), "warning", "close other programs"),
    "no memory": (doctor.memory(1 * GB), "error", "training takes 1.6 GB"),
    "disk": (doctor.disk(Path("/here"), 9 * GB, True), "ok", "9.0 GB free in /here"),
    "little disk": (doctor.disk(Path("/here"), 0.5 * GB, True), "warning", "free some space"),
    "full disk": (doctor.disk(Path("/here"), 0.01 * GB, True), "error", "free 100 MB"),
    "read-only disk": (doctor.disk(Path("/here"), 9 * GB, False), "error", "a folder of your own"),
    "screen": (doctor.screen(True, True), "ok", "a display and a browser"),
    "no display": (doctor.screen(False, True), "warning", "no display"),
    "nothing to look with": (doctor.screen(False, False), "warning", "no display, no browser"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_line_says_what_was_found_and_how_to_mend_it(case):
    line, status, words = LINES[case]
    assert line.status == status
    assert words in f"{line.found} {line.mend}"
    assert (line.mend is None) == (status == "ok")


HERE = {"cache": None, "folder": "it is not there"}
NOT_HERE = {"cache": "it is cut", "folder": "it is not there"}
ONLINE, OFFLINE = {"host": None}, {"host": "no connection"}
# FMNIST_DATA, its problem, sources here, hosts: the status of the data set and of each source, and words of the first
DATA = {
    "here, online": ((None, None, HERE, ONLINE), ["ok", "ok", "ok", "ok"], "every byte verified, in cache"),
    "here, offline": ((None, None, HERE, OFFLINE), ["ok", "ok", "ok", "warning"], "every byte verified"),
    "not here, online": (
        (None, None, NOT_HERE, ONLINE),
        ["warning", "warning", "warning", "ok"],
        "`fmnist data` fetches",
    ),
    "not here, offline": ((None, None, NOT_HERE, OFFLINE), ["error", *["warning"] * 3], "connect to a network"),
    "named": (("mine", None, NOT_HERE, OFFLINE), ["ok", "ok", "ok", "warning"], "FMNIST_DATA names mine"),
    "named wrongly": (
        ("mine", "no data folder mine", HERE, ONLINE),
        ["error", "ok", "warning", "ok"],
        "no data folder mine",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_the_data_is_here_or_can_be_had(case):
    facts, statuses, words = DATA[case]
    lines = doctor.data_set(*facts)
    assert [line.status for line in lines] == statuses
    assert [line.name for line in lines] == ["data set", "cache", "folder", "host"]
    assert words in f"{lines[0].found} {lines[0].mend}"
    assert all(line.mend for line in lines if line.status != "ok")


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_the_real_command_without_a_network(cli, tmp_path, monkeypatch, fashion):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("doctor", "--json")
    assert code == 0, out
    document = json.loads(out)
    assert document["is_able"] is True
    lines = {line["name"]: line for line in document["lines"]}
    assert list(lines) == [
        "Python", "packages", "Keras", "processor", "threads", "memory", "disk", "data set",
        "Keras' cache", "Debian's folder", "Keras' download", "Debian's package", "screen",
    ]  # fmt: skip
    assert {line["status"] for line in lines.values()} <= {"ok", "warning"}
    assert lines["Keras"]["found"] == "starts: tensorflow backend"
    assert lines["packages"]["status"] == "ok"
    assert lines["data set"]["status"] == "ok"
    assert (lines["Keras' download"]["status"], lines["Keras' download"]["found"]) == ("warning", "no connection")
    assert all(set(line) == {"name", "status", "found", "mend"} for line in lines.values())
    assert "This machine can train." in err
    assert tree(tmp_path) == {}


def test_an_error_exits_with_1_after_everything_is_said(cli, monkeypatch):
    lines = [doctor.memory(GB / 2), doctor.threads(2)]
    monkeypatch.setattr(doctor, "examine", lambda: lines)
    code, out, err = cli("doctor")
    assert code == 1
    for words in ("0.5 GB available", "close other programs", "threads", "mend the errors first"):
        assert words in out
    assert err == ""
    assert json.loads(cli("doctor", "--json")[1])["is_able"] is False


def test_doctor_itself_loads_nothing_that_may_crash():
    script = "import sys, fmnist.doctor; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"keras", "tensorflow", "jax", "onnxruntime", "matplotlib", "sklearn"} & set(done.stdout.split())


def test_keras_that_cannot_start_is_told_by_its_last_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    code, last_line = doctor.start_keras()
    assert code == 1
    assert "nonsense" in last_line


def test_hosts_that_say_nothing_are_not_waited_for(monkeypatch):
    """One takes the connection and is silent; the other does not even come back from looking up its name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(doctor, "TIMEOUT_SECONDS", 0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        hosts = {"silent": lambda: doctor._head(url), "stuck": lambda: time.sleep(5), "mad": lambda: 1 / 0}
        monkeypatch.setattr(doctor, "HOSTS", hosts)
        started = time.monotonic()
        answers = doctor.ask_hosts()
    assert time.monotonic() - started < 4
    assert answers["silent"] == answers["stuck"] == "no answer within 0.2 s"
    assert answers["mad"] == "ZeroDivisionError: division by zero"


def test_the_package_lists_may_not_know_the_data(monkeypatch, tmp_path):
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    (tmp_path / "dpkg-deb").write_text("#!/bin/sh\n")
    for tool in tmp_path.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fmnist.FmnistError, match="they would be fetched first"):
        doctor._ask_debian()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(fmnist.FmnistError, match="no apt-get on this machine"):
        doctor._ask_debian()


@pytest.mark.parametrize(
    ("limit", "expected"), [("3000000000\n", 10**9), ("1\n", 0), ("max\n", 5 * GB), (None, 5 * GB)]
)
def test_a_container_may_have_less_memory_than_its_machine(monkeypatch, tmp_path, limit, expected):
    class Machine:
        available = 5 * GB

    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: Machine)
    none = (tmp_path / "none", tmp_path / "none")
    monkeypatch.setattr(doctor, "CGROUPS", ((tmp_path / "memory.max", tmp_path / "memory.current"), none))
    (tmp_path / "memory.current").write_text("2000000000\n")
    if limit:
        (tmp_path / "memory.max").write_text(limit)
    assert doctor.available_memory() == expected


@pytest.mark.parametrize(("display", "expected"), [("", False), (":0", True)])
def test_a_display_is_named_in_the_environment_on_linux(monkeypatch, display, expected):
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", display)
    assert doctor.has_display() is expected
