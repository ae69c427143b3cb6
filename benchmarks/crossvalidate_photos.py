"""Choose how photos are answered, by cross-validation: python benchmarks/crossvalidate_photos.py FOLDER [OUTPUTS].

The photos that are not held out are split into four parts, by the hash of their files. For each part, both networks
are trained on the other three and answer this one. The weight of the color network, the temperature
and the threshold are chosen by these answers. `scripts/build_pretrained.py` takes them from the result file.

OUTPUTS is an npz file for the outputs of both networks. If it exists, those of the color network are read from it, so
that the other network can be changed without training this one again.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from provenance import describe_provenance

import fmnist
from fmnist.config import Config
from fmnist.data.dataset import CLASS_NAMES
from fmnist.documents import write_json
from fmnist.inference.color import combine
from fmnist.runs.schemas import PhotoModelRecord
from photos import CONFIDENT, auroc, score_acceptance, score_answers  # makes scripts/ importable

# isort: split
import build_photos
import color_network
import efficientnet
from build_photos import cut_grounds, draw_things, read_folder
from other_things import NOT_TRAINED_ON, TRAINED_ON

RESULT = Path(__file__).parent / "results" / "photos_crossvalidation.json"
WEIGHTS = (0.0, 0.5, 0.6, 0.7, 0.8, 1.0)
SELECTIVE_ACCURACY = 0.975
"""Of the accepted photos that are in scope: the goal of 0.97, and a margin for other photos."""
MAX_OTHERS_ACCEPTED = 0.03
MAX_CONFIDENT_MISTAKES = 0.005
"""Of the photos in scope: half of the goal, 0.01. On other photos there were twice as many as here."""


def main() -> None:
    """Cross-validate, print the scores, and write the result file."""
    photos = read_folder(Path(sys.argv[1]))
    grounds = cut_grounds(photos)
    things, kinds = draw_things((*TRAINED_ON, *NOT_TRAINED_ON), color_network.NUM_THINGS, grounds)
    is_trained_on = np.isin(kinds, TRAINED_ON)
    everything = [*photos.reduced, *things]
    images = np.stack([each.image for each in everything])
    category = np.concatenate([photos.category, np.where(is_trained_on, kinds, "unseen")])
    labels = color_network.indices_of(category)
    weights = efficientnet.download_weights()
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    known = np.load(path) if path and path.exists() else None
    views = np.stack([each.views for each in everything])
    features = None if known else color_network.compute_features(weights, views)
    dataset = fmnist.load()

    num_photos = len(photos.reduced)
    fold = np.concatenate([np.where(photos.is_held_out, -1, photos.fold), np.full(len(things), -2)])
    can_train = (fold >= 0) | np.concatenate([np.zeros(num_photos, bool), is_trained_on])
    num_classes = len(CLASS_NAMES)
    color = known["color"] if known else np.zeros((len(everything), 4, len(color_network.OUTPUTS)))
    gray = np.zeros((len(everything), num_classes + 1))
    is_thing = fold == -2
    for part in range(build_photos.NUM_FOLDS):
        answered = (fold == part) | is_thing
        share = np.where(is_thing, 1 / build_photos.NUM_FOLDS, 1)[answered]
        if features is not None:
            used = can_train & (fold != part)
            network = color_network.train(weights, features[used], labels[used])
            color[answered] += share[:, np.newaxis, np.newaxis] * color_network.predict(network, features[answered])
        gray[answered] += share[:, np.newaxis] * train_gray(photos, things, kinds, part, images[answered], dataset)
        print(f"part {part + 1} of {build_photos.NUM_FOLDS} done", file=sys.stderr, flush=True)

    if path:
        np.savez(path, color=color, gray=gray)
    rows = np.flatnonzero(fold >= 0)
    accepted = np.concatenate([photos.accepted, np.zeros((len(things), num_classes), bool)])
    scores: dict[str, Any] = {}
    for weight in WEIGHTS:
        temperature, probabilities = calibrate(color, gray, weight, rows, accepted)
        confidence = probabilities.max(axis=1)
        garments = confidence[rows][accepted[rows].any(axis=1)]
        scores[f"{weight}"] = {
            "temperature": temperature,
            **score(probabilities[rows], accepted[rows], photos.category[rows]),
            "unseen_auroc": {kind: auroc(garments, confidence[is_thing][kinds == kind]) for kind in NOT_TRAINED_ON},
        }
        print(json.dumps({weight: scores[f"{weight}"]}), flush=True)
    result = {"num_photos": len(rows), "color_weight": scores}
    write_json(RESULT, {**result, **describe_provenance()})


def train_gray(
    photos: Any, things: list[Any], kinds: np.ndarray, part: int, images: np.ndarray, dataset: fmnist.Dataset
) -> np.ndarray:
    """Train the network for 28x28 images without one part, and answer some images: (n, classes + 1)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photos.npz"
        chosen = [index for kind in TRAINED_ON for index in np.flatnonzero(kinds == kind)[: build_photos.NUM_THINGS]]
        without = replace(photos, is_held_out=photos.is_held_out | (photos.fold == part))
        build_photos.write(path, without, [things[index] for index in chosen], kinds[chosen])
        config = Config.from_preset("photo", photos=str(path))
        run = fmnist.train(config, dataset=dataset, folder=Path(folder) / "run")
        found = fmnist.Classifier.load(run).outputs(images)
        none = found["none_probability"]
        return np.column_stack([(1 - none) * found["probabilities"], none])


def calibrate(
    color: np.ndarray, gray: np.ndarray, weight: float, rows: np.ndarray, accepted: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return a temperature, and the probabilities of the classes with it.

    It is the one with the lowest cross-entropy among those with at most `MAX_CONFIDENT_MISTAKES`.
    """
    best: tuple[bool, float, float, np.ndarray] | None = None
    for temperature in np.round(np.arange(0.5, 1.55, 0.05), 2):
        record = PhotoModelRecord(
            outputs=color_network.OUTPUTS, color_weight=weight, temperature=float(temperature), threshold=0.0,
            sha256="0" * 64, photos_sha256="0" * 64, commit="",
        )  # fmt: skip
        found = [
            combine(record, by_view, row[:-1] / row[:-1].sum(), float(row[-1]))
            for by_view, row in zip(color, gray + 1e-9, strict=True)
        ]
        classes = np.stack([each.classes for each in found])
        none = np.array([each.none for each in found])
        correct = np.where(accepted.any(axis=1), (classes * accepted).sum(axis=1), none)
        loss = -np.log(correct[rows] + 1e-9).mean()
        is_wrong = ~accepted[np.arange(len(classes)), classes.argmax(axis=1)] & (classes.max(axis=1) >= CONFIDENT)
        has_too_many = bool(is_wrong[rows][accepted[rows].any(axis=1)].mean() > MAX_CONFIDENT_MISTAKES)
        if best is None or (has_too_many, loss) < best[:2]:
            best = has_too_many, loss, float(temperature), classes
    assert best
    return best[2], best[3]


def score(probabilities: np.ndarray, accepted: np.ndarray, category: np.ndarray) -> dict[str, Any]:
    """Compute the scores of the answers, and the lowest threshold that reaches the goals."""
    top, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    in_scope = np.asarray(accepted.any(axis=1))
    is_correct = accepted[np.arange(len(top)), top]

    def at(threshold: float) -> dict[str, Any]:
        return score_acceptance(in_scope, is_correct, confidence >= threshold)

    def is_good(scores: dict[str, Any]) -> bool:
        return (
            scores["selective_accuracy"] >= SELECTIVE_ACCURACY
            and scores["out_of_scope_accepted"] <= MAX_OTHERS_ACCEPTED
        )

    thresholds = np.round(np.arange(0.2, 1, 0.01), 2)
    threshold = float(next((each for each in thresholds if is_good(at(each))), thresholds[-1]))
    without_threshold = score_answers(in_scope, is_correct, category, confidence, confidence)
    return {**without_threshold, "threshold": threshold, **at(threshold)}


if __name__ == "__main__":
    main()
