"""Make the small model that comes with the package: python box/build.py.

It trains a preset on the split, with seed 0, and keeps of the run what is needed to ask it and to say where it comes
from: `config.json`, `environment.json`, `history.csv`, `manifest.json` and the int8 graph. No test image is looked at.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fmnist
from fmnist import atomic
from fmnist.data import dataset as data
from fmnist.export import quantize as quantise
from fmnist.export.onnx import NUM_FITTED
from fmnist.inference.rejection import Acceptance
from fmnist.runs import run as runs

PRESET = "photo"
KEPT = ("config.json", "environment.json", "history.csv", runs.INT8_FILE)
MAX_BYTES = 150_000


def main() -> None:
    """Train, quantise, fit the acceptance to the int8 graph's own answers, and pack."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    dataset = fmnist.load()
    with tempfile.TemporaryDirectory(prefix="fmnist-") as folder:
        run = fmnist.train(fmnist.Config.from_preset(PRESET, seed=0), dataset=dataset, folder=folder)
        manifest = quantise.finish(run, dataset)
        acceptance = fit_acceptance(run, dataset)
        if (size := manifest["int8"]["bytes"]) > MAX_BYTES:
            sys.exit(f"{runs.INT8_FILE} has {size} bytes; expected at most {MAX_BYTES}")
        runs.PACKAGED_FOLDER.mkdir(exist_ok=True)
        for name in KEPT:
            shutil.copyfile(run.folder / name, runs.PACKAGED_FOLDER / name)
    made_by = {"commit": commit, "preset": PRESET, "seed": run.config.seed, "data_sha256": dataset.sha256}
    accepting = {"acceptance": acceptance.to_json(), "acceptance_threshold": acceptance.threshold}
    atomic.write_json(runs.PACKAGED_FOLDER / "manifest.json", {**manifest, **accepting, "made_by": made_by})
    print(f"{size} bytes; validation accuracy {manifest['int8']['accuracy']:.2%}")


def fit_acceptance(run: runs.Run, dataset: data.Dataset) -> Acceptance:
    """Fit the acceptance as the export does, but to the int8 graph, whose features are rounded."""
    classifier = fmnist.Classifier.load(run, int8=True)
    parts = data.split(dataset, run.config.seed)
    fitted = data.spread(len(parts.train_images), NUM_FITTED)
    known = classifier.outputs(parts.train_images[fitted], single_view=True)["features"]
    answers = classifier.outputs(parts.val_images)
    return Acceptance.fit(known, parts.train_labels[fitted]).calibrated(answers["probabilities"], answers["features"])


if __name__ == "__main__":
    main()
