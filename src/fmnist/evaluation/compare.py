"""Comparison of evaluated runs by what `evaluate` has stored: no image is loaded, and nothing is scored."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from fmnist.data import download
from fmnist.data.arrays import idx_sha256
from fmnist.errors import FmnistError, quote
from fmnist.evaluation.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from fmnist.evaluation.statistics import mcnemar_p_value, paired_difference, summarize
from fmnist.metrics import accuracy_interval
from fmnist.runs.run import Run
from fmnist.runs.schemas import Environment, Manifest

TEST_LABELS = list(download.FILES)[3]
"""Name under which a run records the SHA-256 of its test labels."""

MAX_NAMED = 3
"""Runs that a message names."""
SMALLEST_P_VALUE = 0.0001
"""Smaller ones are printed as "below" it."""


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """A run with its predictions for the test images."""

    run: Run
    settings: dict[str, Any]
    """What its weights depend on besides the data and the machine."""
    data_sha256: dict[str, str]
    predictions: Predictions

    @property
    def accuracy(self) -> float:
        """Accuracy on the test images."""
        return float(self.predictions.is_correct.mean())


def read_evaluated(runs: Sequence[Run]) -> list[EvaluatedRun]:
    """Read the stored predictions of runs, and check that they can be compared.

    Args:
        runs: two or more.

    Raises:
        FmnistError: if there are fewer or one comes twice; if a run is not finished, not evaluated or damaged, or was
            trained on other data than the first.
    """
    folders = [run.folder.resolve() for run in runs]
    if len(runs) < 2:
        raise FmnistError(f"{len(runs)} run to compare; expected two or more, so name another one")
    if repeated := [run.folder for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1]:
        raise FmnistError(f"{repeated[1]} is the same run as {repeated[0]}; expected each run once")
    documents = [(run, run.environment(), run.manifest()) for run in runs]
    _check_same_data(documents)
    if missing := [run for run in runs if not os.path.lexists(run.folder / PREDICTIONS_FILE)]:
        named = [str(run.folder) for run in missing[:MAX_NAMED]]
        more = [f"and {len(missing) - MAX_NAMED} more"] if len(missing) > MAX_NAMED else []
        commands = ", ".join(f"`fmnist evaluate {quote(folder)}`" for folder in named)
        raise FmnistError(
            f"not evaluated yet: {', '.join(named + more)}; run {commands} first, or `fmnist study FOLDER --test` for "
            "all runs of a study"
        )
    return [
        EvaluatedRun(run, _settings(run, environment, manifest), environment.data_sha256, _read(run, environment))
        for run, environment, manifest in documents
    ]


def _check_same_data(documents: list[tuple[Run, Environment, Manifest]]) -> None:
    first, first_environment, _ = documents[0]
    for run, environment, _ in documents[1:]:
        if environment.data_sha256 != first_environment.data_sha256:
            raise FmnistError(
                f"{run.folder} was trained on other data than {first.folder} (its SHA-256 differs); expected runs of "
                "the same data, so compare it with others"
            )


def _read(run: Run, environment: Environment) -> Predictions:
    path = run.folder / PREDICTIONS_FILE
    hint = f"`fmnist evaluate {quote(run.folder)}` writes it again"
    predictions = read_predictions(path, hint)
    if idx_sha256(predictions.labels.astype(np.uint8)) != environment.data_sha256.get(TEST_LABELS):
        raise FmnistError(f"{path} is about other images than the test images of {run.folder}; {hint}")
    return predictions


def _settings(run: Run, environment: Environment, manifest: Manifest) -> dict[str, Any]:
    """Return what the weights of a run depend on. Files are named by their hash, wherever they are."""
    settings = {**run.config.to_json(), "photos": environment.photos_sha256, "backend": environment.backend}
    del settings["data"]
    if manifest.epochs_trained != run.config.epochs:
        settings["epochs_trained"] = manifest.epochs_trained
    for part in run.custom:
        settings[f"own_{part.part}"] = f"{part.name} (SHA-256 {part.sha256[:8]})" if part.sha256 else part.name
    return settings


def compare(evaluated: Sequence[EvaluatedRun]) -> dict[str, Any]:
    """Compare runs with the first one, and configurations with that of the first run.

    Args:
        evaluated: two or more runs, from `read_evaluated`.

    Returns:
        `num_images` and `class_names`; `runs`, a list of `run` (its folder), `configuration` (a number from 1),
        `preset`, `seed`, `accuracy`, `accuracy_interval_95` and `recall` (of each class, None for a class without
        images); `pairs`, a list of what `compare_pair` returns for the first and each other run; and
        `configurations`, a list of what `compare_configurations` returns.
    """
    first, *others = evaluated
    configurations = group_by_configuration(evaluated)
    numbers = {id(item): number for number, group in enumerate(configurations, 1) for item in group}
    num_images = len(first.predictions.labels)
    return {
        "num_images": num_images,
        "class_names": list(first.predictions.class_names),
        "runs": [
            {
                "run": str(item.run.folder),
                "configuration": numbers[id(item)],
                "preset": item.run.config.preset,
                "seed": item.run.config.seed,
                "accuracy": item.accuracy,
                "accuracy_interval_95": list(accuracy_interval(int(item.predictions.is_correct.sum()), num_images)),
                "recall": item.predictions.recall(),
            }
            for item in evaluated
        ],
        "pairs": [compare_pair(first, other) for other in others],
        "configurations": compare_configurations(configurations),
    }


def compare_pair(first: EvaluatedRun, second: EvaluatedRun) -> dict[str, Any]:
    """Compare two runs image by image.

    Returns:
        `first` and `second` (their folders), `difference` (accuracy of the second minus that of the first), `p_value`
        (`mcnemar_p_value`), `only_first_right` and `only_second_right` (indices of test images), and `classes`: a list
        of `label`, `num_images`, `recall_first`, `recall_second` and `difference` of each class that has images, the
        largest difference first.
    """
    is_first, is_second = first.predictions.is_correct, second.predictions.is_correct
    only_first, only_second = np.flatnonzero(is_first & ~is_second), np.flatnonzero(is_second & ~is_first)
    counts = np.bincount(first.predictions.labels, minlength=len(first.predictions.class_names))
    classes = [
        {
            "label": label,
            "num_images": int(count),
            "recall_first": one,
            "recall_second": two,
            "difference": two - one,
        }
        for label, count, one, two in zip(
            first.predictions.class_names, counts, first.predictions.recall(), second.predictions.recall(), strict=True
        )
        if one is not None and two is not None
    ]
    return {
        "first": str(first.run.folder),
        "second": str(second.run.folder),
        "difference": second.accuracy - first.accuracy,
        "p_value": mcnemar_p_value(len(only_first), len(only_second)),
        "only_first_right": only_first.tolist(),
        "only_second_right": only_second.tolist(),
        "classes": sorted(classes, key=lambda row: -abs(row["difference"])),
    }


def group_by_configuration(evaluated: Sequence[EvaluatedRun]) -> list[list[EvaluatedRun]]:
    """Return the runs that differ in their seed alone together, in the order in which each group first appears."""
    groups: dict[str, list[EvaluatedRun]] = {}
    for item in evaluated:
        groups.setdefault(json.dumps({**item.settings, "seed": None}, sort_keys=True), []).append(item)
    return list(groups.values())


def compare_configurations(groups: Sequence[Sequence[EvaluatedRun]]) -> list[dict[str, Any]]:
    """Compare configurations by the accuracies of their runs, paired by seed.

    Args:
        groups: the runs of each configuration.

    Returns:
        For each configuration `number` (from 1), `settings` (those that differ among the configurations), `runs` (their
        folders), `seeds`, `accuracy` (a `Summary` as a dictionary), `common_seeds` (those that the first configuration
        has too) and `difference` (a `Summary` of the accuracies minus those of the first configuration, over the common
        seeds; None for the first one and without common seeds). Runs of the same seed count as one, with their mean.
    """
    names = differing_settings([group[0].settings for group in groups])
    by_seed = [_accuracy_by_seed(group) for group in groups]
    result = []
    for number, (group, accuracies) in enumerate(zip(groups, by_seed, strict=True), 1):
        common = [seed for seed in accuracies if seed in by_seed[0]] if number > 1 else []
        pairs = [by_seed[0][seed] for seed in common], [accuracies[seed] for seed in common]
        result.append(
            {
                "number": number,
                "settings": {name: group[0].settings.get(name) for name in names},
                "runs": [str(item.run.folder) for item in group],
                "seeds": list(accuracies),
                "accuracy": asdict(summarize(list(accuracies.values()))),
                "common_seeds": common,
                "difference": asdict(paired_difference(*pairs)) if common else None,
            }
        )
    return result


def _accuracy_by_seed(group: Sequence[EvaluatedRun]) -> dict[int, float]:
    seeds = sorted({item.run.config.seed for item in group})
    return {seed: fmean(item.accuracy for item in group if item.run.config.seed == seed) for seed in seeds}


def differing_settings(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of the settings, other than the seed, that are not the same for all configurations."""
    names = dict.fromkeys(name for values in settings for name in values if name != "seed")
    return [name for name in names if any(values.get(name) != settings[0].get(name) for values in settings)]


def format_setting(value: Any) -> str:
    """Format a setting for people: the views by their number, all others as in JSON."""
    if isinstance(value, list | tuple):
        return f"{len(value)} views"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def format_p_value(p_value: float) -> str:
    """Format a p-value for people."""
    return f"below {SMALLEST_P_VALUE}" if p_value < SMALLEST_P_VALUE else f"{p_value:.4f}"
