"""Find out on training images in which format a model takes images."""

import warnings
from dataclasses import dataclass

import numpy as np

from fmnist.data.dataset import Dataset, evenly_spaced
from fmnist.errors import FmnistError, one_line
from fmnist.evaluation.answers import Answers, Model, best_order, compute_results, read_answers
from fmnist.inference.input_format import InputFormat
from fmnist.metrics import cross_entropy

ROUNDS = ((100, 0.15), (500, 0.05), (3_000, 0.02))
"""Training images of each round, and the difference in accuracy from the best within which a format is tried again with
more: at least three standard errors."""
MIN_IMAGES = 500
"""Images of the last round, at least: the order of the classes is found by them."""
CLASSES_OF_ROUNDS = 10
"""With more classes, there are as many more images."""
MARGIN = 0.02
"""Difference in accuracy within which the format that a model should take is kept, and other formats are named."""
TIE = 0.005
"""Difference in accuracy that counts as none: less than the standard error of 3,000 images."""
MIN_SKILL = 0.2
"""How far an accuracy has to be from that of the most frequent class, on the way to 1, to be better than chance."""


@dataclass(frozen=True, eq=False)
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
    """Find the format in which a model is right about most training images; among about equals, the lowest loss.

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
    has_contract = model.has_contract and scaling is None and layout is None
    factor = max(1, len(dataset.class_names) / CLASSES_OF_ROUNDS)
    tried = formats
    for number, margin in ROUNDS:
        images, labels = _training_images(dataset, int(factor * number))
        trials = [_try(model, form, images, labels, dataset) for form in tried]
        ranked = _rank(trials)
        if not ranked:
            raise FmnistError(trials[0].problem)
        close = _close_to_best(ranked, margin)
        is_decided = has_contract and trials[0] in close and ranked[0].accuracy - trials[0].accuracy <= MARGIN
        tried = [trial.input_format for trial in trials if trial in close or (has_contract and trial is trials[0])]
        if number >= MIN_IMAGES and (len(close) == 1 or is_decided):
            break
    best, is_skilled = ranked[0], _is_skilled(ranked[0], labels)
    if has_contract:
        best = _keep_contract(model, trials[0], ranked[0], is_skilled)
    elif len(formats) > 1 and not is_skilled:
        raise FmnistError(
            f"{model.name} is right about {best.accuracy:.0%} of {len(labels)} training images at best, which is "
            f"little better than chance; tried: {'; '.join(map(str, formats))}. A function can convert the images to "
            "what the model takes: file.py:function"
        )
    others = [] if has_contract else [trial for trial in _close_to_best(ranked, MARGIN) if trial is not best]
    return FoundFormat(best, images, labels, others, len(formats), _is_skilled(best, labels))


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
    return Trial(
        input_format,
        answers,
        "",
        accuracy=float((ordered.predicted == labels).mean()),
        cross_entropy=np.inf if answers.kind == "labels" else cross_entropy(ordered.log_probabilities(), labels),
    )


def _rank(trials: list[Trial]) -> list[Trial]:
    """Return the trials without a problem, those with the highest accuracy first; about equal ones by their loss.

    Of trials with the same results, the first is returned: a function that reshapes images takes any layout.
    """
    distinct: list[Trial] = []
    for trial in trials:
        if trial.answers and not any(_have_same_results(trial, other) for other in distinct):
            distinct.append(trial)
    ranked = sorted(distinct, key=lambda trial: -trial.accuracy)
    num_equals = sum(ranked[0].accuracy - trial.accuracy <= TIE for trial in ranked)
    return sorted(ranked[:num_equals], key=lambda trial: trial.cross_entropy) + ranked[num_equals:]


def _have_same_results(first: Trial, second: Trial) -> bool:
    assert first.answers
    assert second.answers
    return first.answers.kind == second.answers.kind and np.array_equal(first.answers.values, second.answers.values)


def _close_to_best(ranked: list[Trial], margin: float) -> list[Trial]:
    """Return the trials that are at most so much less accurate than the most accurate one."""
    highest = max(trial.accuracy for trial in ranked)
    return [trial for trial in ranked if highest - trial.accuracy <= margin]


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
