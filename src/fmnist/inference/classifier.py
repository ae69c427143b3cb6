"""Classify images and photos with ONNX Runtime. All predictions of this package are made here."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from PIL import Image

from fmnist.data.dataset import CLASS_NAMES, check_images
from fmnist.errors import FmnistError, one_line, printable
from fmnist.files import MAX_MODEL_BYTES, read_bounded, sha256
from fmnist.inference import photo, picture
from fmnist.inference.color import ColorNetwork, views_of
from fmnist.inference.interface import check_interface, read_class_names
from fmnist.inference.prediction import ClassProbability, Prediction
from fmnist.inference.rejection import RejectionRule
from fmnist.inference.runtime import open_session
from fmnist.runs.run import Run, open_pretrained, open_run
from fmnist.runs.schemas import ADAPTED_FILE, GRAPH_FILE, INT8_FILE

BATCH_SIZE = 100
"""Images per call, each in every view. Larger batches are no faster on two cores and need more memory."""
PRETRAINED_NAME = "the pretrained model"


class Classifier:
    """A trained model, ready for predictions.

    Attributes:
        class_names: one name per class, in the order of the probabilities.
        rejection_rule: decides which predictions are accepted; None if the model has no such rule.
        threshold: lowest confidence that is accepted; None if any is.
        photo_threshold: the same for photos.
        name: the model's name in predictions and error messages.
        sha256: of the ONNX graph.
    """

    def __init__(
        self,
        onnx: bytes,
        class_names: Sequence[str] | None = None,
        name: str = "model",
        rejection_rule: RejectionRule | None = None,
        color: ColorNetwork | None = None,
    ):
        """Open a graph, as `fmnist export` writes it.

        Args:
            onnx: the content of the ONNX file.
            class_names: one name per class. None takes those in the file's metadata.
            name: the model's name in predictions and error messages.
            rejection_rule: decides which predictions are accepted; None makes no such decision.
            color: a second network for photos of Fashion-MNIST's classes.

        Raises:
            FmnistError: if the graph is damaged, not safe to open, or does not fit the other arguments.
        """
        self.rejection_rule = rejection_rule
        self.threshold = rejection_rule.threshold if rejection_rule else None
        self.photo_threshold = color.record.threshold if color else self.threshold
        self.color = color
        self.name = name
        self.sha256 = sha256(onnx)
        self._session = open_session(onnx, name)
        check_interface(self._session, name)
        self.class_names = tuple(class_names or read_class_names(self._session, name))
        widths = {output.name: output.shape[1] for output in self._session.get_outputs()}
        if widths["probabilities"] != len(self.class_names):
            raise FmnistError(
                f"the graph of {name} has {widths['probabilities']} classes; expected {len(self.class_names)}, as many "
                "as there are class names"
            )
        if rejection_rule and len(rejection_rule.projection) != widths.get("features"):
            raise FmnistError(
                f"the graph of {name} has {widths.get('features', 'no')} features; expected "
                f"{len(rejection_rule.projection)}, as in its rejection rule"
            )

    @classmethod
    def load(cls, run: Run | str | Path | None = None, *, int8: bool = False) -> "Classifier":
        """Open the model of a finished run, one that `fmnist adapt` has written, or an ONNX file of `fmnist export`.

        Args:
            run: the run or its folder, the folder of an adapted model, or a file whose name ends in `.onnx`; None loads
                the pretrained model. The predictions of a file have no confidence: its rejection rule is in the
                manifest of its run.
            int8: load the quantized graph, which `fmnist export --int8` writes: smaller, faster, a little less
                accurate. The pretrained model is always quantized, and an adapted model has one format.

        Raises:
            FmnistError: if the run is missing, not finished, damaged, or of another format version.
        """
        if run is None:
            run = open_pretrained()
        elif not isinstance(run, Run):
            if isinstance(run, str | Path) and Path(run).suffix == ".onnx" and not Path(run).is_dir():
                content = read_bounded(Path(run), MAX_MODEL_BYTES, "`fmnist export` writes one", follow_links=True)
                return cls(content, name=printable(str(run)))
            if isinstance(run, str | Path) and os.path.lexists(Path(run) / ADAPTED_FILE):
                from fmnist.inference.adapted import AdaptedClassifier

                return AdaptedClassifier.open(Path(run))
            run = open_run(run)
        manifest = run.manifest()
        graph = run.read_graph(INT8_FILE if int8 or run.is_pretrained else GRAPH_FILE, manifest)
        rule = RejectionRule.from_record(manifest.rejection_rule) if manifest.rejection_rule else None
        name = PRETRAINED_NAME if run.is_pretrained else printable(str(run.folder))
        color = ColorNetwork.load(run.folder) if run.is_pretrained else None
        return cls(graph, manifest.class_names, name, rule, color)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Compute the probabilities of images in the format of the data set.

        Args:
            images: (n, 28, 28) uint8, bright garment on black.

        Returns:
            (n, classes) float32; each row sums to 1.

        Raises:
            FmnistError: if the images have another shape or dtype.
        """
        return self.outputs(images)["probabilities"]

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute all outputs of the graph. Argument and errors as in `predict`.

        Returns:
            `probabilities` and `probabilities_single_view`, (n, classes), and `features`, (n, width), all float32. A
            model that is trained on photos has `none_probability`, (n, 1), too. A plain graph has `probabilities` only.
        """
        check_images(images)
        names = [output.name for output in self._session.get_outputs()]
        batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)] or [images]
        try:
            results = [self._session.run(names, {"images": batch}) for batch in batches]
            outputs = {
                name: np.concatenate(parts) for name, parts in zip(names, zip(*results, strict=True), strict=True)
            }
        except Exception as error:
            raise FmnistError(f"the graph of {self.name} cannot be computed: {one_line(error)}") from error
        self._check_outputs(outputs, len(images))
        return outputs

    def _check_outputs(self, outputs: dict[str, np.ndarray], num_images: int) -> None:
        for name, values in outputs.items():
            width = {"features": values.shape[1], "none_probability": 1}.get(name, len(self.class_names))
            if values.shape != (num_images, width) or not np.isfinite(values).all():
                raise FmnistError(
                    f"the graph of {self.name} returns {name} of shape {values.shape} or with NaN or infinity; "
                    f"expected finite numbers of shape {(num_images, width)}"
                )

    @overload
    def classify(
        self, source: picture.Source, *, kind: Literal["image", "photo"] | None = None, name: str = "picture"
    ) -> Prediction: ...

    @overload
    def classify(
        self, source: list[Any] | tuple[Any, ...], *, kind: Literal["image", "photo"] | None = None
    ) -> list[Prediction]: ...

    def classify(
        self,
        source: picture.Source | list[Any] | tuple[Any, ...],
        *,
        kind: Literal["image", "photo"] | None = None,
        name: str = "picture",
    ) -> Prediction | list[Prediction]:
        """Classify a picture, or each picture of a list: photos of a garment, or images in the format of the data set.

        Args:
            source: a path, the content of a file, a file object, a uint8 array, (height, width) gray or (height,
                width, 3) RGB, or a Pillow image. A list or tuple of these gives a list of predictions.
            kind: `image` takes the pixels as an image in the format of the data set, `photo` segments the garment.
                None decides by the pixels: an image in the format of the data set, also enlarged, is used unchanged.
            name: what error messages call `source` if it is no path.

        Returns:
            The prediction, with the steps of the conversion. The confidence is 0 if nothing was found in the picture.

        Raises:
            FmnistError: if the source cannot be read as a picture. For a list, the error names the index of the item;
                classify the items one by one to get the other predictions.
        """
        if isinstance(source, list | tuple):
            return [self._classify_item(index, item, kind) for index, item in enumerate(source)]
        if kind not in {None, "image", "photo"}:
            raise FmnistError(f"kind is {kind!r}; expected 'image', 'photo' or None")
        conversion, decision = self._answer(picture.read(source, name), kind)
        top = decision.top
        return Prediction(
            label=top[0].label,
            class_index=top[0].class_index,
            probability=top[0].probability,
            confidence=decision.confidence,
            accepted=decision.reason is None if decision.confidence is not None else None,
            reason=decision.reason,
            model=self.name,
            kind=conversion.kind,
            top=top,
            steps=conversion.steps,
        )

    def _answer(
        self, source: Image.Image, kind: Literal["image", "photo"] | None
    ) -> tuple[photo.Conversion, "Decision"]:
        """Convert a picture, and decide on it."""
        conversion = photo.convert(source, kind, is_garment=self.class_names == CLASS_NAMES)
        outputs = self.outputs(conversion.pixels[np.newaxis])
        if self.color and conversion.kind != "image" and conversion.problem != photo.FEW_PIXELS:
            return conversion, self._decide_photo(conversion, outputs)
        return conversion, self._decide(outputs, conversion.problem)

    def _classify_item(self, index: int, source: picture.Source, kind: Literal["image", "photo"] | None) -> Prediction:
        """Classify a picture of a list. Errors name its index."""
        name = f"item {index}"
        try:
            return self.classify(source, kind=kind, name=name)
        except FmnistError as error:
            raise error if str(error).startswith(name) else FmnistError(f"{name}: {error}") from error

    def _decide(self, outputs: dict[str, np.ndarray], problem: str | None) -> "Decision":
        """Decide on one picture by the rejection rule, if there is one."""
        rule = self.rejection_rule
        top = self.sort_classes(outputs["probabilities"][0])
        if rule is None:
            return Decision(top, None, None)
        (confidence,) = rule.confidence(outputs)
        if problem == photo.NOTHING_FOUND:
            confidence = 0.0
        # So few pixels may have lost what distinguishes similar classes: the confidence must come halfway to 1.
        threshold = (1 + rule.threshold) / 2 if problem == photo.FEW_PIXELS else rule.threshold
        is_accepted = confidence >= threshold
        return Decision(
            top, float(confidence), None if is_accepted else problem or rule.describe_low_confidence(outputs, top)
        )

    def _decide_photo(self, conversion: photo.Conversion, outputs: dict[str, np.ndarray]) -> "Decision":
        """Decide on a photo by both networks."""
        assert self.color
        none_probability = float(outputs["none_probability"][0, 0])
        found = self.color.combine(views_of(conversion), outputs["probabilities"][0], none_probability)
        top = self.sort_classes(found.classes)
        confidence = top[0].probability
        if confidence >= self.color.record.threshold:
            return Decision(top, confidence, None)
        if conversion.problem == photo.NOTHING_FOUND:
            reason = photo.NOTHING_FOUND
        elif found.none > confidence:
            likeness = f": it looks like {found.looks_like}" if found.looks_like else ""
            reason = f"none of the {len(top)} classes{likeness}"
        else:
            reason = (
                conversion.problem
                or photo.light_problem(conversion.steps["original"])
                or f"between {top[0].label} and {top[1].label}"
            )
        return Decision(top, confidence, reason)

    def sort_classes(self, probabilities: np.ndarray) -> list[ClassProbability]:
        """Return the classes by falling probability."""
        return [
            ClassProbability(self.class_names[index], int(index), float(probabilities[index]))
            for index in np.argsort(-probabilities, kind="stable")
        ]


@dataclass(frozen=True)
class Decision:
    """Whether to accept the prediction for a picture."""

    top: list[ClassProbability]
    """All classes by falling probability."""
    confidence: float | None
    """None without a rejection rule."""
    reason: str | None
    """Why it is not accepted."""
