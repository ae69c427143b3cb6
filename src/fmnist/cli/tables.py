"""Results as tables and sentences for the command line."""

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from fmnist.cli.terminal import table

if TYPE_CHECKING:
    from fmnist.doctor import Check
    from fmnist.inference.prediction import Prediction
    from fmnist.runs.schemas import AdaptedRecord, Int8Record

MIN_COLUMNS = 10
"""Classes whose confusion matrix is printed however narrow the console is."""
NUM_CONFUSIONS = 15
STATUS_COLORS = {"ok": "green", "warning": "yellow", "error": "bold red"}


def parts_table(summary: dict[str, Any]) -> Table:
    """Build the table of the training and test part from what `summarize` returns."""
    rows = [
        [name, " x ".join(map(str, part["shape"])), part["dtype"], f"{part['min']} to {part['max']}",
         f"{part['mean']:.4f}", f"{part['std']:.4f}"]
        for name, part in summary["parts"].items()
    ]  # fmt: skip
    return table("Parts", ["part", "shape", "dtype", "pixels", "mean", "std"], rows)


def classes_table(summary: dict[str, Any]) -> Table:
    """Build the table of the classes from what `summarize` returns."""
    counts = (summary["parts"][part]["class_counts"] for part in ("train", "test"))
    rows = [
        [row["label"], f"{train:,}", f"{test:,}", f"{row['mean']:.3f}", f"{100 * row['nonzero_fraction']:.1f} %"]
        for row, train, test in zip(summary["classes"], *counts, strict=True)
    ]
    return table("Classes", ["class", "training images", "test images", "mean pixel", "pixels above 0"], rows)


def scores_table(title: str, evaluation: dict[str, Any]) -> Table:
    """Build the table of the overall scores of an evaluation."""
    low, high = evaluation["accuracy_interval_95"]
    macro = ", ".join(f"{evaluation[name]:.2%}" for name in ("precision_macro", "recall_macro", "f1_macro"))
    rows = [
        ["accuracy", f"{evaluation['accuracy']:.2%}"],
        ["95 % interval", f"{low:.2%} to {high:.2%}"],
        ["accuracy, single view", f"{evaluation['accuracy_single_view']:.2%}"],
        ["precision, recall, F1 (macro)", macro],
        ["Keras' precision, recall", f"{evaluation['keras_precision']:.2%}, {evaluation['keras_recall']:.2%}"],
        ["expected calibration error", f"{evaluation['ece']:.2%}"],
    ]
    return table(title, ["", ""], rows)


def model_table(title: str, result: dict[str, Any]) -> Table:
    """Build the table of the overall scores of a model of anybody, from what `score` returns."""
    low, high = result["accuracy_interval_95"]
    rows = [
        ["accuracy", f"{result['accuracy']:.2%}"],
        ["95 % interval", f"{low:.2%} to {high:.2%}"],
        [
            "precision, recall, F1 (macro)",
            ", ".join(f"{result[name]:.2%}" for name in ("precision_macro", "recall_macro", "f1_macro")),
        ],
        ["images per second", f"{result['images_per_second']:,.0f} on {result['threads']} threads"],
    ]
    for title_of_row, name in (("expected calibration error", "ece"), ("with the temperature", "ece_calibrated")):
        rows += [[title_of_row, f"{result[name]:.2%}"]] if result[name] is not None else []
    rows += [["bytes", f"{result['bytes']:,}"]] if result["bytes"] is not None else []
    return table(title, ["", ""], rows)


def class_scores_table(evaluation: dict[str, Any]) -> Table:
    """Build the table of the scores of each class of an evaluation."""
    rows = [
        [row["label"], *(f"{row[name]:.1%}" for name in ("precision", "recall", "f1"))]
        for row in evaluation["per_class"]
    ]
    return table("Classes", ["class", "precision", "recall", "F1"], rows)


def confusion_table(evaluation: dict[str, Any], width: int) -> Table:
    """Build the confusion matrix of an evaluation as a table, or, for many classes, that of the frequent confusions.

    Args:
        evaluation: as `evaluate` returns it.
        width: characters in a line of the console.
    """
    names, matrix = evaluation["class_names"], evaluation["confusion"]
    digits = len(str(max(map(max, matrix))))
    if len(names) > MIN_COLUMNS and (digits + 3) * len(names) + max(map(len, names)) > width:
        return _frequent_confusions_table(names, matrix)
    rows = [
        [f"{index} {name}", *map(str, counts)] for index, (name, counts) in enumerate(zip(names, matrix, strict=True))
    ]
    return table("Confusion (rows true, columns predicted)", ["", *map(str, range(len(names)))], rows)


def _frequent_confusions_table(names: list[str], matrix: list[list[int]]) -> Table:
    pairs = [
        (count, true, predicted)
        for true, row in enumerate(matrix)
        for predicted, count in enumerate(row)
        if true != predicted and count
    ]
    rows = [
        [f"{true} {names[true]}", f"{predicted} {names[predicted]}", f"{count} of {sum(matrix[true])}"]
        for count, true, predicted in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:NUM_CONFUSIONS]
    ]
    return table("Most frequent confusions", ["true", "predicted", "images"], rows)


def sample_sentence(sample: dict[str, Any]) -> str:
    """Format the prediction for a random test image as a sentence."""
    verdict = "right" if sample["predicted"] == sample["true"] else "wrong"
    return (
        f"Random test image {sample['index']}: predicted {sample['predicted']} ({sample['probability']:.1%}), "
        f"true {sample['true']}: {verdict}"
    )


def predictions_table(predictions: list[tuple[str, "Prediction"]]) -> Table:
    """Build the table of predictions, each with the name of its file."""
    rows = [
        [file, prediction.label, f"{prediction.probability:.1%}", prediction.kind, _decision(prediction)]
        for file, prediction in predictions
    ]
    return table(None, ["file", "label", "probability", "taken as", "accepted"], rows)


def _decision(prediction: "Prediction") -> str:
    if prediction.accepted is None:
        return "no rejection rule"
    return "yes" if prediction.accepted else f"not sure: {prediction.reason}"


def int8_sentence(record: "Int8Record") -> str:
    """Format what quantization costs as a sentence."""
    same = f"the same class as the float graph for {record.same_top1:.2%} of {record.num_images:,} images"
    if record.accuracy is None:
        return f"{record.bytes:,} bytes; {same} ({record.compared_on})"
    accuracy = f"validation accuracy {record.accuracy:.2%}, float {record.accuracy_float:.2%}"
    return f"{record.bytes:,} bytes; {accuracy}; {same}"


def adapted_sentences(record: "AdaptedRecord") -> list[str]:
    """Format the scores of an adapted model as sentences."""
    low, high = record.accuracy_interval_95
    found = [
        f"Cross-validation: {record.accuracy:.1%} right (95 % interval {low:.1%} to {high:.1%}), mean of the classes "
        f"{record.recall_macro:.1%}"
    ]
    if record.accuracy_accepted is None:
        return [*found, 'The answer is always "not sure": even the most confident ones are wrong too often']
    share = f"{record.accepted:.1%} of the photos are accepted, {record.accuracy_accepted:.1%} of these rightly"
    return [*found, f"Confidence threshold {record.threshold:.3f}: {share}"]


def checks_table(checks: "list[Check]") -> Table:
    """Build the table of `fmnist doctor`."""
    rows: list[list[str | Text]] = [
        [check.name, Text(check.status, STATUS_COLORS[check.status]), check.found, check.hint or ""] for check in checks
    ]
    return table(None, ["", "status", "found", "hint"], rows, justify="left")
