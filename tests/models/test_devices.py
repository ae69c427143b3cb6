"""The device that Keras computes on, and what follows from it."""

from types import SimpleNamespace

import keras
import pytest

from fmnist.errors import FmnistError
from fmnist.models import devices
from fmnist.runs import environment


@pytest.mark.parametrize(
    ("precision", "is_native", "expected"),
    [
        ("auto", True, "bfloat16"),
        ("auto", False, "float32"),
        ("float32", True, "float32"),
        ("bfloat16", False, "bfloat16"),
    ],
)
def test_auto_precision_is_bfloat16_where_the_cpu_has_it(precision, is_native, expected, monkeypatch):
    monkeypatch.setattr(environment, "has_native_bfloat16", lambda: is_native)
    assert devices.choose_precision(precision) == expected


@pytest.mark.parametrize(
    ("device", "precision", "name"), [("gpu", "bfloat16", "NVIDIA H100"), ("cpu", "float32", "AMD EPYC")]
)
def test_jax_computes_on_its_own_device(device, precision, name, monkeypatch):
    monkeypatch.setattr(environment, "has_native_bfloat16", lambda: False)
    monkeypatch.setattr(environment, "cpu_name", lambda: "AMD EPYC")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr("jax.default_backend", lambda: device)
    monkeypatch.setattr("jax.devices", lambda: [SimpleNamespace(device_kind="NVIDIA H100")])
    assert devices.choose_precision("auto") == precision
    assert devices.device_name() == name


def test_bfloat16_is_refused_under_jax_on_a_cpu(monkeypatch):
    """XLA from JAX 0.11 on computes some convolutions in bfloat16 wrongly there."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    monkeypatch.setattr(environment, "has_native_bfloat16", lambda: True)
    assert devices.choose_precision("auto") == "float32"
    with pytest.raises(FmnistError, match="precision is bfloat16, which JAX computes wrongly on a CPU"):
        devices.choose_precision("bfloat16")


CACHE = "jax_compilation_cache_dir"


@pytest.fixture
def jax_settings(monkeypatch):
    """The settings of JAX that are made, and the user's own, as far as they matter here."""
    jax = pytest.importorskip("jax")
    settings = {}
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.delenv(devices.PROGRAM_CACHE, raising=False)
    return settings


@pytest.mark.parametrize(
    ("on_gpu", "named", "expected"),
    [
        (True, None, "CACHE/fmnist/jax"),
        (False, None, None),
        (True, "off", None),
        (True, "/programs", "/programs"),
        (False, "/programs", "/programs"),
    ],
)
def test_programs_are_cached_on_a_gpu_or_where_the_user_wants(
    on_gpu, named, expected, jax_settings, monkeypatch, tmp_path
):
    monkeypatch.setattr(devices, "is_on_gpu", lambda: on_gpu)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if named:
        monkeypatch.setenv(devices.PROGRAM_CACHE, named)
    devices.cache_programs()
    assert jax_settings.get(CACHE) == (expected and expected.replace("CACHE", str(tmp_path)))
    assert jax_settings.get("jax_compilation_cache_max_size") == (expected and devices.MAX_CACHE_BYTES)


def test_a_cache_that_the_user_has_set_stays(jax_settings, monkeypatch):
    monkeypatch.setattr(devices, "is_on_gpu", lambda: True)
    monkeypatch.setattr("jax.config", SimpleNamespace(jax_compilation_cache_dir="/mine", update=None))
    devices.cache_programs()
    assert jax_settings == {}
