"""The report of an evaluated run: one HTML file with everything inside."""

import base64
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from fmnist import plots
from fmnist.config import PRESETS, Config
from fmnist.data.dataset import Dataset
from fmnist.errors import quote
from fmnist.runs.history import History
from fmnist.runs.run import Run
from fmnist.runs.schemas import Environment, Manifest


def render_report(
    run: Run,
    manifest: Manifest,
    environment: Environment,
    history: History,
    evaluation: dict[str, Any],
    dataset: Dataset,
) -> str:
    """Return the report of an evaluated run as HTML that needs no other file and no network.

    Args:
        run: the finished run.
        manifest: of the run.
        environment: of the run.
        history: of the run; without rows there are no curves.
        evaluation: as `evaluate` returns it.
        dataset: the data set that the run was evaluated on.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("fmnist.evaluation", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["percent"] = lambda fraction, digits=2: f"{100 * fraction:.{digits}f} %"
    templates.filters["with_commas"] = "{:,}".format
    per_class = [row for row in evaluation["per_class"] if row["num_images"]]
    return templates.get_template("report.html").render(
        run=run,
        manifest=manifest,
        environment=environment,
        evaluation=evaluation,
        dataset=dataset,
        figures={name: _data_url(figure) for name, figure in _draw_figures(history, evaluation, dataset).items()},
        hardest=min(per_class, key=lambda row: row["f1"]),
        confusions=most_frequent_confusions(evaluation["confusion"], dataset.class_names),
        train_command=train_command(run.config),
        evaluate_command=f"fmnist evaluate {quote(evaluation['run'])} --seed {evaluation['samples_seed']}",
    )


def _draw_figures(history: History, evaluation: dict[str, Any], dataset: Dataset) -> dict[str, Figure]:
    """Draw the figures of the report by name. Without history no curves, and no mistakes if there are none."""
    samples, mistakes = evaluation["samples"], evaluation["mistakes"]
    figures = {
        "samples": plots.samples(_images(samples, dataset), samples, dataset.class_names),
        "confusion": plots.confusion(evaluation["confusion"], dataset.class_names),
    }
    if history:
        figures["curves"] = plots.training_curves(history)
    if mistakes:
        captions = [
            f"{record['predicted']}, {100 * record['probability']:.0f} %\ntrue: {record['true']}" for record in mistakes
        ]
        figures["mistakes"] = plots.gallery(_images(mistakes, dataset), captions)
    return figures


def _images(records: list[dict[str, Any]], dataset: Dataset) -> np.ndarray:
    return dataset.test_images[[record["index"] for record in records]]


def _data_url(figure: Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(plots.png(figure)).decode()


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


def train_command(config: Config) -> str:
    """Return the command that trains a configuration, or a line of Python if no command can express it."""
    flags = {"seed": config.seed, "epochs": config.epochs, "full": config.full, "data": config.data}
    if config.preset not in PRESETS or config != Config.from_preset(config.preset, **flags):
        return f"fmnist.train(fmnist.{config!r})"
    words = ["fmnist", "train", "--preset", config.preset, "--epochs", str(config.epochs), "--seed", str(config.seed)]
    words += ["--full"] if config.full else []
    words += ["--data", config.data] if config.data else []
    return " ".join(map(quote, words))
