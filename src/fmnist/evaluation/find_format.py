"""Find out on training images in which format a model takes images."""

import warnings
from dataclasses import dataclass

import numpy as np

from fmnist.data.dataset import Dataset, evenly_spaced
from fmnist.errors import FmnistError, one_line
from fmnist.evaluation.answers import Answers, Model, best_order, compute_results, read_answers
from fmnist.inference.input_format import InputFormat
from fmnist.metrics import cross_entropy

NUM_TRIED = 500
"""Training images for which each format is tried, at least."""
NUM_TRIED_PER_CLASS = 30
NUM_COMPARED = 3_000
"""Training images for which the best formats are compared again."""
MARGIN = 0.02
"""Difference in accuracy within which formats are compared again, or the one that the model should take is kept."""
MIN_SKILL = 0.2
"""How far an accuracy has to be from that of the most frequent class, on the way to 1, to be better than chance."""


@dataclass(frozen=True)
class Trial:
    """The answers of a model for training images in one format."""

    input_format: InputFormat
    answers: Answers | None
    """None if there is a problem."""
    problem: str
    accuracy: float = 0.0
    """With the classes in the order that fits best: that is found out separately."""
    cross_entropy: float = np.inf
    """In nats; infinite for labels."""


@dataclass(frozen=True)
class FoundFormat:
    """The format of a model, and how it was found."""

    best: Trial
    images: np.ndarray
    """The training images of that trial."""
    labels: np.ndarray
    alternatives: list[Trial]
    """Other formats with nearly the same accuracy, best first."""
    num_tried: int
    """Formats."""
    is_skilled: bool
    """Whether the accuracy is much better than chance."""


def find_format(model: Model, dataset: Dataset, scaling: str | None, layout: str | None) -> FoundFormat:
    """Find the format in which a model is right about most training images; among equals, with the lowest loss.

    Args:
        model: the model.
        dataset: its training images are used.
        scaling: the only scaling to try; None tries all.
        layout: the only layout to try; None tries all.

    Raises:
        FmnistError: if the model fails in every format, none is much better than chance where there are several, or
            another one fits far better than that which the model should take.
    """
    formats = [form for form in model.formats if scaling in {None, form.scaling} and layout in {None, form.layout}]
    if not formats:
        raise FmnistError(
            f"{model.name} cannot take images with scaling {scaling or 'any'} and layout {layout or 'any'}; possible: "
            f"{'; '.join(map(str, model.formats))}"
        )
    images, labels = _training_images(dataset, max(NUM_TRIED, NUM_TRIED_PER_CLASS * len(dataset.class_names)))
    trials: list[Trial] = []
    for each in dict.fromkeys(form.layout for form in formats):
        trials += [_try(model, form, images, labels, dataset) for form in formats if form.layout == each]
        if any(_is_skilled(trial, labels) for trial in trials):
            break
    ranked = _rank(trials)
    if not ranked:
        raise FmnistError(trials[0].problem)
    is_skilled = _is_skilled(ranked[0], labels)
    if model.has_contract and scaling is None and layout is None:
        best = _keep_contract(model, trials[0], ranked[0], is_skilled)
        return FoundFormat(best, images, labels, [], len(trials), _is_skilled(best, labels))
    if len(formats) > 1 and not is_skilled:
        raise FmnistError(
            f"{model.name} is right about {ranked[0].accuracy:.0%} of {len(labels)} training images at best, which is "
            f"little better than chance; tried: {'; '.join(str(trial.input_format) for trial in trials)}. A function "
            "can convert the images to what the model takes: file.py:function"
        )
    close = _close_to_best(ranked)
    if len(close) > 1 and len(dataset.train_images) > len(images):
        images, labels = _training_images(dataset, NUM_COMPARED)
        close = _close_to_best(_rank([_try(model, trial.input_format, images, labels, dataset) for trial in close]))
        if not close:
            raise FmnistError(f"{model.name} returns wrong results for some of {len(images)} training images")
    return FoundFormat(close[0], images, labels, close[1:], len(trials), is_skilled)


def _training_images(dataset: Dataset, number: int) -> tuple[np.ndarray, np.ndarray]:
    indices = evenly_spaced(len(dataset.train_images), number)
    return dataset.train_images[indices], dataset.train_labels[indices]


def _try(model: Model, input_format: InputFormat, images: np.ndarray, labels: np.ndarray, dataset: Dataset) -> Trial:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about wrong inputs
            results, _ = compute_results(model, input_format, images)
        answers = read_answers(results, dataset.class_names, model.name)
    except FmnistError as error:
        return Trial(input_format, None, one_line(error))
    ordered = answers.reordered(best_order(answers, labels, len(dataset.class_names)))
    logarithms = ordered.log_probabilities()
    return Trial(
        input_format,
        answers,
        "",
        accuracy=float((ordered.predicted == labels).mean()),
        cross_entropy=np.inf if logarithms is None else cross_entropy(logarithms, labels),
    )


def _rank(trials: list[Trial]) -> list[Trial]:
    """Return the trials without a problem, best first."""
    valid = [trial for trial in trials if trial.answers]
    return sorted(valid, key=lambda trial: (-trial.accuracy, trial.cross_entropy))


def _close_to_best(ranked: list[Trial]) -> list[Trial]:
    return [trial for trial in ranked if ranked[0].accuracy - trial.accuracy <= MARGIN]


def _is_skilled(trial: Trial, labels: np.ndarray) -> bool:
    chance = np.bincount(labels).max() / len(labels)
    return trial.accuracy > chance + MIN_SKILL * (1 - chance)


def _keep_contract(model: Model, contract: Trial, best: Trial, is_skilled: bool) -> Trial:
    """Return the trial of the format that a model should take; raise an `FmnistError` if another one fits far better.

    Args:
        model: the model.
        contract: that trial.
        best: the best trial.
        is_skilled: whether the best is much better than chance.
    """
    if contract.answers and (best.accuracy - contract.accuracy <= MARGIN or not is_skilled):
        return contract
    if not is_skilled:
        raise FmnistError(contract.problem)
    found = f"is right about {contract.accuracy:.0%} of training images" if contract.answers else "fails"
    other = best.input_format
    raise FmnistError(
        f"{model.name} {found} with {contract.input_format}, and right about {best.accuracy:.0%} with {other}; pass "
        f"scaling={other.scaling!r} and layout={other.layout!r}, on the command line --scaling {other.scaling} and "
        f"--layout {other.layout}, or convert the images inside the function"
    )
