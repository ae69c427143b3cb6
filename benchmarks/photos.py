"""How a model does on a folder of labelled photos: python benchmarks/photos.py FOLDER.

The folder holds photos and `labels.csv` with the columns `file`, `category` and `accepted_classes`: the indices that
count as right, separated by spaces; none where the right answer is "not one of the ten". Every photo goes the way of
`fmnist predict`. Photos choose settings and are never trained on; so that they cannot also flatter them, a development
folder is split once, by the hash of each file: `--part choose` are the 500 lowest hashes, `--part final` the rest, to
be read once. `--part all` is for a folder that chose nothing.

Beside the photos, the acceptance score has to tell clean images of the data set from digits, noise and negatives. The
clean images are the run's validation images while choosing, and the test images otherwise.
"""

import argparse
import csv
import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from provenance import provenance
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from fmnist import atomic, metrics
from fmnist.data import dataset as data
from fmnist.errors import FmnistError, one_line
from fmnist.inference.classifier import Classifier
from fmnist.runs import run as runs

NUM_TO_CHOOSE_BY = 500
CONFIDENT = 0.90
NUM_NOISE = 1_000


@dataclass(frozen=True)
class Photo:
    """A line of `labels.csv`."""

    path: Path
    category: str
    accepted: frozenset[int]


def read_labels(folder: Path, part: str) -> list[Photo]:
    """Read which photos a part of the folder has.

    Args:
        folder: holds `labels.csv` and the photos.
        part: `choose`, `final` or `all`.

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
        by_hash = sorted(photos, key=lambda item: hashlib.sha256(item.path.read_bytes()).digest())
    except FileNotFoundError as error:
        raise FmnistError(f"{error.filename} is missing; expected photos and their labels.csv in {folder}") from error
    except (KeyError, AttributeError, ValueError) as error:
        raise FmnistError(f"{path} is damaged ({error}); expected file, category and accepted_classes") from error
    chosen = {"choose": by_hash[:NUM_TO_CHOOSE_BY], "final": by_hash[NUM_TO_CHOOSE_BY:], "all": by_hash}[part]
    if not chosen:
        raise FmnistError(f"{folder} has no photos in its part {part}; it has {len(photos)} in all")
    return chosen


def ask(photos: list[Photo], classifier: Classifier) -> list[dict[str, Any]]:
    """Answer every photo; one that cannot be read is an error of the folder."""
    answers = []
    for item in photos:
        started = time.perf_counter()
        answers.append(classifier.classify(item.path))
        answers[-1]["seconds"] = time.perf_counter() - started
    return answers


def score(photos: list[Photo], answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the answers.

    Args:
        photos: what was asked.
        answers: as `Classifier.classify` gives them, one a photo.

    Returns:
        The four figures that need no threshold and, if the model has one, the three at it; `per_category`.
        Shares are from 0 to 1, and None where the folder has nothing to count.
    """
    inside = np.array([bool(item.accepted) for item in photos])
    right = np.array([answer["class"] in item.accepted for item, answer in zip(photos, answers, strict=True)])
    probability = np.array([answer["probability"] for answer in answers])
    has_threshold = answers[0]["acceptance"] is not None
    acceptance = np.array([answer["acceptance"] for answer in answers]) if has_threshold else probability
    is_accepted = np.array([bool(answer["accepted"]) for answer in answers])
    surest = np.argsort(-acceptance[inside], kind="stable")[: inside.sum() // 2]
    per_category = {
        name: {
            "num_photos": int((which := np.array([item.category == name for item in photos])).sum()),
            "accuracy": share(right[which & inside]),
            "accepted": share(is_accepted[which]) if has_threshold else None,
        }
        for name in sorted({item.category for item in photos})
    }
    accuracies = [row["accuracy"] for row in per_category.values() if row["accuracy"] is not None]
    at_threshold = {
        "accepted_right": share(right[inside & is_accepted]),
        "coverage": share(is_accepted[inside]),
        "out_of_scope_accepted": share(is_accepted[~inside]),
    }
    return {
        "num_photos": len(photos),
        "num_in_scope": int(inside.sum()),
        "macro_accuracy": float(np.mean(accuracies)) if accuracies else None,
        "accuracy": share(right[inside]),
        "selective_accuracy_50": share(right[inside][surest]),
        "confident_mistakes": share((~right & (probability >= CONFIDENT))[inside]),
        "out_of_scope_auroc": auroc(acceptance[inside], acceptance[~inside]),
        **(at_threshold if has_threshold else dict.fromkeys(at_threshold)),
        "per_category": per_category,
        "milliseconds_median": 1000 * float(np.median([answer["seconds"] for answer in answers])),
    }


def score_clean(run: runs.Run, classifier: Classifier, part: str) -> dict[str, Any]:
    """Compare clean images of the data set with what is none of the ten.

    Returns:
        `clean` (which images), `clean_accepted`, `ece`, and the AUROC of the acceptance score against scikit-learn's
        digits, noise and the negatives of the clean images; None without a threshold.
    """
    dataset = run.load_data()
    parts = data.split(dataset, run.config.seed, run.config.full)
    if part == "choose" and len(parts.val_images):
        name, images, labels = "validation", parts.val_images, parts.val_labels
    elif part == "choose":
        return {"clean": None}  # trained on all of them: only test images are left, and they choose nothing
    else:
        name, images, labels = "test", dataset.test_images, dataset.test_labels
    ece = metrics.expected_calibration_error(classifier.predict(images), labels)
    if not classifier.acceptance:
        return {"clean": name, "ece": ece}
    noise = np.random.default_rng(0).integers(0, 256, (NUM_NOISE, 28, 28), np.uint8)
    clean = acceptance_scores(classifier, images)
    return {
        "clean": name,
        "ece": ece,
        "clean_accepted": share(clean >= classifier.acceptance.threshold),
        "digits_auroc": auroc(clean, acceptance_scores(classifier, digits())),
        "noise_auroc": auroc(clean, acceptance_scores(classifier, noise)),
        "negatives_auroc": auroc(clean, acceptance_scores(classifier, 255 - images)),
    }


def acceptance_scores(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Give the acceptance of images that are as in the data set, (n, 28, 28) uint8."""
    assert classifier.acceptance
    outputs = classifier.outputs(images)
    return classifier.acceptance.score(outputs["probabilities"], outputs["features"])


def digits() -> np.ndarray:
    """Give scikit-learn's 1,797 digits, 8x8, enlarged to 28x28, bright on black."""
    small = (load_digits().images * 15.9375).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC)) for image in small])


def auroc(inside: np.ndarray, outside: np.ndarray) -> float | None:
    """Give the share of pairs in which the one inside scores higher; None if there are no pairs."""
    if not (len(inside) and len(outside)):
        return None
    return float(roc_auc_score(np.r_[np.ones(len(inside)), np.zeros(len(outside))], np.r_[inside, outside]))


def share(hits: np.ndarray) -> float | None:
    """Give the mean of true and false; None if there are none."""
    return float(hits.mean()) if len(hits) else None


def table(document: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = [f"{document['run']} on {document['num_photos']} photos ({document['part']})"]
    for name, value in document.items():
        if isinstance(value, float):
            number = f"{value:.3f}" if name.endswith("auroc") else f"{value:.0f}"
            shown = number if name.endswith(("auroc", "median")) else f"{value:.1%}"
            lines.append(f"  {name.replace('_', ' '):26}{shown:>8}")
    for name, row in document["per_category"].items():
        cells = [f"{row[key]:.0%}" if row[key] is not None else "-" for key in ("accuracy", "accepted")]
        lines.append(f"  {name:26}{row['num_photos']:>8} photos, right {cells[0]:>4}, accepted {cells[1]:>4}")
    return "\n".join(lines)


def main() -> None:
    """Score the folder, print a table and, with --json, one document as the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path, help="folder of a finished run; else what comes with fmnist")
    parser.add_argument("--part", choices=["choose", "final", "all"], default="all")
    parser.add_argument("--out", type=Path, help="also write the document to this file")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        run = runs.open_run(arguments.model) if arguments.model else runs.packaged()
        classifier = Classifier.load(run)
        photos = read_labels(arguments.folder, arguments.part)
        made_by = provenance()
        document = {
            "run": run.name if arguments.model else classifier.name,
            "preset": run.config.preset,
            "seed": run.config.seed,
            "part": arguments.part,
            **score(photos, ask(photos, classifier)),
            **score_clean(run, classifier, arguments.part),
            **made_by,
        }
    except FmnistError as error:
        sys.exit(f"photos.py: error: {one_line(error)}")
    print(table(document))
    if arguments.out:
        atomic.write_json(arguments.out, document)
    if arguments.json:
        print(json.dumps(document))


if __name__ == "__main__":
    main()
