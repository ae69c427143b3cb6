"""The comparison of runs as a page: one HTML file with everything inside."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmnist.data.dataset import Dataset
from fmnist.evaluation.compare import EvaluatedRun, format_p_value, format_setting
from fmnist.evaluation.pages import data_url, render
from fmnist.files import write_atomic

MAX_IMAGES = 6
"""Images that are drawn for each run of a pair, of those that it alone has right."""
MAX_CLASSES = 5
"""Classes in the table of a pair."""


def render_comparison(evaluated: Sequence[EvaluatedRun], comparison: dict[str, Any], dataset: Dataset | None) -> str:
    """Return a comparison as HTML that needs no other file and no network.

    Args:
        evaluated: the runs.
        comparison: of these, as `compare` returns it.
        dataset: of the runs, to draw test images from. None draws none.
    """
    first, *others = evaluated
    accuracies = [end for row in comparison["runs"] for end in row["accuracy_interval_95"]]
    return render(
        "compare.html",
        {"p_value": format_p_value, "setting": format_setting},
        comparison=comparison,
        labels=run_labels([item.run.folder.resolve().parts for item in evaluated]),
        low_end=min(accuracies),
        span=max(accuracies) - min(accuracies) or 1.0,
        has_seeds=any(len(row["seeds"]) > 1 for row in comparison["configurations"]),
        max_classes=MAX_CLASSES,
        images=[
            (
                _describe_images(pair["only_first_right"], first, other, dataset),
                _describe_images(pair["only_second_right"], other, first, dataset),
            )
            for pair, other in zip(comparison["pairs"], others, strict=True)
        ],
    )


def run_labels(parts: Sequence[tuple[str, ...]]) -> list[str]:
    """Return short names for folders: as much of the end of each path as tells all of them apart.

    Args:
        parts: of different absolute paths.
    """
    depth = 1
    while len({path[-depth:] for path in parts}) < len(parts):
        depth += 1
    return ["/".join(path[-depth:]) for path in parts]


def _describe_images(
    indices: Sequence[int], right: EvaluatedRun, wrong: EvaluatedRun, dataset: Dataset | None
) -> list[dict[str, Any]]:
    """Describe the images, of those that one run alone has right, about which the other is most confident."""
    if dataset is None:
        return []
    names = right.predictions.class_names
    confidence = wrong.predictions.confidence
    chosen = sorted(indices, key=lambda index: -confidence[index])[:MAX_IMAGES]
    return [
        {
            "index": index,
            "image": data_url(np.asarray(dataset.test_images[index])),
            "true": names[right.predictions.labels[index]],
            "predicted": names[wrong.predictions.predicted[index]],
            "probability": float(confidence[index]),
            "probability_right": float(right.predictions.confidence[index]),
        }
        for index in chosen
    ]


def write_comparison(
    folder: Path, evaluated: Sequence[EvaluatedRun], comparison: dict[str, Any], dataset: Dataset | None
) -> Path:
    """Write a comparison as `compare.html` into a folder, which is created. Arguments as in `render_comparison`.

    Returns:
        The path of the page.
    """
    page = render_comparison(evaluated, comparison, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "compare.html"
    write_atomic(path, page.encode(errors="backslashreplace"))
    return path
