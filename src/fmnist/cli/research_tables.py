"""Lists and comparisons of runs as tables and sentences for the command line."""

from typing import Any

from rich.filesize import decimal
from rich.table import Table

from fmnist.cli.terminal import table

NUM_CLASSES = 5
"""Classes in a comparison: those whose recalls differ most."""
NUM_IMAGES = 10
"""Indices of images in a sentence."""


def runs_table(rows: list[dict[str, Any]]) -> Table:
    """Build the table of runs from what `describe_run` returns."""
    columns = ["run", "preset", "data", "seed", "status", "validation", "test", "training", "size"]
    cells = [
        [
            row["run"],
            *("" if row[name] is None else str(row[name]) for name in ("preset", "data", "seed", "status")),
            *("" if row[name] is None else f"{row[name]:.2%}" for name in ("val_accuracy", "test_accuracy")),
            "" if row["train_seconds"] is None else f"{row['train_seconds']:,.0f} s",
            decimal(row["bytes"]),
        ]
        for row in rows
    ]
    return table(None, columns, cells)


def comparison_tables(comparison: dict[str, Any]) -> list[Table]:
    """Build the tables of a comparison, from what `compare` returns. Those that have nothing to tell are left out."""
    configurations = comparison["configurations"]
    tables = [_runs_table(comparison), *_recall_tables(comparison)]
    if any(len(row["seeds"]) > 1 for row in configurations):
        tables.append(_configurations_table(configurations))
        tables += [_differences_table(configurations)] if len(configurations) > 1 else []
    if len(configurations) > 1:
        tables.append(_settings_table(configurations))
    return tables


def _runs_table(comparison: dict[str, Any]) -> Table:
    from fmnist.evaluation.compare import format_p_value

    rows = []
    for run, pair in zip(comparison["runs"], [None, *comparison["pairs"]], strict=True):
        compared = [_points(pair["difference"], "+.2f"), format_p_value(pair["p_value"])] if pair else ["", ""]
        interval = _interval(run["accuracy_interval_95"], ".2f")
        cells = [run["run"], f"{run['accuracy']:.2%}", interval, *compared, str(run["seed"])]
        rows.append([*cells, str(run["configuration"])])
    columns = ["run", "accuracy", "95 % interval", "difference", "p", "seed", "config."]
    return table(f"{len(rows)} runs on the same {comparison['num_images']:,} test images", columns, rows)


def _recall_tables(comparison: dict[str, Any]) -> list[Table]:
    """Build the table of the classes with different recalls. Returns no table if there are none."""
    recalls = list(zip(*(run["recall"] for run in comparison["runs"]), strict=True))
    classes = [index for index, values in enumerate(recalls) if len(set(values)) > 1]
    shown = sorted(classes, key=lambda index: min(recalls[index]) - max(recalls[index]))[:NUM_CLASSES]
    rows = [[run["run"], *(f"{run['recall'][index]:.1%}" for index in shown)] for run in comparison["runs"]]
    names = [comparison["class_names"][index] for index in shown]
    return [table("Recall of the classes that differ most", ["run", *names], rows)] if shown else []


def _configurations_table(configurations: list[dict[str, Any]]) -> Table:
    rows = []
    for row in configurations:
        accuracy = row["accuracy"]
        spread = [_points(accuracy["sd"], ".2f"), _interval(accuracy["interval_95"], ".2f")]
        rows.append([str(row["number"]), str(len(row["seeds"])), f"{accuracy['mean']:.2%}", *spread])
    return table("Configurations", ["config.", "seeds", "mean", "sd", "95 % interval"], rows)


def _differences_table(configurations: list[dict[str, Any]]) -> Table:
    rows = []
    for row in configurations[1:]:
        difference = row["difference"] or {"mean": None, "sd": None, "interval_95": None}
        spread = [_points(difference["sd"], ".2f"), _interval(difference["interval_95"], "+.2f")]
        rows.append([str(row["number"]), str(len(row["common_seeds"])), _points(difference["mean"], "+.2f"), *spread])
    columns = ["config.", "common seeds", "mean", "sd", "95 % interval"]
    return table("Differences to configuration 1, seed by seed", columns, rows)


def _points(fraction: float | None, text_format: str) -> str:
    return "" if fraction is None else format(100 * fraction, text_format)


def _interval(interval: tuple[float, float] | None, text_format: str) -> str:
    return " to ".join(_points(end, text_format) for end in interval or ())


def _settings_table(configurations: list[dict[str, Any]]) -> Table:
    from fmnist.evaluation.compare import format_setting

    names = configurations[0]["settings"]
    rows = [[name, *(format_setting(row["settings"][name]) for row in configurations)] for name in names]
    columns = ["setting", *(f"config. {row['number']}" for row in configurations)]
    return table("Settings that differ", columns, rows)


def comparison_sentences(comparison: dict[str, Any]) -> list[str]:
    """Format what the tables of a comparison leave open as sentences."""
    same = "All settings but the seed are the same."
    sentences = ["Differences are in percentage points, p is of McNemar's exact test."]
    sentences += [same] if len(comparison["configurations"]) == 1 else []
    for pair in comparison["pairs"]:
        first, second = pair["first"], pair["second"]
        sentences.append(f"Right in {second} and wrong in {first}: {_list_images(pair['only_second_right'])}")
        sentences.append(f"Right in {first} and wrong in {second}: {_list_images(pair['only_first_right'])}")
    return sentences


def _list_images(indices: list[int]) -> str:
    count = f"{len(indices):,} test image{'' if len(indices) == 1 else 's'}"
    if not indices:
        return count
    return f"{count}: {', '.join(map(str, indices[:NUM_IMAGES]))}{', ...' if len(indices) > NUM_IMAGES else ''}"
