"""Build docs/leaderboard.md from the result files of the benchmarks: python scripts/build_leaderboard.py.

The files of the presets are those of benchmarks/time_to_accuracy.py, the others those of benchmarks/leaderboard.py.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmnist.config import PRESETS
from fmnist.metrics import accuracy_interval
from fmnist.models.networks import build_network

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "leaderboard.md"
PRESET_FILES = ("time_to_accuracy.json", "best.json")
MAX_ROWS = 10
NUM_TEST_IMAGES = 10_000
NUM_CLASSES = 10

HEAD = """# Leaderboard

Models on Fashion-MNIST's 10,000 test images, built by `python scripts/build_leaderboard.py` from the result files
alone. Other models than the presets have the settings that their sources publish, and the defaults of their libraries
for the rest: nothing was tuned. Each was trained once on the training images, and scored once, as it is after its last
epoch, by `fmnist.score` ([scoring.md](scoring.md)).

| model | test accuracy | 95 % interval | n | parameters | textbook epochs | command |
|---|---|---|---|---|---|---|
"""
NOTES = """
- n is the number of trained models; the accuracy is their mean. The interval is Wilson's, for that accuracy on as many
  other test images.
- A textbook epoch is one epoch of the network of the preset `textbook`, by the quickest that was timed in the same
  process. It is a unit of training time, which differs less between machines than seconds.
- Forests, boosted trees and support vector machines have no number of parameters that could be compared.
"""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    title: str
    accuracy: float
    interval: tuple[float, float]
    n: int
    parameters: int | None
    textbook_epochs: float | None
    command: str
    details: str
    """Where settings and result are."""

    def to_markdown(self) -> str:
        """Return the line."""
        low, high = self.interval
        cells = (
            self.title,
            f"{self.accuracy:.2%}".replace("%", " %"),
            f"{100 * low:.2f} to {100 * high:.2f}",
            str(self.n),
            "-" if self.parameters is None else f"{self.parameters:,}",
            "-" if self.textbook_epochs is None else f"{self.textbook_epochs:.1f}",
            f"`{self.command}`",
        )
        return f"| {' | '.join(cells)} |"


def read_results(folder: Path) -> list[Row]:
    """Return a row for each result in a folder of result files, best first."""
    presets = [row for name in PRESET_FILES if (folder / name).is_file() for row in preset_rows(folder / name)]
    others = [model_row(path) for path in sorted((folder / "leaderboard").glob("*.json"))]
    return sorted(presets + others, key=lambda row: -row.accuracy)


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file. Other data and uncommitted code end the program."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not result["is_fashion_mnist"]:
        raise SystemExit(f"{path} is a result on other data than Fashion-MNIST; remove it")
    return result


def preset_rows(path: Path) -> list[Row]:
    """Return the rows of a file of benchmarks/time_to_accuracy.py."""
    result = read_result(path)
    seconds = result["textbook_epoch_seconds_min"]
    return [
        Row(
            title=f"fmnist, preset `{each['preset']}`",
            accuracy=each["accuracy_mean"],
            interval=accuracy_interval(round(each["accuracy_mean"] * NUM_TEST_IMAGES), NUM_TEST_IMAGES),
            n=each["seeds"],
            parameters=count_parameters(each["preset"]),
            textbook_epochs=each["seconds_mean"] / seconds,
            command=f"fmnist train --preset {each['preset']}{' --full' if result['full'] else ''}",
            details=f"settings and spread in [results.md](results.md). {describe_file(path, result)}",
        )
        for each in result["results"]
    ]


def count_parameters(preset: str) -> int:
    """Return the number of parameters of a preset's network."""
    return int(build_network(PRESETS[preset], NUM_CLASSES, "float32").count_params())


def model_row(path: Path) -> Row:
    """Return the row of a file of benchmarks/leaderboard.py."""
    result = read_result(path)
    low, high = result["score"]["accuracy_interval_95"]
    changed = f", {result['epochs']} epochs" if result["epochs_changed"] else ""
    return Row(
        title=result["title"] + changed,
        accuracy=result["score"]["accuracy"],
        interval=(low, high),
        n=result["n"],
        parameters=result["parameters"],
        textbook_epochs=result["textbook_epochs"],
        command=result["command"],
        details=f"{result['settings']}. Source: {result['source']}. {describe_file(path, result)}",
    )


def describe_file(path: Path, result: dict[str, Any]) -> str:
    """Return a link to a result file with its commit and processor."""
    name = path.relative_to(path.parents[1] if path.parent.name == "leaderboard" else path.parent)
    return f"[Result](../benchmarks/results/{name.as_posix()}), commit {result['commit']}, {result['processor']}"


def build_page(rows: list[Row]) -> str:
    """Return the page: the best rows as a table, and what is behind them."""
    shown, others = rows[:MAX_ROWS], rows[MAX_ROWS:]
    page = HEAD + "".join(f"{row.to_markdown()}\n" for row in shown) + NOTES
    if others:
        left_out = ", ".join(f"{row.title} ({100 * row.accuracy:.2f} %)" for row in others)
        page += f"- Left out, because the table has at most {MAX_ROWS} rows: {left_out}.\n"
    return page + "\n## Settings and results\n\n" + "".join(f"- {row.title}: {row.details}.\n" for row in rows)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--out", type=Path, default=PAGE)
    arguments = parser.parse_args()
    rows = read_results(arguments.results)
    arguments.out.write_text(build_page(rows), encoding="utf-8")
    print(f"written: {arguments.out}, {min(len(rows), MAX_ROWS)} rows")


if __name__ == "__main__":
    main()
