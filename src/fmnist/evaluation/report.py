"""The report of a run: one HTML file with everything inside."""

import base64
import shlex
from typing import Any

import jinja2
from matplotlib.figure import Figure

from fmnist import plots
from fmnist.config import PRESETS, Config
from fmnist.data.dataset import Dataset
from fmnist.runs import run as runs


def render(run: runs.Run, evaluation: dict[str, Any], dataset: Dataset) -> str:
    """Write the report of an evaluated run.

    Args:
        run: the finished run.
        evaluation: what `evaluate` measured.
        dataset: the data that it was measured on.

    Returns:
        HTML that needs no other file and no network.
    """
    class_names = dataset.class_names
    mistakes, samples = evaluation["mistakes"], evaluation["samples"]

    def images_of(records: list[dict[str, Any]]) -> Any:
        return dataset.test_images[[record["index"] for record in records]]

    captions = [
        f"{record['predicted']}, {100 * record['probability']:.0f} %\ntrue: {record['true']}" for record in mistakes
    ]
    figures = {
        "samples": plots.samples(images_of(samples), samples, class_names),
        "confusion": plots.confusion(evaluation["confusion"], class_names),
    }
    if history := run.history():
        figures["curves"] = plots.training_curves(history)
    if mistakes:
        figures["mistakes"] = plots.gallery(images_of(mistakes), captions)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fmnist.evaluation", ""), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["percent"] = lambda share, digits=2: f"{100 * share:.{digits}f} %"
    return environment.get_template("report.html").render(
        run=run,
        evaluation=evaluation,
        manifest=run.manifest(),
        environment=run.environment(),
        history=history,
        dataset=dataset,
        hardest=min((row for row in evaluation["per_class"] if row["num_images"]), key=lambda row: row["f1"]),
        confusions=largest_confusions(evaluation["confusion"], class_names),
        figures={name: _data_url(figure) for name, figure in figures.items()},
        command=train_command(run),
    )


def largest_confusions(matrix: list[list[int]], class_names: tuple[str, ...], most: int = 3) -> list[str]:
    """Say which classes are most often taken for which, most frequent first."""
    pairs = [
        (count, true, predicted)
        for true, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    return [
        f"{class_names[true]} taken for {class_names[predicted]} ({count} times)"
        for count, true, predicted in sorted(pairs, key=lambda pair: -pair[0])[:most]
    ]


def train_command(run: runs.Run) -> str:
    """Give the command that trains the same again, or the line of Python where no command does."""
    config = run.config
    flags = {"seed": config.seed, "epochs": config.epochs, "full": config.full, "data": config.data}
    if config.preset not in PRESETS or config != Config.from_preset(config.preset, **flags):
        return f"fmnist.train(fmnist.{config!r})"
    words = ["fmnist", "train", "--preset", config.preset, "--epochs", str(config.epochs), "--seed", str(config.seed)]
    words += ["--full"] if config.full else []
    words += ["--data", config.data] if config.data else []
    return shlex.join(words)


def _data_url(figure: Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(plots.png(figure)).decode()
