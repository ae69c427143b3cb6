"""The evaluation of a run on the test images, and its report."""

import csv
import dataclasses
import errno
import html
import html.parser
import json
import logging
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

import fmnist
from fmnist import errors
from fmnist.config import Config
from fmnist.errors import FmnistError
from fmnist.evaluation.evaluate import find_mistakes
from fmnist.evaluation.occlusion import occlusion_maps
from fmnist.evaluation.report import most_frequent_confusions, render_report, train_command
from fmnist.runs.run import Run, open_run
from fmnist.runs.schemas import CustomPart


@pytest.fixture(scope="module")
def evaluated(small_run, tmp_path_factory):
    """A copy of `small_run` that has been evaluated with seed 4, and the evaluation."""
    run = open_run(shutil.copytree(small_run.folder, tmp_path_factory.mktemp("evaluated") / "run"))
    return run, fmnist.evaluate(run, seed=4)


@pytest.fixture
def use_dataset(monkeypatch):
    """Make `Run.load_data` find another data set in the data folder."""
    return lambda dataset: monkeypatch.setattr("fmnist.runs.data.load_from", lambda folder: dataset)


def render(run, evaluation, dataset, history=None):
    """Render a report with the mistakes of the evaluation, and heat maps of nothing."""
    history = run.history() if history is None else history
    mistakes = evaluation["mistakes"]
    by_class = {
        index: records
        for index, name in enumerate(evaluation["class_names"])
        if (records := [record for record in mistakes if record["true"] == name])
    }
    heat_maps = np.zeros((len(mistakes), 28, 28))
    page = render_report(run, run.manifest(), run.environment(), history, evaluation, by_class, heat_maps, dataset)
    return page.replace("\N{NO-BREAK SPACE}", " ")


def test_every_test_image_is_evaluated(evaluated, small):
    run, evaluation = evaluated
    probabilities = fmnist.Classifier.load(run).predict(small.test_images)
    assert evaluation["num_images"] == np.sum(evaluation["confusion"]) == 200
    assert evaluation["accuracy"] == (probabilities.argmax(axis=1) == small.test_labels).mean()


def test_evaluation_is_written(evaluated):
    run, evaluation = evaluated
    written = json.loads((run.folder / "evaluation.json").read_text())
    fmnist.evaluate(run, seed=4)
    assert json.loads((run.folder / "evaluation.json").read_text()) == written == evaluation


def test_predictions_are_a_table_of_all_test_images(evaluated, small):
    run, evaluation = evaluated
    with (run.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["index", "true", "predicted", *small.class_names]
    assert [int(row[0]) for row in rows] == list(range(200))
    assert [row[1] for row in rows] == [small.class_names[label] for label in small.test_labels]
    assert sum(row[1] == row[2] for row in rows) / 200 == evaluation["accuracy"]
    expected = fmnist.Classifier.load(run).predict(small.test_images)
    np.testing.assert_allclose(np.array([row[3:] for row in rows], float), expected, rtol=1e-5)


def test_a_run_that_cannot_be_written_is_scored(evaluated, monkeypatch, caplog):
    run, evaluation = evaluated

    def fail(path, content):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("fmnist.evaluation.evaluate.write_json", fail)
    with caplog.at_level(logging.WARNING, "fmnist"):
        assert fmnist.evaluate(run, seed=4)["accuracy"] == evaluation["accuracy"]
    assert "the evaluation is not saved: " in caplog.text
    assert "permission denied" in caplog.text


def test_evaluation_has_the_documented_keys(evaluated):
    assert set(evaluated[1]) == {
        "run", "num_images", "accuracy", "accuracy_single_view", "precision_macro", "recall_macro", "f1_macro",
        "keras_precision", "keras_recall", "per_class", "confusion", "calibration", "ece", "accuracy_interval_95",
        "samples", "samples_seed", "mistakes", "class_names",
    }  # fmt: skip


def test_samples_are_two_different_test_images(evaluated, small):
    samples = evaluated[1]["samples"]
    assert len({sample["index"] for sample in samples}) == 2
    for sample in samples:
        assert sample["true"] == small.class_names[small.test_labels[sample["index"]]]
        assert sample["predicted"] == small.class_names[np.argmax(sample["probabilities"])]
        assert sample["probability"] == max(sample["probabilities"])


def test_samples_without_a_seed_are_random_and_reproducible(evaluated):
    run, _ = evaluated
    evaluations = [fmnist.evaluate(run) for _ in range(3)]
    assert len({tuple(sample["index"] for sample in evaluation["samples"]) for evaluation in evaluations}) > 1
    first = evaluations[0]
    assert fmnist.evaluate(run, seed=first["samples_seed"])["samples"] == first["samples"]


def test_mistakes_are_wrong_and_sorted_by_probability():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([1, 1, 1, 0])
    assert find_mistakes(probabilities, labels).tolist() == [0, 3, 2]


def test_other_data_is_refused(evaluated, fashion, use_dataset):
    use_dataset(fashion)
    with pytest.raises(FmnistError, match=r"is not the data that .* was trained on"):
        fmnist.evaluate(evaluated[0])


def test_class_names_of_the_model_are_used(copied_run, small, use_dataset):
    use_dataset(dataclasses.replace(small, class_names=tuple(reversed(small.class_names))))
    evaluation = fmnist.evaluate(copied_run, seed=4)
    assert evaluation["class_names"] == list(small.class_names)
    for sample in evaluation["samples"]:
        assert sample["predicted"] == small.class_names[np.argmax(sample["probabilities"])]
        assert sample["true"] == small.class_names[small.test_labels[sample["index"]]]


class References(html.parser.HTMLParser):
    """Collects what a page links to, and the identifiers of its elements."""

    def __init__(self):
        super().__init__()
        self.found, self.ids = [], set()

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in {"src", "href", "xlink:href"}]
        self.ids |= {value for name, value in attributes if name == "id"}
        assert tag not in {"script", "link", "iframe", "object"}


def test_report_needs_no_other_file_and_is_small(evaluated):
    path = evaluated[0].folder / "report.html"
    page = References()
    page.feed(path.read_text())
    images = [reference for reference in page.found if not reference.startswith("#")]
    assert all(image.startswith("data:image/png;base64,") for image in images)
    assert len(images) > 4
    assert {reference.removeprefix("#") for reference in page.found if reference.startswith("#")} <= page.ids
    assert path.stat().st_size < 2_000_000


def test_report_links_each_class_to_its_mistakes(evaluated, small):
    run, evaluation = evaluated
    page = (run.folder / "report.html").read_text()
    confusion = np.array(evaluation["confusion"])
    for index, row in enumerate(confusion):
        num_mistakes = row.sum() - row[index]
        assert (f'href="#class-{index}"' in page) == (num_mistakes > 0)
        name = html.escape(small.class_names[index])
        heading = f'<h3 id="class-{index}">{name}: {num_mistakes} of {row.sum()} images wrong'
        assert (heading in page) == (num_mistakes > 0)


def test_heat_map_is_red_where_the_class_is_recognized(small_run, small):
    classifier = fmnist.Classifier.load(small_run)
    images, labels = small.test_images[:40], small.test_labels[:40]
    maps = occlusion_maps(classifier, images, labels)
    assert maps.shape == (40, 28, 28)
    covered = images.copy()
    covered[:, 9:15, 9:15] = 0
    before, after = (classifier.predict(pixels)[np.arange(40), labels] for pixels in (images, covered))
    # 9 to 15 is one of the patches: its fall is part of the mean of each of its pixels.
    assert np.corrcoef(before - after, maps[:, 11, 11])[0, 1] > 0.5
    assert occlusion_maps(classifier, images[:0], labels[:0]).shape == (0, 28, 28)


def test_heat_map_is_the_mean_fall_over_the_patches_that_cover_a_pixel():
    """With a model whose probability is the brightness, each whole patch of a white image takes 36 / 784 of it."""

    class Brightness:
        class_names = ("bright", "dark")

        def predict(self, images):
            bright = images.mean(axis=(1, 2)) / 255
            return np.stack([bright, 1 - bright], axis=1)

    white = np.full((2, 28, 28), 255, np.uint8)
    maps = occlusion_maps(Brightness(), white, np.array([0, 1]))
    np.testing.assert_allclose(maps[0, 3:24, 3:24], 36 / 784)
    np.testing.assert_allclose(maps[1], -maps[0])
    assert (maps[0] > 0).all()


def test_heat_map_of_an_image_is_zero_where_covering_changes_nothing(small_run):
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 20:] = 200
    maps = occlusion_maps(fmnist.Classifier.load(small_run), image, np.array([0]))
    assert not maps[0, :14].any()
    assert maps[0, 20:].any()


def test_report_is_complete(evaluated, small):
    run, evaluation = evaluated
    page = html.unescape(render(run, evaluation, small))
    manifest, environment = run.manifest(), run.environment()
    for text in (
        f"{100 * evaluation['accuracy']:.2f} % accuracy on 200 test images",
        f"{100 * evaluation['accuracy_single_view']:.2f} %",
        f"without averaging over {len(run.config.tta_views)} views",
        f"{100 * evaluation['keras_precision']:.2f} %",
        f"{manifest.parameters:,} parameters, 4 epochs",
        f"temperature {manifest.temperature:.3f}, fitted on the validation images of run ",
        "batch size 64, optimizer muon, initial learning rate 0.12, seed 0, " + environment.precision,
        f"Python {environment.python}, fmnist {fmnist.__version__}",
        manifest.sha256["model.onnx"],
        train_command(run.config, is_fashion_mnist=False),
        f"fmnist evaluate {run.folder} --seed 4",
    ):
        assert text in page
    for row in evaluation["per_class"]:
        values = "".join(f"<td>{100 * row[name]:.1f} %</td>" for name in ("precision", "recall", "f1"))
        assert f"<td>{row['label']}</td>{values}<td>20</td>" in page


def test_report_without_history_and_mistakes_has_neither_section(evaluated, small):
    run, evaluation = evaluated
    page = render(run, {**evaluation, "mistakes": []}, small, history=[])
    assert page.count("<img ") == 2
    assert not {"<h2>Training", "<h2>Mistakes by class"} & set(page.split(">\n"))
    assert page.count("<svg ") == 1


@pytest.mark.parametrize(
    ("changes", "text", "subject"),
    [
        ({"flip": True}, "on flipped images, with", "flipped"),
        ({"shift": 1}, "on shifted images, with", "shifted"),
        ({"flip": True, "shift": 1}, "on flipped and shifted images, with", "flipped"),
        ({"photo_augmentation": True}, "fragments that belong to no class", "fragment"),
        ({"cutmix": 0.5}, "into 50 % of the training images", "CutMix"),
        ({"hard_example_fraction": 0.5}, "trains on 50 % of the training images", "An epoch trains"),
    ],
)
def test_report_explains_the_training_curves(evaluated, small, changes, text, subject):
    run, evaluation = evaluated
    plain = replace(
        run.config,
        flip=False,
        shift=0,
        label_smoothing=0.0,
        photo_augmentation=False,
        cutmix=0.0,
        hard_example_fraction=1.0,
    )
    without, explained = (
        render(Run(run.folder, config, run.created), evaluation, small) for config in (plain, replace(plain, **changes))
    )
    assert subject not in without
    assert text in explained


def test_report_names_missing_epochs(evaluated, small):
    run, evaluation = evaluated
    interrupted = Run(run.folder, replace(run.config, epochs=9), run.created)
    assert "4 epochs of 9 (interrupted)" in render(interrupted, evaluation, small)


def test_class_names_are_escaped_in_the_report(evaluated, small):
    run, evaluation = evaluated
    name = "<img src=x onerror=alert(1)>"
    names = (name, *small.class_names[1:])
    per_class = [{**row, "label": label} for row, label in zip(evaluation["per_class"], names, strict=True)]
    changed = {**evaluation, "class_names": list(names), "per_class": per_class}
    page = render(run, changed, dataclasses.replace(small, class_names=names))
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


TRAIN_FAST = "fmnist train --preset fast --epochs 9 --seed 0"


@pytest.mark.parametrize(
    ("changes", "is_fashion_mnist", "expected"),
    [
        ({}, True, TRAIN_FAST),
        ({"epochs": 2, "seed": 7, "full": True}, True, "fmnist train --preset fast --epochs 2 --seed 7 --full"),
        ({"flip": False}, True, f"{TRAIN_FAST} --no-flip"),
        ({"flip": True}, True, TRAIN_FAST),
        ({"data": "/my data"}, False, f"{TRAIN_FAST} --data '/my data'"),
        ({"data": "/my data", "flip": True}, False, f"{TRAIN_FAST} --data '/my data' --flip"),
        ({"data": "/my data", "class_weights": True}, False, f"{TRAIN_FAST} --data '/my data' --class-weights"),
        (
            {"optimizer": "sgd", "learning_rate": 0.05, "shift": 2},
            True,
            f"{TRAIN_FAST} --set optimizer=sgd --set learning_rate=0.05 --set shift=2",
        ),
    ],
)
def test_train_command(changes, is_fashion_mnist, expected):
    config = Config.from_preset("fast", **changes).resolve(is_fashion_mnist)
    assert train_command(config, is_fashion_mnist) == expected


OWN_NETWORK = CustomPart(part="network", name="my nets.py:small", sha256=None)
OWN_OPTIMIZER = CustomPart(part="optimizer", name="keras:SGD", sha256=None)


def test_train_command_of_own_parts():
    config = replace(Config.from_preset("fast").resolve(True), network="custom", precision="float32")
    assert train_command(config, True, [OWN_NETWORK]) == f"{TRAIN_FAST} --network 'my nets.py:small'"
    code = train_command(replace(config, optimizer="custom"), True, [OWN_NETWORK, OWN_OPTIMIZER])
    assert code.endswith("), network=small, optimizer=SGD)")


def test_train_command_can_be_pasted_on_windows(monkeypatch):
    config = Config.from_preset("fast", data=r"C:\my data").resolve(False)
    monkeypatch.setattr(errors, "os", SimpleNamespace(name="nt"))
    assert train_command(config, False) == rf'{TRAIN_FAST} --data "C:\my data"'


@pytest.mark.parametrize("changes", [{"network": "tiny"}, {"preset": "my own"}])
def test_train_command_in_python_restores_the_configuration(changes):
    config = replace(Config.from_preset("fast").resolve(True), **changes)
    code = train_command(config, True)
    assert code.startswith("fmnist.train(fmnist.Config(")
    assert eval(code.removeprefix("fmnist.train(").removesuffix(")"), {"fmnist": fmnist}) == config


def test_most_frequent_confusions():
    confusions = most_frequent_confusions([[5, 2, 0], [0, 5, 7], [1, 0, 5]], ("a", "b", "c"), max_pairs=2)
    assert confusions == [("b", "c", 7), ("a", "b", 2)]
