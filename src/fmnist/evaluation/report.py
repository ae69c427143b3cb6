"""The report of an evaluated run: one HTML file with everything inside."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from fmnist import curves, plots
from fmnist.config import PRESETS, Config
from fmnist.data.dataset import Dataset
from fmnist.errors import quote
from fmnist.evaluation.pages import data_url, render
from fmnist.runs.history import History
from fmnist.runs.run import Run
from fmnist.runs.schemas import CustomPart, Environment, Manifest

Record = dict[str, Any]
"""A test image and its prediction: `index`, `true`, `predicted`, `probability`, `probabilities`."""


def render_report(
    run: Run,
    manifest: Manifest,
    environment: Environment,
    history: History,
    evaluation: dict[str, Any],
    class_mistakes: dict[int, list[Record]],
    heat_maps: np.ndarray,
    dataset: Dataset,
) -> str:
    """Return the report of an evaluated run as HTML that needs no other file and no network.

    Args:
        run: the finished run.
        manifest: of the run.
        environment: of the run.
        history: of the run; without rows there are no curves.
        evaluation: as `evaluate` returns it.
        class_mistakes: wrongly classified test images of each true class that has any, as records like
            `evaluation["mistakes"]`.
        heat_maps: (n, 28, 28), a map for each of `evaluation["mistakes"]`.
        dataset: the data set that the run was evaluated on.
    """
    per_class = [row for row in evaluation["per_class"] if row["num_images"]]
    samples, mistakes = (_images(evaluation[name], dataset) for name in ("samples", "mistakes"))
    return render(
        "report.html",
        run=run,
        manifest=manifest,
        environment=environment,
        evaluation=evaluation,
        dataset=dataset,
        curves=_draw_curves(history, run.config.first_hard_epoch),
        reliability=plots.svg(plots.reliability(evaluation["calibration"])),
        sample_images=[*map(data_url, samples)],
        sample_classes=[
            plots.most_probable(evaluation["class_names"], sample["probabilities"], sample["true"])
            for sample in evaluation["samples"]
        ],
        mistake_images=[*map(data_url, mistakes)],
        heat_maps=[data_url(plots.heat_overlay(*pair)) for pair in zip(mistakes, heat_maps, strict=True)],
        class_mistakes={
            index: [*zip(records, map(data_url, _images(records, dataset)), strict=True)]
            for index, records in class_mistakes.items()
        },
        max_class_mistakes=max(map(len, class_mistakes.values()), default=0),
        hardest=min(per_class, key=lambda row: row["f1"]),
        confusions=most_frequent_confusions(evaluation["confusion"], dataset.class_names),
        train_command=train_command(run.config, dataset.is_fashion_mnist, run.custom),
        evaluate_command=f"fmnist evaluate {quote(evaluation['run'])} --seed {evaluation['samples_seed']}",
    )


def _draw_curves(history: History, first_hard_epoch: int | None) -> dict[str, str]:
    """Draw the training curves as SVG by name. Returns none without history."""
    if not history:
        return {}
    return {name: plots.svg(curves.training_curve(history, name, first_hard_epoch)) for name in curves.CURVES}


def _images(records: list[Record], dataset: Dataset) -> np.ndarray:
    return dataset.test_images[[record["index"] for record in records]]


def most_frequent_confusions(
    matrix: list[list[int]], class_names: tuple[str, ...], max_pairs: int = 3
) -> list[tuple[str, str, int]]:
    """Return the most frequent pairs of classes that are confused.

    Args:
        matrix: number of images; rows are true classes, columns predicted ones.
        class_names: for rows and columns.
        max_pairs: length of the list, at most.

    Returns:
        True class, predicted class and number of images of each pair, most frequent first.
    """
    pairs = [
        (class_names[true], class_names[predicted], count)
        for true, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:max_pairs]


def train_command(config: Config, is_fashion_mnist: bool, custom: Sequence[CustomPart] = ()) -> str:
    """Return the command that trains a configuration, or a line of Python if no command can express it.

    Args:
        config: of a run.
        is_fashion_mnist: whether its data is Fashion-MNIST, which decides what `fmnist train` does about mirroring.
        custom: what is the user's own.
    """
    names = {part.part: part.name for part in custom}
    words = None if names.keys() - {"network"} else _train_words(config, is_fashion_mnist, names.get("network"))
    if words:
        return " ".join(map(quote, words))
    parts = [f"{part}={name.rpartition(':')[2]}" for part, name in names.items()]
    return f"fmnist.train({', '.join([f'fmnist.{config!r}', *parts])})"


def _train_words(config: Config, is_fashion_mnist: bool, network: str | None) -> list[str] | None:
    """Return the words of the command, or None if there is none."""
    if config.preset not in PRESETS or "<locals>" in (network or ""):
        return None
    own = {"network": "custom", "precision": config.precision} if network else {}
    plain = {name: getattr(config, name) for name in ("seed", "epochs", "full", "data", "class_weights")}
    flips: dict[str, dict[str, bool]] = {"": {}, "--flip": {"flip": True}, "--no-flip": {"flip": False}}
    bases = {
        option: Config.from_preset(config.preset, **plain, **flip, **own).resolve(is_fashion_mnist)
        for option, flip in flips.items()
    }
    option, base = next(pair for pair in bases.items() if pair[1].flip == config.flip)
    different = [name for name in Config.__struct_fields__ if getattr(config, name) != getattr(base, name)]
    changes = {name: getattr(config, name) for name in different if name not in {"network", "tta_views"}}
    if replace(base, **changes) != config:
        return None
    words = ["fmnist", "train", "--preset", config.preset, "--epochs", str(config.epochs), "--seed", str(config.seed)]
    words += ["--network", network] if network else []
    for name, value in changes.items():
        words += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    words += ["--full"] if config.full else []
    words += ["--data", config.data] if config.data else []
    words += [option] if option else []
    return words + (["--class-weights"] if config.class_weights else [])
