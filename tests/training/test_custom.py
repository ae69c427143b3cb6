"""Training of a user's own network, with own optimizer, loss and augmentation."""

import json
import random

import keras
import numpy as np
import pytest

import fmnist
from fmnist.errors import FmnistError
from fmnist.export.onnx import export_run
from fmnist.imports import import_function
from fmnist.models.custom import CustomParts
from fmnist.models.user_functions import apply_augment
from fmnist.training import augment
from fmnist.training.epochs import reseed_dropout

layers = keras.layers


def sequential(num_classes):
    """A network with random layers and without names."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.RandomTranslation(0.05, 0.05),
            layers.Conv2D(4, 3, strides=4, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )


def functional(num_classes):
    """A residual network with batch normalization."""
    images = keras.Input((28, 28, 1))
    first = layers.Conv2D(4, 3, strides=4, padding="same")(images)
    values = layers.BatchNormalization()(first)
    values = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(values))
    values = layers.GlobalAveragePooling2D()(layers.Add()([first, values]))
    return keras.Model(images, layers.Softmax(dtype="float32")(layers.Dense(num_classes)(values)))


class Subclassed(keras.Model):
    """A network whose last layer is no dense layer."""

    def __init__(self, num_classes):
        super().__init__()
        self.convolution = layers.Conv2D(num_classes, 5, strides=5)
        self.dropout = layers.Dropout(0.1)
        self.pool = layers.GlobalAveragePooling2D()

    def call(self, images, training=False):
        """Return probabilities."""
        return keras.ops.softmax(self.pool(self.dropout(self.convolution(images), training=training)))


class Unconvertible(keras.layers.Layer):
    """A layer with an operation that ONNX lacks."""

    def call(self, values):
        """Return the argument, by a detour."""
        return values + 0 * keras.ops.real(keras.ops.ifft2((values, values))[0])


def with_unconvertible(num_classes):
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(num_classes),
            Unconvertible(name="detour"),
            layers.Softmax(),
        ]
    )


def invert_some(images, labels, rng):
    """Negate a tenth of the images, and smooth the labels."""
    is_negated = rng.random(len(images)) < 0.1
    images[is_negated] = 255 - images[is_negated]
    return images, 0.9 * labels + 0.1 / labels.shape[1]


@pytest.fixture
def config(small_folder):
    return fmnist.Config.from_preset("fast", epochs=2, batch_size=64, data=str(small_folder))


class StopAfter(keras.callbacks.Callback):
    """Interrupt after an epoch, as Ctrl-C does."""

    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def flattened(num_classes):
    """A network whose last layer sees more values than a covariance can be estimated of."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 1),
            layers.Flatten(),
            layers.Dense(num_classes, activation="softmax"),
        ]
    )


@pytest.mark.parametrize(
    ("network", "num_features"),
    [(functional, 4), (Subclassed, 10), (flattened, 10)],
    ids=["functional", "subclassed", "flattened"],
)
def test_own_parts_from_training_to_prediction(config, small, tmp_path, network, num_features):
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.05, 40), momentum=0.9)
    parts = {"network": network, "optimizer": optimizer, "loss": "categorical_focal_crossentropy"}
    run = fmnist.train(config, dataset=small, folder=tmp_path / "run", augment=invert_some, **parts)
    assert not optimizer.built
    assert run.config.network == run.config.optimizer == run.config.schedule == "custom"
    assert run.config.learning_rate == pytest.approx(0.05)
    assert [each.part for each in run.custom] == ["network", "optimizer", "loss", "augment"]
    assert fmnist.open_run(run.folder) == run
    assert run.history()[-1]["learning_rate"] < 0.05

    classifier = fmnist.Classifier.load(run)  # without the function
    outputs = classifier.outputs(small.test_images)
    assert outputs["features"].shape == (200, num_features)
    loaded = fmnist.load_model(run, network)
    expected = loaded.predict(small.test_images[..., np.newaxis] / np.float32(255), verbose=0)
    temperature = run.manifest().temperature
    assert outputs["probabilities_single_view"] == pytest.approx(softmax(np.log(expected) / temperature), abs=1e-4)
    assert fmnist.evaluate(run, dataset=small)["num_images"] == 200


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("network", [sequential, Subclassed])
def test_resumes_to_the_bit(config, small, tmp_path, no_export, network):
    def parts():
        return {"network": network, "optimizer": keras.optimizers.Nadam(0.01), "augment": invert_some}

    whole = fmnist.train(config, dataset=small, folder=tmp_path / "whole", **parts())
    random.random()  # the global generators are elsewhere now
    with pytest.raises(KeyboardInterrupt):
        fmnist.train(config, [StopAfter()], dataset=small, folder=tmp_path / "cut", **parts())
    cut = fmnist.resume(tmp_path / "cut", dataset=small, **parts())
    assert cut.weights_path.read_bytes() == whole.weights_path.read_bytes()


def test_resume_needs_the_same_parts(config, small, tmp_path, no_export, caplog):
    with pytest.raises(KeyboardInterrupt):
        fmnist.train(config, [StopAfter()], dataset=small, folder=tmp_path / "cut", network=sequential)
    with pytest.raises(FmnistError, match=r"network .* is a user's own \(.*:sequential\).*pass it again"):
        fmnist.resume(tmp_path / "cut", dataset=small)
    with pytest.raises(FmnistError, match="was started without optimizer=; omit it"):
        fmnist.resume(tmp_path / "cut", dataset=small, network=sequential, optimizer=keras.optimizers.Adam())
    with pytest.raises(FmnistError, match="user's own"):
        fmnist.load_model(tmp_path / "cut")
    with pytest.raises(FmnistError, match="does not fit the network"):
        fmnist.resume(tmp_path / "cut", dataset=small, network=Subclassed)
    # both networks are in this file, which is the same
    assert "is not the one that it was started with" not in caplog.text


def test_network_by_name(config, small, tmp_path, monkeypatch, cli, small_folder):
    """The code is imported when the user names it, and never because a run folder names it."""
    file = tmp_path / "mine.py"
    file.write_text(
        "import keras\n"
        "def network(num_classes):\n"
        "    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(),\n"
        '                             keras.layers.Dense(num_classes, activation="softmax")])\n'
    )
    monkeypatch.chdir(tmp_path)
    options = ["--set", "epochs=1", "--batch-size", 64, "--optimizer", "sgd", "--lr", 0.1]
    code, out, err = cli(
        "train", "--network", "mine.py:network", "--data", small_folder, "--run", "run", *options, "--json"
    )
    assert code == 0, err
    assert json.loads(out)["parameters"] == 7_850
    run = fmnist.open_run("run")
    assert [(each.part, each.name) for each in run.custom] == [("network", "mine.py:network")]
    assert (run.config.optimizer, run.config.learning_rate, run.config.batch_size) == ("sgd", 0.1, 64)

    file.write_text("raise SystemExit('was imported')")
    assert cli("evaluate", "run", "--data", small_folder)[0] == 0
    assert cli("predict", "--model", "run", tmp_path / "missing.png")[0] == 1
    code, _, err = cli("export", "run", "--data", small_folder)
    assert code == 1
    assert "pass it again" in err
    assert "was imported" not in err
    code, _, err = cli("export", "run", "--data", small_folder, "--network", "mine.py:network")
    assert code == 1
    assert "was imported" in err


SOURCE = """
import keras

WIDTH = 4

def layer():
    return keras.layers.Dense(WIDTH)

def network(num_classes):
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), layer()])

def loss(labels, predictions):
    return keras.losses.mean_squared_error(labels, predictions)
"""


def test_a_change_anywhere_in_the_file_is_a_warning(tmp_path, caplog, monkeypatch):
    """The function itself can be unchanged, and what it calls not. By name or as a function, it is the same file."""
    file = tmp_path / "source_of_a_user.py"
    file.write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    by_name = CustomParts.check("source_of_a_user.py:network")
    function, _ = import_function("source_of_a_user.py:network")
    loss, _ = import_function("source_of_a_user.py:loss")
    as_function = CustomParts.check(function, loss=loss)
    as_function.compare(by_name.record, tmp_path)
    by_name.compare(as_function.record, tmp_path)
    assert not caplog.text
    file.write_text(SOURCE.replace("WIDTH = 4", "WIDTH = 5"))
    changed = CustomParts.check(function, loss=loss)
    changed.compare(as_function.record, tmp_path, needed=("network", "loss"))
    assert caplog.text.count("is not the one that it was started with") == 2


def test_errors_of_own_functions_name_the_line(tmp_path, monkeypatch, cli, small_folder):
    (tmp_path / "wrong.py").write_text("def network(num_classes):\n    return kears.Sequential()\n")
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("train", "--network", "wrong.py:network", "--data", small_folder, "--run", "run")
    assert code == 1
    assert "network(10) fails: NameError: name 'kears' is not defined" in err
    assert "wrong.py, line 2)" in err
    assert "bug in fmnist" not in err


def divide(images, labels, rng):
    return images // np.arange(2)


def test_errors_of_an_augmentation_name_the_line():
    with pytest.raises(FmnistError, match=r"augment\(images, labels, rng\) fails: ValueError.*test_custom.py, line"):
        apply_augment(divide, IMAGES, LABELS, np.random.default_rng(0))


NETWORKS = {
    "logits": (lambda n: keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(n)]), "softmax"),
    "wrong number": (lambda n: sequential(n + 1), r"returns shape \(2, 11\).*expected \(2, 10\)"),
    "flat input": (
        lambda n: keras.Sequential([keras.Input((784,)), layers.Dense(n, activation="softmax")]),
        r"cannot be called with images of shape \(n, 28, 28, 1\): .*incompatible",
    ),
    "no model": (lambda n: [layers.Dense(n)], "returned a value of type list; expected a keras.Model"),
    "a preset's name": (
        lambda n: keras.Sequential([keras.Input((28, 28, 1)), *sequential(n).layers], name="fast"),
        "name 'fast', which is a preset's",
    ),
    "no ONNX": (with_unconvertible, "cannot be exported to ONNX.*layer detour \\(Unconvertible\\)"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_cannot_work_are_refused_before_training(config, small, tmp_path, name):
    network, message = NETWORKS[name]
    with pytest.raises(FmnistError, match=message):
        fmnist.train(config, dataset=small, folder=tmp_path / "run", network=network)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"network": functional(10)}, "network is a Keras model; expected a function"),
        ({"network": 3}, "network is a value of type int; expected a function"),
        ({"network": "no_module_of_this_name:network"}, "no module no_module_of_this_name"),
        ({"optimizer": keras.optimizers.SGD}, r"call it, as keras.optimizers.SGD\(0.1\)"),
        ({"optimizer": "sgd"}, r"By name it is a setting: Config.from_preset\(..., optimizer='sgd'\)"),
        ({"loss": "no_loss"}, "loss is no_loss; expected a Keras loss"),
        ({"loss": 3}, "loss is a value of type int"),
        ({"loss": keras.losses.SparseCategoricalCrossentropy()}, "labels are one-hot"),
        ({"loss": "sparse_categorical_crossentropy"}, "labels are one-hot"),
        ({"augment": np.zeros(3)}, "augment is a value of type ndarray; expected a function"),
    ],
)
def test_parts_of_other_types_are_refused(parts, message):
    with pytest.raises(FmnistError, match=message):
        CustomParts.check(**parts)


IMAGES, LABELS = np.zeros((3, 28, 28), np.uint8), np.eye(10, dtype=np.float32)[:3]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (IMAGES / 255, "dtype float64; expected uint8"),
        (IMAGES[:2], r"of shape \(2, 28, 28\); expected an array of shape \(3, 28, 28\)"),
        ((IMAGES, [0, 1, 2]), "labels of a value of type list"),
        (None, "images of None"),
    ],
)
def test_augmentation_of_other_results_is_refused(returned, message):
    with pytest.raises(FmnistError, match=message):
        apply_augment(lambda images, labels, rng: returned, IMAGES, LABELS, np.random.default_rng(0))


def test_augmentation_gets_copies_and_may_return_images_alone():
    def darken(images, labels, rng):
        images[:] = 7
        labels[:] = 0
        return images

    images, labels = apply_augment(darken, IMAGES, LABELS, np.random.default_rng(0))
    assert (images == 7).all()
    assert not IMAGES.any()
    assert (labels == LABELS).all()


def test_every_random_layer_is_reseeded():
    """Also those inside of other layers, and several in one."""
    inner = keras.Sequential([layers.Dropout(0.5), layers.RandomFlip()])
    network = keras.Sequential([keras.Input((28, 28, 1)), inner, layers.GaussianNoise(0.1)])

    def states():
        return [state.numpy().tolist() for state in network.variables if "seed_generator" in state.path]

    reseed_dropout(network, seed=0, epoch=3)
    before = states()
    network(np.zeros((2, 28, 28, 1), np.float32), training=True)
    assert states() != before
    reseed_dropout(network, seed=0, epoch=3)
    assert states() == before
    assert len({tuple(state) for state in before}) == len(before) == 3


def test_dropout_of_a_single_generator_keeps_its_seed():
    """Otherwise a run would resume to other weights than with earlier versions."""
    expected = np.random.default_rng([augment.STREAMS.index("dropout"), 1, 2, 6]).integers(0, 2**32, 2, np.uint32)
    assert (augment.dropout_seed(1, 2, 6) == expected).all()


def test_export_needs_the_network(config, small, tmp_path):
    run = fmnist.train(config, dataset=small, folder=tmp_path / "run", network=sequential)
    before = fmnist.Classifier.load(run).predict(small.test_images)
    with pytest.raises(FmnistError, match="pass it again"):
        export_run(run, small)
    export_run(run, small, sequential)
    assert (fmnist.Classifier.load(run).predict(small.test_images) == before).all()
