"""Train the models that come with the package: python scripts/build_pretrained.py [FOLDER].

The network for 28x28 images is the preset `photo` with a validation split and seed 0. Of the run, only what predictions
and provenance need is kept: `config.json`, `environment.json`, `history.csv`, `manifest.json` and the int8 graph. No
test image is used.

With a folder of photos, as scripts/build_photos.py describes it, the color network is trained too: `color.onnx` and
`photos.json`. It needs the photos themselves, because the repository has them in 28x28 gray only.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import color_network
import efficientnet
import numpy as np
from build_photos import cut_grounds, draw_things, read_folder
from msgspec.structs import replace
from other_things import TRAINED_ON

import fmnist
from fmnist.config import Config
from fmnist.data.dataset import Dataset
from fmnist.data.photos import PHOTOS_FILE
from fmnist.documents import write_document
from fmnist.export.calibration import fit_rejection_rule
from fmnist.export.quantize import quantize_run
from fmnist.files import sha256, write_atomic
from fmnist.inference.rejection import RejectionRule
from fmnist.runs.run import INT8_FILE, PRETRAINED_FOLDER, Run
from fmnist.runs.schemas import COLOR_FILE, PHOTO_MODEL_FILE, Manifest, PhotoModelRecord, Provenance

CONFIG = Config.from_preset("photo", seed=0)
KEPT_FILES = ("config.json", "environment.json", "history.csv", INT8_FILE)
MAX_BYTES = 150_000
"""Limit for the graph: the package stays small."""
MAX_COLOR_BYTES = 4_500_000
COLOR_WEIGHT = 0.7
"""Of the color network's probabilities, chosen by cross-validation."""
CHOSEN = Path(__file__).parents[1] / "benchmarks" / "results" / "photos_crossvalidation.json"
"""Result of benchmarks/crossvalidate_photos.py: temperature and threshold for each weight."""


def main() -> None:
    """Train and write the pretrained models, and print their sizes and the validation accuracy."""
    commit = current_commit()
    manifest = build(CONFIG, fmnist.load(), commit, PRETRAINED_FOLDER)
    assert manifest.int8
    print(f"{manifest.int8.bytes} bytes; validation accuracy {manifest.int8.accuracy:.2%}", flush=True)
    if len(sys.argv) > 1:
        print(f"{build_color_network(Path(sys.argv[1]), commit, PRETRAINED_FOLDER)} bytes for photos")


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


def build_color_network(photo_folder: Path, commit: str, folder: Path) -> int:
    """Train the color network on the photos that are not held out, and write it. Returns its size in bytes."""
    photos = read_folder(photo_folder)
    things, kinds = draw_things(TRAINED_ON, color_network.NUM_THINGS, cut_grounds(photos))
    used = np.flatnonzero(~photos.is_held_out)
    labels = color_network.indices_of([*photos.category[used], *kinds])
    views = np.stack([*(photos.reduced[index].views for index in used), *(thing.views for thing in things)])
    weights = efficientnet.download_weights()
    network = color_network.train(weights, color_network.compute_features(weights, views), labels)
    content = color_network.export(weights, network)
    if len(content) > MAX_COLOR_BYTES:
        sys.exit(f"{COLOR_FILE} has {len(content)} bytes; expected at most {MAX_COLOR_BYTES}")
    chosen = json.loads(CHOSEN.read_text(encoding="utf-8"))["color_weight"][str(COLOR_WEIGHT)]
    record = PhotoModelRecord(
        outputs=color_network.OUTPUTS,
        color_weight=COLOR_WEIGHT,
        temperature=chosen["temperature"],
        threshold=chosen["threshold"],
        sha256=sha256(content),
        photos_sha256=sha256(PHOTOS_FILE.read_bytes()),
        commit=commit,
    )
    write_atomic(folder / COLOR_FILE, content)
    write_document(folder / PHOTO_MODEL_FILE, record)
    return len(content)


def fit_rejection_rule_on_int8(run: Run, dataset: Dataset) -> RejectionRule:
    """Fit the rejection rule as the export does, but on the int8 graph, because quantization changes the features."""
    classifier = fmnist.Classifier.load(run, int8=True)
    images = run.split(dataset)
    rule = fit_rejection_rule(classifier.outputs, images)
    return rule.calibrated(classifier.outputs(images.val_images))


def current_commit() -> str:
    """Return the commit of the working tree, with the suffix `-dirty` if tracked files have changed."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
