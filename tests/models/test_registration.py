"""Classes of fmnist are registered with Keras, whichever is imported first and whoever looks for Keras before."""

import subprocess
import sys

import pytest

CHECK = "; print(sorted(name for name in keras.saving.get_custom_objects() if name.startswith('fmnist>')))"
IMPORTS = {
    "fmnist first": "import fmnist, keras",
    "Keras first": "import keras, fmnist",
    "another library looks for Keras": "import fmnist, importlib.util; importlib.util.find_spec('keras'); import keras",
    "a first import fails": (
        "import fmnist, os, sys; os.environ['KERAS_BACKEND'] = 'none'\n"
        "try: import keras\nexcept Exception: pass\n"
        "[sys.modules.pop(name) for name in [*sys.modules] if name.startswith('keras')]\n"
        "os.environ['KERAS_BACKEND'] = 'tensorflow'; import keras"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", IMPORTS)
def test_classes_are_registered(case):
    done = subprocess.run([sys.executable, "-c", IMPORTS[case] + CHECK], capture_output=True, text=True, check=False)
    assert done.stdout == "['fmnist>Dirac', 'fmnist>FusedBatchNormalization', 'fmnist>Muon']\n", done.stderr[-1000:]


def test_without_keras_nothing_is_imported():
    code = "import sys, fmnist; from importlib.util import find_spec; find_spec('keras'); print('keras' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
