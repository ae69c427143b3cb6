"""The evaluation and its report."""

import dataclasses
import html.parser
import json
import shutil

import numpy as np
import pytest

import fmnist
from fmnist.errors import FmnistError
from fmnist.evaluation import evaluate as evaluation
from fmnist.evaluation import report
from fmnist.runs import run as runs


@pytest.fixture(scope="module")
def evaluated(small_run, tmp_path_factory):
    run = runs.open_run(shutil.copytree(small_run.folder, tmp_path_factory.mktemp("evaluated") / "run"))
    return run, fmnist.evaluate(run, seed=4)


def test_every_test_image_is_scored(evaluated, small):
    run, result = evaluated
    answers = fmnist.Classifier.load(run).predict(small.test_images)
    assert result["num_images"] == 200
    assert result["accuracy"] == (answers.argmax(axis=1) == small.test_labels).mean()
    assert np.sum(result["confusion"]) == 200
    assert json.loads((run.folder / "evaluation.json").read_text()) == result


def test_the_document_has_what_it_promises(evaluated):
    assert set(evaluated[1]) >= {
        "run", "num_images", "accuracy", "accuracy_single_view", "precision_macro", "recall_macro", "f1_macro",
        "keras_precision", "keras_recall", "per_class", "confusion", "ece", "accuracy_interval_95", "samples",
    }  # fmt: skip


def test_two_random_images_follow_the_seed(evaluated, small):
    run, result = evaluated
    first, second = result["samples"]
    assert first["index"] != second["index"]
    for sample in result["samples"]:
        assert sample["true"] == small.class_names[small.test_labels[sample["index"]]]
        assert sample["probability"] == max(sample["probabilities"])
        assert sample["predicted"] == small.class_names[np.argmax(sample["probabilities"])]
    assert fmnist.evaluate(run, seed=4)["samples"] == result["samples"]


def test_without_a_seed_the_images_are_random_and_can_be_had_again(evaluated):
    run, _ = evaluated
    drawn = [fmnist.evaluate(run) for _ in range(3)]
    assert len({tuple(sample["index"] for sample in result["samples"]) for result in drawn}) > 1
    assert fmnist.evaluate(run, seed=drawn[0]["samples_seed"])["samples"] == drawn[0]["samples"]


def test_mistakes_are_wrong_and_most_confident_first():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([1, 1, 1, 0])
    assert evaluation.most_confident_mistakes(probabilities, labels).tolist() == [0, 3, 2]


def test_other_data_is_refused(evaluated, fashion, monkeypatch):
    monkeypatch.setattr(runs.data, "load_from", lambda _: fashion)
    with pytest.raises(FmnistError, match=r"is not the data that .* was trained on"):
        fmnist.evaluate(evaluated[0])


class References(html.parser.HTMLParser):
    """Collect what a page points at."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in {"src", "href"}]
        assert tag != "script"


def test_the_report_is_complete_and_needs_nothing_else(evaluated):
    run, _ = evaluated
    result = fmnist.evaluate(run, seed=4)
    page = (run.folder / "report.html").read_text()
    references = References()
    references.feed(page)
    assert len(references.found) == 4
    assert all(reference.startswith("data:image/png;base64,") for reference in references.found)
    for text in (
        f"{100 * result['accuracy']:.2f} %",
        "Shirt",
        "--seed 4",
        "by a threshold of 0.5",
        "SHA-256",
    ):
        assert text in page
    assert result["samples"][0]["true"] in page


@pytest.mark.parametrize(
    ("changes", "text", "subject"),
    [
        ({"flip": True}, "on mirrored and shifted images", "mirrored"),
        ({"photolike": True}, "fragments of no class", "fragments"),
        ({"cutmix": 0.5}, "50 % of the images have a part of another", "a part of another"),
        ({"visited": 0.5}, "goes through 50 % of the training images", "An epoch goes through"),
    ],
)
def test_the_report_says_what_training_values_are_measured_on(evaluated, small, changes, text, subject):
    run, result = evaluated
    plain = dataclasses.replace(
        run.config, flip=False, shift=0, label_smoothing=0.0, photolike=False, cutmix=0.0, visited=1.0
    )
    without, with_it = (
        report.render(runs.Run(run.folder, config, run.created), result, small)
        for config in (plain, dataclasses.replace(plain, **changes))
    )
    assert subject not in without
    assert text in with_it


def test_the_report_puts_each_number_in_its_column(evaluated):
    run, _ = evaluated
    result = fmnist.evaluate(run, seed=4)
    page = (run.folder / "report.html").read_text()
    for row in result["per_class"]:
        values = "".join(f"<td>{100 * row[name]:.1f} %</td>" for name in ("precision", "recall", "f1"))
        assert f"<td>{row['label']}</td>{values}<td>20</td>" in page


def test_an_answer_that_is_missing_is_noticed(evaluated, monkeypatch):
    real = fmnist.Classifier.outputs
    monkeypatch.setattr(
        fmnist.Classifier, "outputs", lambda self, images: {k: v[:-1] for k, v in real(self, images).items()}
    )
    with pytest.raises(FmnistError, match="199 answers for 200 test images"):
        fmnist.evaluate(evaluated[0])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "fmnist train --preset fast --epochs 9 --seed 0"),
        ({"epochs": 2, "seed": 7, "full": True}, "fmnist train --preset fast --epochs 2 --seed 7 --full"),
        ({"data": "/my data"}, "fmnist train --preset fast --epochs 9 --seed 0 --data '/my data'"),
        ({"flip": False}, "flip=False"),
    ],
)
def test_how_to_run_it_again(small_run, changes, expected):
    config = fmnist.Config.from_preset("fast", **changes)
    command = report.train_command(runs.Run(small_run.folder, config, small_run.created))
    assert command == expected if "flip" not in changes else command.startswith("fmnist.train(fmnist.Config(")
    assert expected in command


def test_names_changed_since_training_change_nothing(small_run, small, tmp_path, monkeypatch):
    import dataclasses

    run = runs.open_run(shutil.copytree(small_run.folder, tmp_path / "run"))
    renamed = dataclasses.replace(small, class_names=tuple(reversed(small.class_names)))
    monkeypatch.setattr(runs.data, "load_from", lambda _: renamed)
    result = fmnist.evaluate(run, seed=4)
    for sample in result["samples"]:
        assert sample["predicted"] == result["class_names"][np.argmax(sample["probabilities"])]
        assert sample["true"] == small.class_names[small.test_labels[sample["index"]]]


def test_names_cannot_smuggle_markup(small_run, small, tmp_path):
    name = "<img src=x onerror=alert(1)>"
    hostile = dataclasses.replace(small, class_names=(name, *small.class_names[1:]))
    run = runs.open_run(shutil.copytree(small_run.folder, tmp_path / "run"))
    result = {**fmnist.evaluate(run, seed=1), "class_names": list(hostile.class_names)}
    result["per_class"][0]["label"] = name
    page = report.render(run, result, hostile)
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_largest_confusions():
    assert report.largest_confusions([[5, 2, 0], [0, 5, 7], [1, 0, 5]], ("a", "b", "c"), most=2) == [
        "b taken for c (7 times)",
        "a taken for b (2 times)",
    ]
