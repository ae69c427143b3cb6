"""The result of a study: every run, each configuration's mean and spread, and paired differences."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from fmnist import plots
from fmnist.drawing import hide_spines
from fmnist.files import write_atomic
from fmnist.studies.plan import StudyPlan
from fmnist.studies.study import values_of

CONFIDENCE = 0.95
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
    names = [each.name for each in plan.configurations]
    configurations: list[dict[str, Any]] = [
        {
            "configuration": name,
            **{each: summarize([*values_of(records, name, each).values()]) for each in METRICS},
            "train_seconds": summarize([*values_of(records, name, "train_seconds").values()]),
        }
        for name in names
    ]
    configurations.sort(key=lambda row: -(row[metric]["mean"] or 0))
    return {
        "metric": metric,
        "test": test,
        "planned": len(records),
        "failed": sum(record["error"] is not None for record in records),
        "configurations": configurations,
        "differences": compare_configurations(records, [row["configuration"] for row in configurations], metric),
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
        differences.append({"configuration": better, "minus": other, **summarize(common)})
    return differences


def summarize(values: Sequence[float]) -> dict[str, Any]:
    """Return number, mean, standard deviation (of a sample) and 95 % t-interval of the mean; None where undefined."""
    n = len(values)
    mean = float(np.mean(values)) if n else None
    sd = float(np.std(values, ddof=1)) if n > 1 else None
    interval = None
    if mean is not None and sd is not None:
        half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
        interval = [mean - half_width, mean + half_width]
    return {"n": n, "mean": mean, "sd": sd, "interval_95": interval}


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


def write_html(path: Path, folder: Path, plan: StudyPlan, summary: Mapping[str, Any], command: str) -> None:
    """Write the result as an HTML page that needs no other file and no network."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("fmnist.studies", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["percent"] = lambda value, digits=2: "-" if value is None else f"{100 * value:.{digits}f}"
    names = [row["configuration"] for row in summary["configurations"]]
    figure = draw_runs(summary["runs"], names, summary["metric"])
    page = templates.get_template("study.html").render(
        name=folder.resolve().name,
        plan=plan,
        summary=summary,
        metric=METRICS[summary["metric"]],
        figure=plots.svg(figure),
        command=command,
    )
    write_atomic(path, page.encode())
