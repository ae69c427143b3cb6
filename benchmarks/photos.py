"""Evaluate a model on a folder of labeled photos: python benchmarks/photos.py FOLDER.

The folder contains photos and `labels.csv` with the columns `file`, `category` and `accepted_classes`: the indices of
the classes that count as correct, separated by spaces. A photo without any is out of scope: it shows none of the
classes. Every photo is classified as by `fmnist predict`.

The folder that the pretrained models are trained on is split by the hash of each file: `--part train` are those that
they have seen, `--part held-out` the fifth that is to be read once. `--part all` is for a folder that was not used to
train or to choose anything.

The model also has to tell clean images of the data set from digits, noise and negatives. The clean images are the run's
validation images with `--part train`, and the test images otherwise. With `--things`, drawn things of kinds that it was
not trained on are to be told from garments.
"""

import argparse
import csv
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import describe_provenance
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from fmnist import metrics
from fmnist.config import IMAGE_SIZE
from fmnist.documents import write_json
from fmnist.errors import FmnistError, one_line
from fmnist.inference.classifier import Classifier
from fmnist.inference.prediction import Prediction
from fmnist.runs.run import Run, open_pretrained, open_run

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from build_photos import HELD_OUT_FRACTION, cut_grounds, hash_of, read_folder
from other_things import NOT_TRAINED_ON, draw_thing

CONFIDENT = 0.90
"""Probability from which a mistake counts as confident."""
NUM_NOISE = 1_000
NUM_THINGS = 200
"""Drawn things of each kind."""
NUM_RESAMPLES = 1_000
"""Bootstrap samples for the 95 % intervals."""
RESAMPLED = ("macro_accuracy", "selective_accuracy_50", "confident_mistakes", "out_of_scope_auroc")


@dataclass(frozen=True)
class Photo:
    """A line of `labels.csv`."""

    path: Path
    category: str
    accepted_classes: frozenset[int]
    """Empty for a photo that is out of scope."""


def read_labels(folder: Path, part: str) -> list[Photo]:
    """Read the labels of the photos in a part of the folder.

    Args:
        folder: contains `labels.csv` and the photos.
        part: `train`, `held-out` or `all`.

    Raises:
        FmnistError: if the table or a photo is missing, or the part is empty.
    """
    path = folder / "labels.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            photos = [
                Photo(folder / row["file"], row["category"], frozenset(map(int, row["accepted_classes"].split())))
                for row in csv.DictReader(file)
            ]
        is_held_out = [hash_of(item.path.read_bytes()) < HELD_OUT_FRACTION for item in photos]
    except FileNotFoundError as error:
        raise FmnistError(f"{error.filename} is missing; expected photos and their labels.csv in {folder}") from error
    except (KeyError, AttributeError, ValueError) as error:
        raise FmnistError(f"{path} is damaged ({error}); expected file, category and accepted_classes") from error
    selected = [
        item
        for item, held_out in zip(photos, is_held_out, strict=True)
        if part == "all" or held_out == (part != "train")
    ]
    if not selected:
        raise FmnistError(f"{folder} has no photos in its part {part}; it has {len(photos)} in all")
    return selected


def classify_photos(photos: list[Photo], classifier: Classifier) -> tuple[list[Prediction], list[float]]:
    """Classify every photo.

    Returns:
        The predictions, and the seconds that each took.

    Raises:
        FmnistError: if a photo cannot be read.
    """
    predictions, seconds = [], []
    for item in photos:
        started = time.perf_counter()
        predictions.append(classifier.classify(item.path))
        seconds.append(time.perf_counter() - started)
    return predictions, seconds


def score_photos(photos: list[Photo], predictions: list[Prediction]) -> dict[str, Any]:
    """Compute the metrics of the predictions for photos.

    Args:
        photos: what was classified.
        predictions: one per photo.

    Returns:
        Metrics without a threshold; three at the model's threshold, which are None for a model without one; and
        `per_category`. Fractions are from 0 to 1, and None where there are no photos to count.
    """
    in_scope = np.array([bool(item.accepted_classes) for item in photos])
    is_correct = np.array(
        [prediction.class_index in item.accepted_classes for item, prediction in zip(photos, predictions, strict=True)]
    )
    category = np.array([item.category for item in photos])
    probability = np.array([prediction.probability for prediction in predictions])
    has_threshold = predictions[0].confidence is not None
    is_accepted = np.array([bool(prediction.accepted) for prediction in predictions])
    at_threshold = score_acceptance(in_scope, is_correct, is_accepted)
    return {
        "num_photos": len(photos),
        "num_in_scope": int(in_scope.sum()),
        **score_answers(in_scope, is_correct, category, probability, confidences(predictions)),
        **(at_threshold if has_threshold else dict.fromkeys(at_threshold)),
        "per_category": {
            str(name): {
                "num_photos": int((category == name).sum()),
                "accuracy": mean_or_none(is_correct[(category == name) & in_scope]),
                "accepted": mean_or_none(is_accepted[category == name]) if has_threshold else None,
            }
            for name in np.unique(category)
        },
    }


def score_answers(
    in_scope: np.ndarray, is_correct: np.ndarray, category: np.ndarray, probability: np.ndarray, confidence: np.ndarray
) -> dict[str, float | None]:
    """Compute the metrics that need no threshold. All arguments are (n,), one entry for each photo."""
    accuracies = [is_correct[in_scope & (category == name)].mean() for name in np.unique(category[in_scope])]
    most_confident = np.argsort(-confidence[in_scope], kind="stable")[: in_scope.sum() // 2]
    return {
        "macro_accuracy": float(np.mean(accuracies)) if accuracies else None,
        "accuracy": mean_or_none(is_correct[in_scope]),
        "selective_accuracy_50": mean_or_none(is_correct[in_scope][most_confident]),
        "confident_mistakes": mean_or_none((~is_correct & (probability >= CONFIDENT))[in_scope]),
        "out_of_scope_auroc": auroc(confidence[in_scope], confidence[~in_scope]),
    }


def score_acceptance(in_scope: np.ndarray, is_correct: np.ndarray, is_accepted: np.ndarray) -> dict[str, float | None]:
    """Compute the metrics at a threshold. All arguments are (n,) bool, one entry for each photo."""
    return {
        "selective_accuracy": mean_or_none(is_correct[in_scope & is_accepted]),
        "coverage": mean_or_none(is_accepted[in_scope]),
        "out_of_scope_accepted": mean_or_none(is_accepted[~in_scope]),
    }


def confidences(predictions: list[Prediction]) -> np.ndarray:
    """Return the confidence of each prediction, or its probability for a model without a rejection rule."""
    return np.array([each.probability if each.confidence is None else each.confidence for each in predictions])


def score_without_color(photos: list[Photo], classifier: Classifier) -> dict[str, float]:
    """Return some scores of the 28x28 network alone, for a model with a color network."""
    color, classifier.color = classifier.color, None
    try:
        predictions = classify_photos(photos, classifier)[0] if color else []
    finally:
        classifier.color = color
    scores = score_photos(photos, predictions) if color else {}
    return {f"without_color_{name}": scores[name] for name in RESAMPLED if name in scores}


def bootstrap(photos: list[Photo], predictions: list[Prediction]) -> dict[str, list[float]]:
    """Return 95 % intervals of some scores, from photos drawn with replacement."""
    rng = np.random.default_rng(0)
    samples: dict[str, list[float]] = {name: [] for name in RESAMPLED}
    for _ in range(NUM_RESAMPLES):
        drawn = rng.integers(0, len(photos), len(photos))
        scores = score_photos([photos[index] for index in drawn], [predictions[index] for index in drawn])
        for name in RESAMPLED:
            if scores[name] is not None:
                samples[name].append(scores[name])
    return {name: np.quantile(values, [0.025, 0.975]).tolist() for name, values in samples.items() if values}


def score_clean_images(run: Run, classifier: Classifier, part: str) -> dict[str, Any]:
    """Compare clean images of the data set with images of other things.

    Args:
        run: the model's run.
        classifier: the model.
        part: `train` reads validation images, `held-out` and `all` read test images.

    Returns:
        `clean` (which images), `ece`, `clean_accuracy`, `clean_accepted`, and for scikit-learn's digits, noise and the
        negatives of the clean images the fraction accepted and the AUROC of the confidence. What needs a rejection rule
        is missing for a model without one.
    """
    dataset = run.load_data()
    parts = run.split(dataset)
    if part == "train" and len(parts.val_images):
        name, images, labels = "validation", parts.val_images, parts.val_labels
    elif part == "train":
        return {"clean": None}  # a run on all training images leaves only test images, which must not choose anything
    else:
        name, images, labels = "test", dataset.test_images, dataset.test_labels
    probabilities = classifier.predict(images)
    scores: dict[str, Any] = {
        "clean": name,
        "ece": metrics.expected_calibration_error(metrics.calibration_bins(probabilities, labels)),
        "clean_accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
    }
    if not classifier.rejection_rule:
        return scores
    threshold = classifier.rejection_rule.threshold
    noise = np.random.default_rng(0).integers(0, 256, (NUM_NOISE, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    clean = compute_confidence(classifier, images)
    scores["clean_accepted"] = mean_or_none(clean >= threshold)
    for kind, others in {"digits": load_digit_images(), "noise": noise, "negatives": 255 - images}.items():
        confidence = compute_confidence(classifier, others)
        scores[f"{kind}_accepted"] = mean_or_none(confidence >= threshold)
        scores[f"{kind}_auroc"] = auroc(clean, confidence)
    return scores


def score_things(folder: Path, classifier: Classifier, garments: np.ndarray) -> dict[str, Any]:
    """Draw things of kinds that were not trained on, on the ground of the photos, and classify them.

    Args:
        folder: of photos.
        classifier: the model.
        garments: (n,) confidence of the in-scope photos.

    Returns:
        For each kind the AUROC of the confidence, and the fraction accepted.
    """
    grounds = cut_grounds(read_folder(folder))
    scores = {}
    for kind in NOT_TRAINED_ON:
        drawn = (
            draw_thing(kind, np.random.default_rng([*kind.encode(), index]), grounds) for index in range(NUM_THINGS)
        )
        predictions = [classifier.classify(thing, kind="photo") for thing in drawn]
        scores[f"unseen_{kind}_auroc"] = auroc(garments, confidences(predictions))
        scores[f"unseen_{kind}_accepted"] = mean_or_none(np.array([bool(each.accepted) for each in predictions]))
    return scores


def compute_confidence(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Return the confidence in the predictions for images in the format of the data set, (n, 28, 28) uint8."""
    assert classifier.rejection_rule
    return classifier.rejection_rule.confidence(classifier.outputs(images))


def load_digit_images() -> np.ndarray:
    """Return scikit-learn's 1,797 digits of 8x8 pixels enlarged to (n, 28, 28) uint8, bright on black."""
    small = (load_digits().images * 15.9375).astype(np.uint8)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in small])


def auroc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """Return the area under the ROC curve of positive against negative scores. None if there are none of either."""
    if not (len(positive) and len(negative)):
        return None
    labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    return float(roc_auc_score(labels, np.r_[positive, negative]))


def in_scope_confidence(photos: list[Photo], predictions: list[Prediction]) -> np.ndarray:
    """Return the confidence of the photos that show one of the classes."""
    return confidences(predictions)[[bool(item.accepted_classes) for item in photos]]


def mean_or_none(values: np.ndarray) -> float | None:
    """Return the mean of booleans. None if there are none."""
    return float(values.mean()) if len(values) else None


def format_table(result: dict[str, Any]) -> str:
    """Format the result as a table."""
    lines = [f"{result['run']} on {result['num_photos']} photos ({result['part']})"]
    for name, value in result.items():
        if isinstance(value, float):
            number = f"{value:.3f}" if name.endswith("auroc") else f"{value:.0f}"
            text = number if name.endswith(("auroc", "median")) else f"{value:.1%}"
            lines.append(f"  {name.replace('_', ' '):26}{text:>8}")
    for name, row in result["per_category"].items():
        cells = [f"{row[key]:.0%}" if row[key] is not None else "-" for key in ("accuracy", "accepted")]
        lines.append(f"  {name:26}{row['num_photos']:>8} photos, accuracy {cells[0]:>4}, accepted {cells[1]:>4}")
    return "\n".join(lines)


def main() -> None:
    """Evaluate the folder, print a table and, with --json, the result as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="folder of a finished run; the pretrained model by default")
    parser.add_argument("--part", choices=["train", "held-out", "all"], default="all")
    parser.add_argument("--things", action="store_true", help="also draw things of kinds that were not trained on")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        run = open_run(arguments.model) if arguments.model else open_pretrained()
        classifier = Classifier.load(run)
        photos = read_labels(arguments.folder, arguments.part)
        provenance = describe_provenance()
        predictions, seconds = classify_photos(photos, classifier)
        without_color = score_without_color(photos, classifier)
        result = {
            "run": run.name if arguments.model else classifier.name,
            "preset": run.config.preset,
            "seed": run.config.seed,
            "part": arguments.part,
            **score_photos(photos, predictions),
            "intervals_95": bootstrap(photos, predictions),
            **without_color,
            "milliseconds_median": 1000 * float(np.median(seconds)),
            **score_clean_images(run, classifier, arguments.part),
            **(
                score_things(arguments.folder, classifier, in_scope_confidence(photos, predictions))
                if arguments.things
                else {}
            ),
            **provenance,
        }
    except FmnistError as error:
        sys.exit(f"photos.py: error: {one_line(error)}")
    print(format_table(result))
    if arguments.out:
        write_json(arguments.out, result)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
