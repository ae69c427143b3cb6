"""The examples run, in a short form: one epoch, or few images."""

import json
import os
import re
import runpy
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import fmnist

FOLDER = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.fixture
def run_example(monkeypatch, tmp_path, capsys, small_folder):
    """Run an example in this process and a new folder, on the small data set. Returns what it prints."""

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FMNIST_DATA", str(small_folder))
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(FOLDER / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_examples_are_short_and_say_how_to_run_them():
    assert len(SCRIPTS) == 6
    for path in SCRIPTS:
        text = path.read_text()
        assert len(text.splitlines()) < 40, path
        assert f"python examples/{path.name}" in text.splitlines()[0], path


@pytest.mark.parametrize("name", ["own_network.py", "own_augmentation.py", "own_data.py"])
def test_examples_that_train(name, run_example, tmp_path):
    assert re.search(r"test accuracy \d+\.\d\d%", run_example(name, 1))
    (folder,) = (tmp_path / "runs").iterdir()
    assert fmnist.open_run(folder).status == "finished"
    assert (folder / "report.html").exists()


@pytest.mark.slow
def test_network_of_the_example_on_the_command_line(small_folder, tmp_path, cli):
    reference = f"{FOLDER / 'own_network.py'}:network"
    options = ["--optimizer", "sgd", "--lr", 0.1, "--set", "schedule=cosine", "--epochs", 1]
    code, _, err = cli("train", "--network", reference, *options, "--data", small_folder, "--run", tmp_path / "run")
    assert code == 0, err
    assert fmnist.open_run(tmp_path / "run").config.schedule == "cosine"


@pytest.mark.slow
def test_the_page_about_own_parts(tmp_path, small_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMNIST_DATA", str(small_folder))
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (FOLDER.parent / "docs" / "own.md").read_text(), re.DOTALL | re.MULTILINE
    )
    exec(compile(blocks[0].replace("epochs=5", "epochs=1"), "own.md", "exec"), {"__name__": "own"})
    assert 0 < float(capsys.readouterr().out) < 1


def test_score_scikit_learn(run_example):
    output = run_example("score_scikit_learn.py", 300)
    assert "95 % interval" in output
    assert "Ankle boot" in output


def test_read_run(run_example, copied_run):
    fmnist.evaluate(copied_run)
    output = run_example("read_run.py", copied_run.folder)
    assert "val_accuracy" in output
    assert "of 200 test images are wrong" in output


def test_serve_onnx(small_run, small, classifier, tmp_path):
    """It answers as `Classifier`, without fmnist."""
    script = FOLDER / "serve_onnx.py"
    assert set(re.findall(r"^(?:import|from) (\w+)", script.read_text(), re.MULTILINE)) == {
        "http", "json", "numpy", "onnxruntime", "sys",
    }  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    command = [sys.executable, str(script), str(small_run.onnx_path), "0"]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            url = server.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            images = small.test_images[:3]
            with opener.open(url, data=images.tobytes(), timeout=30) as response:
                answers = json.load(response)
            expected = classifier.predict(images)
            assert [answer["label"] for answer in answers] == [
                classifier.class_names[index] for index in expected.argmax(axis=1)
            ]
            assert [answer["probability"] for answer in answers] == pytest.approx(np.max(expected, axis=1), abs=1e-5)
            with pytest.raises(urllib.error.HTTPError, match="785 bytes; expected 784 for each image") as refused:
                opener.open(url, data=bytes(785), timeout=30)
            refused.value.close()
        finally:
            server.terminate()
