"""Epochs as compiled programs: the tests of `on_jax.py`, in another process because a process has one backend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fmnist
from fmnist.errors import FmnistError


@pytest.mark.slow
def test_on_jax():
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    # Keras 3.15 and NumPy 2 disagree about `__array__` on JAX.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::DeprecationWarning"]
    command += [str(Path(__file__).with_name("on_jax.py"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_several_devices_need_jax(small, tmp_path):
    with pytest.raises(FmnistError, match="devices is 2; expected 1: several need KERAS_BACKEND=jax"):
        fmnist.train("fast", dataset=small, folder=tmp_path / "run", devices=2)
    assert not (tmp_path / "run").exists()
