"""fmnist doctor: each check with given facts, and the real command without a network."""

import json
import os
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import fmnist
from fmnist import doctor
from fmnist.data import download
from fmnist.doctor import GB, Check
from fmnist.runs import environment

VERSIONS = {"keras": "3.15.1", "numpy": "2.4.6"}
REQUIREMENTS = [
    "numpy<3,>=2.1",
    "colorama>=1; sys_platform == 'none'",
    "keras<4,>=3.15.1; extra == 'train'",
    "jupyterlab; extra == 'notebook'",
    "tensorflow-cpu<2.22,>=2.21; (sys_platform != 'none') and extra == 'tensorflow-cpu'",
    "jax<0.13,>=0.10; extra == 'jax'",
    "jax[cuda12]<0.13,>=0.10; extra == 'jax-cuda12'",
]
EXTRAS = ["train", "notebook", "tensorflow-cpu", "jax", "jax-cuda12"]


def packages(**changes):
    """Return the checks of the base and of the extras with changed versions; None is not installed."""
    versions = {name.replace("_", "-"): version for name, version in (VERSIONS | changes).items()}
    return doctor.check_packages(REQUIREMENTS, EXTRAS, {name: each for name, each in versions.items() if each})


# What is checked: the check, its status and a part of its text
CHECKS = {
    "Python": (doctor.check_python("3.12.1", "<3.14,>=3.11"), "ok", "3.12.1"),
    "Python too old": (doctor.check_python("3.10.9", "<3.14,>=3.11"), "error", "install Python <3.14,>=3.11"),
    "Python too new": (doctor.check_python("3.14.0rc1", "<3.14,>=3.11"), "error", "install Python <3.14,>=3.11"),
    "base": (packages()[0], "ok", "all 1 within their bounds: numpy 2.4.6"),
    "base outside": (packages(numpy="3.0")[0], "warning", "numpy 3.0 (expected <3,>=2.1) `pip install fmnist`"),
    "base missing": (packages(numpy=None)[0], "error", "missing: numpy `pip install fmnist`"),
    "extra": (packages()[1], "ok", "all 1 within their bounds: keras 3.15.1"),
    "no extra": (packages(keras=None)[1], "ok", "none installed"),
    "two extras": (
        packages(tensorflow_cpu="2.21.3")[1],
        "ok",
        "all 2 within their bounds: keras 3.15.1, tensorflow-cpu",
    ),
    "extra outside": (
        packages(jax="0.13")[1],
        "warning",
        "jax 0.13 (expected <0.13,>=0.10) `pip install 'fmnist[train,jax]'`",
    ),
    "extra without Keras": (packages(keras=None, jax="0.10.2")[1], "ok", "all 1 within their bounds: jax 0.10.2"),
    "Keras": (doctor.check_keras((0, "tensorflow backend")), "ok", "starts: tensorflow backend"),
    "Keras fails": (doctor.check_keras((1, "No module named 'jax'")), "error", "No module named 'jax'"),
    "Keras cannot train": (
        doctor.check_keras((0, "numpy backend"), "numpy"),
        "error",
        "KERAS_BACKEND names the backend 'numpy', with which Keras cannot train",
    ),
    "no backend": (
        doctor.check_keras((1, "Unable to import backend : nonsense"), "nonsense"),
        "error",
        "'nonsense', with which Keras cannot train",
    ),
    "backend missing": (
        doctor.check_keras((1, "No module named 'torch'"), "torch"),
        "error",
        "No module named 'torch' unset KERAS_BACKEND, which names torch, to train with TensorFlow, or install torch",
    ),
    "Keras crashes": (doctor.check_keras((-4, "")), "error", "signal 4"),
    "no Keras": (doctor.check_keras(None), "error", "not installed `pip install 'fmnist[train,tensorflow-cpu]'`"),
    "bfloat16": (
        doctor.check_processor("X", 2, True),
        "ok",
        "X, 2 threads; native bfloat16, so training uses bfloat16",
    ),
    "float32": (doctor.check_processor("X", 2, False), "ok", "training uses float32"),
    "one thread": (doctor.check_processor("X", 1, False), "warning", "more processors"),
    "memory": (doctor.check_memory(8 * GB), "ok", "8.0 GB available"),
    "little memory": (doctor.check_memory(2 * GB), "warning", "close other programs"),
    "no memory": (doctor.check_memory(1 * GB), "error", "training takes 1.6 GB"),
    "unknown memory": (doctor.check_memory(None), "warning", "training takes 1.6 GB"),
    "disk": (doctor.check_disk(Path("/here"), 9 * GB, True), "ok", "9.0 GB free in /here"),
    "little disk": (doctor.check_disk(Path("/here"), GB // 2, True), "warning", "free 1 GB"),
    "full disk": (doctor.check_disk(Path("/here"), GB // 100, True), "error", "free 1 GB"),
    "read-only disk": (doctor.check_disk(Path("/here"), 9 * GB, False), "error", "a folder of your own"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_check(case):
    check, status, text = CHECKS[case]
    assert check.status == status
    assert text in f"{check.found} {check.hint}"
    assert (check.hint is None) == (status == "ok")


def test_train_is_incomplete_if_keras_is_installed_without_the_rest():
    requirements = [*REQUIREMENTS, "scipy; extra == 'train'"]
    check = doctor.check_packages(requirements, EXTRAS, VERSIONS)[1]
    assert check == Check("extras", "error", "missing: scipy", "`pip install 'fmnist[train]'`")


HERE = {"cache": None, "folder": "it does not exist"}
NOT_HERE = {"cache": "it is truncated", "folder": "it does not exist"}
ONLINE, OFFLINE = {"host": None}, {"host": "no connection"}
# FMNIST_DATA, its problem, local sources, hosts; the status of the data set and of each source; part of the first text
DATA = {
    "here, online": ((None, None, HERE, ONLINE), ["ok", "ok", "ok", "ok"], "every byte verified, in cache"),
    "here, offline": ((None, None, HERE, OFFLINE), ["ok", "ok", "ok", "ok"], "every byte verified"),
    "not here, online": (
        (None, None, NOT_HERE, ONLINE),
        ["warning", "warning", "warning", "ok"],
        "`fmnist data` downloads it: host",
    ),
    "not here, offline": ((None, None, NOT_HERE, OFFLINE), ["error", *["warning"] * 3], "connect to a network"),
    "folder": (("mine", None, NOT_HERE, OFFLINE), ["ok", "ok", "ok", "ok"], "in mine, the value of FMNIST_DATA"),
    "wrong folder": (
        ("mine", "no data folder mine", HERE, ONLINE),
        ["error", "ok", "warning", "ok"],
        "no data folder mine correct FMNIST_DATA",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_check_of_the_data(case):
    facts, statuses, text = DATA[case]
    checks = doctor.check_data(*facts)
    assert [check.status for check in checks] == statuses
    assert [check.name for check in checks] == ["data set", "cache", "folder", "host"]
    assert text in f"{checks[0].found} {checks[0].hint}"
    assert all((check.hint is None) == (check.status == "ok") for check in checks)


TENSORFLOW = {
    "none": ([], "ok", "not installed"),
    "one": (["tensorflow_cpu"], "ok", "tensorflow-cpu 2.21.0"),
    "two": (["tensorflow_cpu", "tensorflow"], "warning", "tensorflow 2.20.0 and tensorflow-cpu 2.21.0 overwrite"),
    "another name": (
        ["tensorflow", "intel_tensorflow_avx512"],
        "warning",
        "intel-tensorflow-avx512 2.14 and tensorflow 2",
    ),
}


@pytest.mark.parametrize("case", TENSORFLOW)
def test_two_distributions_of_tensorflow_are_a_warning(case, monkeypatch, tmp_path):
    """With the metadata of distributions as pip installs it."""
    installed, status, text = TENSORFLOW[case]
    versions = {
        "tensorflow": "2.20.0",
        "tensorflow_cpu": "2.21.0",
        "intel_tensorflow_avx512": "2.14",
        "tf2onnx": "1.17",
    }
    for name in [*installed, "tf2onnx"]:
        folder = tmp_path / f"{name}-{versions[name]}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {versions[name]}\n")
        (folder / "top_level.txt").write_text("tf2onnx\n" if name == "tf2onnx" else "tensorflow\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = {canonicalize_name(each.name): each.version for each in metadata.distributions()}
    check = doctor.check_tensorflow(metadata.packages_distributions().get("tensorflow", []), found)
    assert check.status == status
    assert text in check.found
    assert (check.hint is None) == (status == "ok")
    assert check.hint is None or "`pip uninstall --yes" in check.hint
    assert check.hint is None or check.hint.endswith("then `pip install 'fmnist[train,tensorflow-cpu]'`")


SUMMARIES = {
    "no error": ([Check("Python", "ok", ""), Check("memory", "warning", "")], "This machine can train."),
    "no Keras": ([Check("Python", "ok", ""), Check("Keras", "error", "")], "can predict but not train: fix the errors"),
    "no base": ([Check("packages", "error", ""), Check("Keras", "ok", "")], "can neither train nor predict"),
}


@pytest.mark.parametrize("case", SUMMARIES)
def test_summary(case):
    checks, text = SUMMARIES[case]
    assert text in doctor.summarize(checks)
    assert doctor.can_train(checks) == (case == "no error")


def modification_times(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_command_without_a_network(cli, tmp_path, monkeypatch, fashion):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("doctor", "--json")
    assert code == 0, out
    document = json.loads(out)
    assert document["can_train"] is True
    checks = {check["name"]: check for check in document["checks"]}
    assert list(checks) == [
        "Python", "packages", "extras", "TensorFlow", "Keras", "processor", "memory", "disk", "data set",
        "Keras' cache", "Debian's folder", "Keras' download", "Debian's package", "browser",
    ]  # fmt: skip
    assert {check["status"] for check in checks.values()} <= {"ok", "warning"}
    assert checks["Keras"]["found"] == "starts: tensorflow backend"
    assert checks["packages"]["status"] == checks["extras"]["status"] == "ok"
    assert checks["data set"]["status"] == "ok"
    assert checks["Keras' download"]["found"].startswith("not needed: the proxy cannot be reached")
    assert all(set(check) == {"name", "status", "found", "hint"} for check in checks.values())
    assert "This machine can train." in err
    assert modification_times(tmp_path) == {}


def test_error_exits_with_1_after_all_checks_are_printed(cli, monkeypatch):
    checks = [doctor.check_memory(GB // 2), doctor.check_keras(None)]
    monkeypatch.setattr(doctor, "check_machine", lambda: checks)
    code, out, err = cli("doctor")
    assert code == 1
    for text in (
        "0.5 GB available",
        "close other programs",
        "fmnist[train,tensorflow-cpu]",
        "can predict but not train",
    ):
        assert text in out
    assert err == ""
    assert json.loads(cli("doctor", "--json")[1])["can_train"] is False


def test_doctor_needs_the_base_only():
    """The optional packages, whose import may also crash, are made unavailable."""
    script = (
        "import sys\n"
        "optional = 'keras tensorflow jax matplotlib sklearn scipy requests psutil safetensors onnx jinja2 fastapi'\n"
        "sys.modules.update(dict.fromkeys(optional.split()))\n"
        "from fmnist import doctor\n"
        "doctor.HOSTS.clear()\n"
        "doctor.start_keras = lambda: (0, 'stub')\n"
        "print(len(doctor.check_machine()), 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "12 False\n", done.stderr


def test_keras_that_cannot_start_is_described_by_its_last_line(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "nonsense")
    code, last_line = doctor.start_keras()
    assert code == 1
    assert "nonsense" in last_line


@pytest.mark.slow
def test_the_backend_in_keras_own_settings_does_not_count_as_in_training(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    assert doctor.start_keras() == (0, "tensorflow backend")


def test_silent_hosts_are_given_up(monkeypatch):
    """One host accepts the connection and sends nothing. The name of another one is never resolved."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(doctor, "TIMEOUT", 0.2)
        monkeypatch.setattr(download, "KERAS_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        hosts = {
            "silent": doctor.HOSTS["Keras' download"],
            "unresolved": lambda: time.sleep(60),
            "failing": lambda: 1 / 0,
        }
        monkeypatch.setattr(doctor, "HOSTS", hosts)
        started = time.monotonic()
        problems = doctor.request_hosts()
    assert time.monotonic() - started < 30
    assert problems["silent"] == "no answer in time"
    assert problems["unresolved"] == "no answer within 0.2 s"
    assert problems["failing"] == "ZeroDivisionError: division by zero"


PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
NETWORKS = {
    "no such certificates": {"REQUESTS_CA_BUNDLE": "/no/such.pem"},
    "empty certificates": {"CURL_CA_BUNDLE": os.devnull},
    "certificates of Python alone": {"SSL_CERT_FILE": "/no/such.pem", "HTTPS_PROXY": "http://127.0.0.1:9"},
    "SOCKS": {"ALL_PROXY": "socks5h://127.0.0.1:9"},
    "a proxy for everything": {"all_proxy": "http://127.0.0.1:9"},
    "no network": {"https_proxy": "http://127.0.0.1:9"},
}


@pytest.mark.parametrize("case", NETWORKS)
def test_doctor_and_download_say_the_same_of_a_network(monkeypatch, tmp_path, case):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in NETWORKS[case].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(download, "KERAS_URL", "https://127.0.0.1:9")
    said = doctor._problem(doctor.HOSTS["Keras' download"])
    assert said == doctor._problem(lambda: download.SOURCES["Keras' download"](lambda: tmp_path))
    assert "\n" not in said


def test_debian_package_without_package_lists_or_apt(monkeypatch, tmp_path):
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fmnist.FmnistError, match="not in the package lists; they would be downloaded first"):
        doctor._debian_url()
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(fmnist.FmnistError, match="no apt-get on this machine"):
        doctor._debian_url()


# MemAvailable in kB and the limit of the container in bytes, of which 2 GB are used; bytes available
MEMORY = {
    "limit of a container": (5 * 10**6, "3000000000\n", 10**9),
    "exceeded limit": (5 * 10**6, "1\n", 0),
    "limit above the machine's memory": (10**6, "9000000000\n", 1_024_000_000),
    "no limit": (5 * 10**6, "max\n", 5_120_000_000),
    "no container": (5 * 10**6, None, 5_120_000_000),
    "another system": (None, None, None),
}


@pytest.mark.parametrize("case", MEMORY)
def test_available_memory(monkeypatch, tmp_path, case):
    kilobytes, limit, expected = MEMORY[case]
    meminfo, maximum, current, none = (tmp_path / name for name in ("meminfo", "memory.max", "memory.current", "none"))
    monkeypatch.setattr(environment, "MEMINFO", meminfo)
    monkeypatch.setattr(environment, "CGROUPS", ((maximum, current), (none, none)))
    if kilobytes:
        meminfo.write_text(f"MemTotal:       {2 * kilobytes} kB\nMemAvailable:   {kilobytes} kB\nCached:  1 kB\n")
    current.write_text("2000000000\n")
    if limit:
        maximum.write_text(limit)
    assert environment.available_memory() == expected


@pytest.mark.parametrize("exists", [True, False])
def test_check_of_the_browser(monkeypatch, exists):
    def get():
        if not exists:
            raise doctor.webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(doctor.webbrowser, "get", get)
    assert doctor.check_browser().status == ("ok" if exists else "warning")
