"""Classes of fmnist are registered with Keras, whichever is imported first and whoever looks for Keras before."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import fmnist
from fmnist.models.registration import CLASSES
from fmnist.training import train as training

CHECK = "; print(sorted(name for name in keras.saving.get_custom_objects() if name.startswith('fmnist>')))"
IMPORTS = {
    "fmnist first": "import fmnist, keras",
    "Keras first": "import keras, fmnist",
    "a module with a layer first": "import fmnist.models.layers, keras",
    "another library looks for Keras": "import fmnist, importlib.util; importlib.util.find_spec('keras'); import keras",
    "a first import fails": (
        "import fmnist, os, sys; os.environ['KERAS_BACKEND'] = 'none'\n"
        "try: import keras\nexcept Exception: pass\n"
        "[sys.modules.pop(name) for name in [*sys.modules] if name.startswith('keras')]\n"
        "os.environ['KERAS_BACKEND'] = 'tensorflow'; import keras"
    ),
}


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", IMPORTS)
def test_classes_are_registered(case):
    done = run(IMPORTS[case] + CHECK)
    assert done.stdout == f"{[f'fmnist>{name}' for name in sorted(CLASSES)]}\n", done.stderr[-1000:]


def test_without_keras_nothing_is_imported():
    code = "import sys, fmnist; from importlib.util import find_spec; find_spec('keras'); print('keras' in sys.modules)"
    done = run(code)
    assert done.stdout == "False\n"


def test_every_class_of_the_package_is_in_the_table():
    texts = {path: path.read_text() for path in Path(fmnist.__file__).parent.rglob("*.py")}
    found = {
        name: ".".join(path.relative_to(Path(fmnist.__file__).parents[1]).with_suffix("").parts)
        for path, text in texts.items()
        for name in re.findall(r"@keras\.saving\.register_keras_serializable\(\"fmnist\"\)\nclass (\w+)", text)
    }
    assert found == CLASSES


@pytest.mark.parametrize("preset", ["fast", pytest.param("textbook", marks=pytest.mark.slow)])
def test_a_network_saved_during_training_is_loaded_in_a_new_process(preset, small, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "export", lambda *_: None)
    path = tmp_path / "z.keras"
    config = fmnist.Config.from_preset(preset, epochs=2, batch_size=200)
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    fmnist.train(config, [checkpoint], dataset=small, folder=tmp_path / "run")
    images = np.zeros((2, 28, 28, 1), np.float32)
    np.save(tmp_path / "expected.npy", checkpoint.model.predict(images, verbose=0))
    code = (
        "import fmnist, keras, numpy as np, sys; network = keras.models.load_model(sys.argv[1] + '/z.keras')\n"
        "expected = np.load(sys.argv[1] + '/expected.npy')\n"
        "images = np.zeros((2, 28, 28, 1), np.float32)\n"
        "print(np.abs(network.predict(images, verbose=0) - expected).max() < 1e-5)\n"
        "print(sorted(network.evaluate(images, expected, verbose=0, return_dict=True)))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert lines == ["True", "['accuracy', 'cross_entropy', 'loss', 'precision', 'recall']"], done.stderr[-1000:]
