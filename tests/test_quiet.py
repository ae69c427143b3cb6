"""Importing Keras through fmnist: without messages, and with a hint where its backend is missing."""

import os
import re
import subprocess
import sys

import pytest


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


@pytest.mark.slow
def test_training_is_imported_without_messages_and_stderr_works_afterwards():
    """TensorFlow writes to the file descriptor, not to `sys.stderr`."""
    done = run("import fmnist, os; fmnist.train; os.write(2, b'after')")
    assert (done.returncode, done.stderr) == (0, "after")


def test_a_program_without_stderr_is_no_problem():
    code = "import os, sys; os.close(2); sys.stderr = None\nfrom fmnist.quiet import quiet_stderr\n"
    done = run(code + "with quiet_stderr(): print('inside')")
    assert (done.returncode, done.stdout) == (0, "inside\n")


SETTINGS = {
    "a type that is none": ('{"floatx": "bfloat16"}', "Invalid `floatx` configuration.*Received: floatx=bfloat16"),
    "a number": ('{"floatx": 3}', "Received: floatx=3"),
    "no object": ("[1]", "'list' object has no attribute 'get'"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_keep_keras_from_starting_are_named(case, tmp_path):
    content, expected = SETTINGS[case]
    (tmp_path / "keras.json").write_text(content)
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "FMNIST_DATA": "none"}
    done = run("import fmnist; fmnist.train", env=environment)
    assert re.search(rf"FmnistError: Keras does not start \(.*{expected}.*keras\.json", done.stderr.splitlines()[-1])


def test_a_backend_without_training_is_refused_in_python():
    done = run("import fmnist; fmnist.train('fast')", env={**os.environ, "KERAS_BACKEND": "numpy"})
    assert "FmnistError: KERAS_BACKEND or keras.json names the backend 'numpy'" in done.stderr.splitlines()[-1]


def test_a_missing_backend_is_named_with_what_to_do():
    done = run("import fmnist; fmnist.train", env={**os.environ, "KERAS_BACKEND": "torch"})
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: fmnist.train needs the package torch; Keras is told to use it by KERAS_BACKEND"
    )
