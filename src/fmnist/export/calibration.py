"""Calibration: the temperature of the probabilities, and the rule that decides what is "not sure".

Both are fitted on validation images. A run on all training images has none, and takes them from a run with the same
settings that has.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from fmnist import metrics
from fmnist.data.dataset import Dataset, Split, evenly_spaced
from fmnist.errors import FmnistError, quote
from fmnist.export.graph import LOG_EPSILON, CompleteGraph
from fmnist.inference.rejection import RejectionRule
from fmnist.runs.folders import finished_runs
from fmnist.runs.run import Run
from fmnist.runs.schemas import RejectionRuleRecord, ValidationRecord

log = logging.getLogger("fmnist")

NUM_FITTED_IMAGES = 10_000
"""Training images from which the class means and covariance of the features are estimated: a thousand per class."""

Outputs = Callable[..., dict[str, np.ndarray]]
"""A function like `Classifier.outputs`."""


@dataclass(frozen=True)
class Calibration:
    """What is fitted after training. The fields have the meaning of those in the manifest."""

    temperature: float
    calibrated_by: str | None
    validation: ValidationRecord | None
    rejection_rule: RejectionRuleRecord | None


def calibrate(run: Run, network: keras.Sequential, split: Split, dataset: Dataset) -> Calibration:
    """Fit temperature and rejection rule on the validation images, or take them from another run.

    The distribution of the features is estimated on training images in both cases. Scale and threshold are what needs
    images that the network was not trained on.

    Args:
        run: the trained run.
        network: its network, in float32.
        split: its training and validation images.
        dataset: its data.
    """
    views, num_classes = run.config.tta_views, len(dataset.class_names)
    graph, single_view = (CompleteGraph(network, each, 1.0, num_classes) for each in (views, views[:1]))
    rule = fit_rejection_rule(single_view.numpy_outputs, split)
    if len(split.val_images):
        return _fit_on_validation(run, graph, rule, split)
    other = find_calibration_run(run, dataset.sha256)
    if other is None:
        log.warning(
            "probabilities are not calibrated: a run on all training images takes temperature and threshold from a "
            "finished run with the same settings and a validation split, and %s has none; train one without --full, "
            "then `fmnist export %s`",
            run.folder.absolute().parent,
            quote(run.folder),
        )
        return Calibration(1.0, None, None, None)
    manifest = other.manifest()
    assert manifest.rejection_rule
    fitted = RejectionRule.from_record(manifest.rejection_rule)
    rule = replace(rule, midpoint=fitted.midpoint, scale=fitted.scale, threshold=fitted.threshold)
    return Calibration(manifest.temperature, other.name, None, rule.to_record())


def fit_rejection_rule(outputs: Outputs, split: Split) -> RejectionRule:
    """Estimate where the classes are among a model's features, from training images. Scale and threshold are unset."""
    indices = evenly_spaced(len(split.train_images), NUM_FITTED_IMAGES)
    features = outputs(split.train_images[indices])["features"]
    return RejectionRule.fit(features, split.train_labels[indices])


def _fit_on_validation(run: Run, graph: CompleteGraph, rule: RejectionRule, split: Split) -> Calibration:
    from scipy.special import softmax

    outputs = graph.numpy_outputs(split.val_images)
    log_probabilities = np.log(outputs["probabilities"] + LOG_EPSILON)
    temperature = metrics.fit_temperature(log_probabilities, split.val_labels)
    rule = rule.calibrated({**outputs, "probabilities": softmax(log_probabilities / temperature, axis=1)})
    validation = ValidationRecord(
        num_images=len(split.val_images),
        accuracy=float((log_probabilities.argmax(axis=1) == split.val_labels).mean()),
        cross_entropy=metrics.cross_entropy(log_probabilities / temperature, split.val_labels),
        recall_macro=metrics.recall_macro(log_probabilities.argmax(axis=1), split.val_labels),
    )
    return Calibration(temperature, run.name, validation, rule.to_record())


def find_calibration_run(run: Run, data_sha256: dict[str, str]) -> Run | None:
    """Find the newest finished run beside a run that differs only in seed and validation split.

    A user's own optimizer may differ too, because its schedule counts the steps, which are more with all images.

    Args:
        run: a run on all training images.
        data_sha256: hashes of its data; the other run must have been trained on the same.
    """

    def settings(other: Run) -> dict[str, Any]:
        custom = [each for each in other.custom if each.part != "optimizer"]
        return {**other.config.to_json(), "full": None, "seed": None, "data": None, "photos": None, "custom": custom}

    def is_suitable(other: Run) -> bool:
        if other.config.full or settings(other) != settings(run):
            return False
        try:
            return (
                other.status == "finished"
                and other.manifest().rejection_rule is not None
                and other.environment().data_sha256 == data_sha256
            )
        except FmnistError:
            return False

    suitable = [other for other in finished_runs(run.folder.absolute().parent) if is_suitable(other)]
    return max(suitable, key=lambda other: other.created, default=None)
