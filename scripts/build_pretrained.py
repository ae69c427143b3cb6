"""Train the small model that comes with the package: python scripts/build_pretrained.py.

It is a preset with a validation split and seed 0. Of the run, only what predictions and provenance need is kept:
`config.json`, `environment.json`, `history.csv`, `manifest.json` and the int8 graph. No test image is used.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec.structs import replace

import fmnist
from fmnist.config import Config
from fmnist.data.dataset import Dataset
from fmnist.documents import write_document
from fmnist.export.calibration import fit_rejection_rule
from fmnist.export.quantize import quantize_run
from fmnist.inference.rejection import RejectionRule
from fmnist.runs.run import INT8_FILE, PRETRAINED_FOLDER, Run
from fmnist.runs.schemas import Manifest, Provenance

CONFIG = Config.from_preset("photo", seed=0)
KEPT_FILES = ("config.json", "environment.json", "history.csv", INT8_FILE)
MAX_BYTES = 150_000
"""Limit for the graph: the package stays small."""


def main() -> None:
    """Train and write the pretrained model, and print its size and validation accuracy."""
    manifest = build(CONFIG, fmnist.load(), current_commit(), PRETRAINED_FOLDER)
    assert manifest.int8
    print(f"{manifest.int8.bytes} bytes; validation accuracy {manifest.int8.accuracy:.2%}")


def build(config: Config, dataset: Dataset, commit: str, folder: Path) -> Manifest:
    """Train and quantize a network, and write the files to keep.

    Args:
        config: what to train, with a validation split.
        dataset: the data.
        commit: commit of the working tree, for the provenance.
        folder: is created if it is missing; its files are replaced.

    Returns:
        The manifest that was written. Its rejection rule is fitted on the int8 graph.
    """
    provenance = Provenance(commit=commit, preset=config.preset, seed=config.seed, data_sha256=dataset.sha256)
    with tempfile.TemporaryDirectory(prefix="fmnist-") as scratch:
        run = fmnist.train(config, dataset=dataset, folder=scratch)
        quantize_run(run, dataset)
        rule = fit_rejection_rule_on_int8(run, dataset)
        manifest = replace(run.manifest(), rejection_rule=rule.to_record(), provenance=provenance)
        if (size := (run.folder / INT8_FILE).stat().st_size) > MAX_BYTES:
            sys.exit(f"{INT8_FILE} has {size} bytes; expected at most {MAX_BYTES}")
        folder.mkdir(exist_ok=True)
        for name in KEPT_FILES:
            shutil.copyfile(run.folder / name, folder / name)
    write_document(folder / "manifest.json", manifest)
    return manifest


def fit_rejection_rule_on_int8(run: Run, dataset: Dataset) -> RejectionRule:
    """Fit the rejection rule as the export does, but on the int8 graph, because quantization changes the features."""
    classifier = fmnist.Classifier.load(run, int8=True)
    images = run.split(dataset)
    outputs = classifier.outputs(images.val_images)
    rule = fit_rejection_rule(classifier.outputs, images)
    return rule.calibrated(outputs["probabilities"], outputs["features"])


def current_commit() -> str:
    """Return the commit of the working tree, with the suffix `-dirty` if tracked files have changed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
