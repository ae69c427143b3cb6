"""The result of a study: every run, each configuration's mean and spread, and paired differences."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fmnist import plots
from fmnist.drawing import hide_spines
from fmnist.evaluation.pages import render
from fmnist.evaluation.statistics import summarize
from fmnist.files import write_atomic
from fmnist.studies.plan import Range, StudyPlan
from fmnist.studies.study import values_of

METRICS = {"val_accuracy": "validation accuracy", "test_accuracy": "test accuracy"}
MAX_PAIRS = 200
"""Pairs of configurations that are compared: each with the best one, where all pairs would be more."""


def summarize_study(plan: StudyPlan, records: Sequence[dict[str, Any]], test: bool) -> dict[str, Any]:
    """Summarize the runs of a study.

    Args:
        plan: of the study.
        records: as `read_results` returns them.
        test: whether they were scored on the test images.

    Returns:
        `metric`, by which configurations are ranked: that on validation images where there are some. `configurations`,
        best first, `differences` between them on common seeds, and `runs`.
    """
    metric = "test_accuracy" if plan.configurations[0].config.full else "val_accuracy"
    settings = {record["configuration"]: record.get("settings") for record in records}
    names = [*settings]
    configurations: list[dict[str, Any]] = [
        {
            "configuration": name,
            **({"settings": settings[name]} if plan.search else {}),
            **{each: summary_of([*values_of(records, name, each).values()]) for each in METRICS},
            "train_seconds": summary_of([*values_of(records, name, "train_seconds").values()]),
        }
        for name in names
    ]
    configurations.sort(key=lambda row: -(row[metric]["mean"] or 0))
    return {
        "metric": metric,
        "test": test,
        "planned": plan.num_runs,
        "failed": sum(record["error"] is not None for record in records),
        "configurations": configurations,
        # Of a search, the best one is compared with none: it was chosen by the same accuracies.
        "differences": []
        if plan.search
        else compare_configurations(records, [row["configuration"] for row in configurations], metric),
        "runs": list(records),
    }


def compare_configurations(
    records: Sequence[dict[str, Any]], names: Sequence[str], metric: str
) -> list[dict[str, Any]]:
    """Return the paired differences of configurations, which are in order of their rank.

    A study that compares many configurations finds some difference by chance: intervals are not corrected for that.
    """
    pairs = [*itertools.combinations(names, 2)]
    if len(pairs) > MAX_PAIRS:
        pairs = [(names[0], other) for other in names[1:]]
    differences = []
    for better, other in pairs:
        first, second = (values_of(records, name, metric) for name in (better, other))
        common = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
        differences.append({"configuration": better, "minus": other, **summary_of(common)})
    return differences


def summary_of(values: Sequence[float]) -> dict[str, Any]:
    """Return the fields of a `Summary`; without values, n = 0 and None."""
    return asdict(summarize(values)) if values else {"n": 0, "mean": None, "sd": None, "interval_95": None}


def format_value(value: Any) -> str:
    """Format the value of a setting, with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_runs(records: Sequence[dict[str, Any]], names: Sequence[str], metric: str) -> Figure:
    """Draw every run of a study as a point, and the mean of each configuration as a line."""
    figure = Figure(figsize=(7, 0.8 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        values = 100 * np.array([*values_of(records, name, metric).values()])
        # Equal values would hide each other.
        heights = row + np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.full(len(values), row)
        axes.plot(values, heights, "o", color=plots.TRAINING, markersize=4)
        if len(values):
            axes.plot([values.mean()] * 2, [row - 0.32, row + 0.32], color=plots.VALIDATION)
    axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    axes.set_xlabel(f"{METRICS[metric]} in %")
    axes.grid(alpha=0.3, axis="x")
    hide_spines(axes)
    return figure


def draw_search(configurations: Sequence[Mapping[str, Any]], ranges: Sequence[Range], metric: str) -> Figure:
    """Draw the accuracy of every trial of a search against each of its settings."""
    columns = min(3, len(ranges))
    rows = math.ceil(len(ranges) / columns)
    figure = Figure(figsize=(0.6 + 3 * columns, 0.4 + 2.4 * rows), layout="constrained")
    trials = [row for row in configurations if row[metric]["mean"] is not None]
    accuracies = [100 * row[metric]["mean"] for row in trials]
    for each, axes in itertools.zip_longest(ranges, figure.subplots(rows, columns, squeeze=False, sharey=True).flat):
        if each is None:
            axes.set_axis_off()
            continue
        values = [row["settings"][each.name] for row in trials]
        names = [*map(str, each.choices)]
        positions = [names.index(str(value)) for value in values] if names else values
        axes.plot(positions, accuracies, "o", color=plots.TRAINING, markersize=4)
        axes.plot(positions[:1], accuracies[:1], "o", color=plots.VALIDATION)  # the best
        if each.log:
            axes.set_xscale("log")
        if names:
            axes.set(xticks=range(len(names)), xticklabels=names, xlim=(-0.5, len(names) - 0.5))
        axes.set_xlabel(each.name)
        axes.grid(alpha=0.3)
        hide_spines(axes)
    figure.supylabel(f"{METRICS[metric]} in %", size="medium")
    return figure


def write_html(path: Path, folder: Path, plan: StudyPlan, summary: Mapping[str, Any], command: str) -> None:
    """Write the result as an HTML page that needs no other file and no network."""
    names = [row["configuration"] for row in summary["configurations"]]
    if plan.search:
        figure = draw_search(summary["configurations"], plan.search.ranges, summary["metric"])
    else:
        figure = draw_runs(summary["runs"], names, summary["metric"])
    page = render(
        "study.html",
        {"points": lambda value: "-" if value is None else f"{100 * value:.2f}", "value": format_value},
        name=folder.resolve().name,
        plan=plan,
        summary=summary,
        metric=METRICS[summary["metric"]],
        figure=plots.svg(figure),
        command=command,
    )
    write_atomic(path, page.encode())
