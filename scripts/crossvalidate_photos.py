"""Choose how photos are answered, by cross-validation: python scripts/crossvalidate_photos.py FOLDER.

The photos that are not held out are split into four parts, by the hash of their files. For each part, both networks
are trained on the other three and answer this one. From these answers follow the weight of the color network, the
temperature and the threshold, which `build_pretrained.py` takes from the result file.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import color_network
import efficientnet
import numpy as np
from build_photos import NUM_FOLDS, cut_grounds, draw_things, read_folder, write
from other_things import NOT_TRAINED_ON, TRAINED_ON
from sklearn.metrics import roc_auc_score

import fmnist
from fmnist.config import Config
from fmnist.data.dataset import CLASS_NAMES
from fmnist.documents import write_json
from fmnist.inference.color import combine
from fmnist.runs.schemas import PhotoModelRecord

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from provenance import describe_provenance

RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "photos_crossvalidation.json"
GRAY_EPOCHS = 20
"""Of the network for 28x28 images: fewer than the preset's, for time."""
NUM_THINGS = 150
"""Drawn things of each kind for the color network."""
NUM_IN_FILE = 100
"""Drawn things of each kind for the other network, as in the repository's file."""
WEIGHTS = (0.0, 0.5, 0.6, 0.7, 0.8, 1.0)
SELECTIVE_ACCURACY = 0.975
"""Of the accepted photos that are in scope: the goal of 0.97, and a margin for other photos."""
MAX_OTHERS_ACCEPTED = 0.03
CONFIDENT = 0.90


def main() -> None:
    """Cross-validate, print the scores, and write the result file."""
    photos = read_folder(Path(sys.argv[1]))
    grounds = cut_grounds(photos)
    things, kinds = draw_things((*TRAINED_ON, *NOT_TRAINED_ON), NUM_THINGS, grounds)
    is_trained_on = np.isin(kinds, TRAINED_ON)
    everything = [*photos.reduced, *things]
    images = np.stack([each.image for each in everything])
    category = np.concatenate([photos.category, np.where(is_trained_on, kinds, "unseen")])
    outputs = list(color_network.OUTPUTS)
    labels = np.array([outputs.index(name if name in outputs else "other") for name in category])
    weights = efficientnet.download_weights()
    features = color_network.compute_features(weights, np.stack([each.views for each in everything]))
    dataset = fmnist.load()

    num_photos = len(photos.reduced)
    fold = np.concatenate([np.where(photos.is_held_out, -1, photos.fold), np.full(len(things), -2)])
    can_train = (fold >= 0) | np.concatenate([np.zeros(num_photos, bool), is_trained_on])
    num_classes = len(CLASS_NAMES)
    color = np.zeros((len(everything), 4, len(outputs)))
    gray = np.zeros((len(everything), num_classes + 1))
    is_thing = fold == -2
    for part in range(NUM_FOLDS):
        used = can_train & (fold != part)
        network = color_network.train(weights, features[used], labels[used])
        answered = (fold == part) | is_thing
        share = np.where(is_thing, 1 / NUM_FOLDS, 1)[answered]
        color[answered] += share[:, np.newaxis, np.newaxis] * color_network.predict(network, features[answered])
        gray[answered] += share[:, np.newaxis] * train_gray(photos, things, kinds, part, images[answered], dataset)
        print(f"part {part + 1} of {NUM_FOLDS} done", file=sys.stderr, flush=True)

    rows = np.flatnonzero(fold >= 0)
    accepted = np.concatenate([photos.accepted, np.zeros((len(things), num_classes), bool)])
    scores: dict[str, Any] = {}
    for weight in WEIGHTS:
        temperature, probabilities = calibrate(color, gray, weight, rows, accepted)
        scores[f"{weight}"] = {
            "temperature": temperature,
            **score(probabilities[rows], accepted[rows], photos.category[rows]),
            "unseen_auroc": {
                kind: float(
                    roc_auc_score(
                        np.r_[np.ones(accepted[rows].any(axis=1).sum()), np.zeros((kinds == kind).sum())],
                        np.r_[
                            probabilities[rows][accepted[rows].any(axis=1)].max(axis=1),
                            probabilities[num_photos:][kinds == kind].max(axis=1),
                        ],
                    )
                )
                for kind in NOT_TRAINED_ON
            },
        }
        print(json.dumps({weight: scores[f"{weight}"]}), flush=True)
    result = {"num_photos": len(rows), "gray_epochs": GRAY_EPOCHS, "color_weight": scores}
    write_json(RESULT, {**result, **describe_provenance()})


def train_gray(
    photos: Any, things: list[Any], kinds: np.ndarray, part: int, images: np.ndarray, dataset: fmnist.Dataset
) -> np.ndarray:
    """Train the network for 28x28 images without one part, and answer some images: (n, classes + 1)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photos.npz"
        chosen = [index for kind in TRAINED_ON for index in np.flatnonzero(kinds == kind)[:NUM_IN_FILE]]
        without = replace(photos, is_held_out=photos.is_held_out | (photos.fold == part))
        write(path, without, [things[index] for index in chosen], kinds[chosen])
        config = Config.from_preset("photo", epochs=GRAY_EPOCHS, photos=str(path))
        run = fmnist.train(config, dataset=dataset, folder=Path(folder) / "run")
        found = fmnist.Classifier.load(run).outputs(images)
        none = found["none_probability"]
        return np.column_stack([(1 - none) * found["probabilities"], none])


def calibrate(
    color: np.ndarray, gray: np.ndarray, weight: float, rows: np.ndarray, accepted: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the temperature with the lowest cross-entropy, and the probabilities of the classes with it."""
    best: tuple[float, float, np.ndarray] | None = None
    for temperature in np.arange(0.5, 1.55, 0.05):
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
        if best is None or loss < best[0]:
            best = loss, float(temperature), classes
    assert best
    return best[1], best[2]


def score(probabilities: np.ndarray, accepted: np.ndarray, category: np.ndarray) -> dict[str, Any]:
    """Compute the scores of the answers, and the lowest threshold that reaches the goals."""
    top = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    in_scope = accepted.any(axis=1)
    is_correct = accepted[np.arange(len(top)), top]
    macro = np.mean([is_correct[category == name].mean() for name in np.unique(category[in_scope])])
    order = np.argsort(-confidence[in_scope])
    selective = is_correct[in_scope][order].cumsum() / np.arange(1, in_scope.sum() + 1)

    def is_good(threshold: float) -> bool:
        chosen = confidence >= threshold
        return (
            is_correct[chosen & in_scope].mean() >= SELECTIVE_ACCURACY
            and chosen[~in_scope].mean() <= MAX_OTHERS_ACCEPTED
        )

    threshold = next((value for value in np.arange(0.2, 1, 0.01) if is_good(value)), 1.0)
    return {
        "macro_accuracy": float(macro),
        "selective_accuracy_50": float(selective[len(selective) // 2 - 1]),
        "confident_mistakes": float((~is_correct & (confidence >= CONFIDENT))[in_scope].mean()),
        "out_of_scope_auroc": float(roc_auc_score(in_scope, confidence)),
        "threshold": float(threshold),
        "coverage": float((confidence >= threshold)[in_scope].mean()),
        "selective_accuracy": float(is_correct[in_scope & (confidence >= threshold)].mean()),
        "out_of_scope_accepted": float((confidence >= threshold)[~in_scope].mean()),
    }


if __name__ == "__main__":
    main()
