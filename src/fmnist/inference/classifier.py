"""Images or photos in, answers out, through ONNX Runtime alone: the one way by which everything asks a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from fmnist.data import dataset as data
from fmnist.data import formats as idx
from fmnist.errors import FmnistError, one_line
from fmnist.inference import onnx_check as graph
from fmnist.inference import photo
from fmnist.inference.rejection import Acceptance, sureness
from fmnist.runs import environment
from fmnist.runs import run as runs

BATCH_SIZE = 100
"""Images a call, each in every view: more are no faster on two cores and take more memory."""
PROBABILITIES = ("probabilities", "probabilities_single_view")
NUMBERS = {10: "ten"}
PACKAGED = "the one that comes with fmnist"


class Classifier:
    """A trained model, ready to be asked."""

    def __init__(
        self,
        onnx: bytes,
        class_names: Sequence[str],
        name: str = "model",
        acceptance: Acceptance | None = None,
    ):
        """Open a complete graph.

        Args:
            onnx: the content of a `model.onnx`.
            class_names: one for each probability.
            name: what to call it in answers.
            acceptance: tells what to accept; None accepts and refuses nothing.
        """
        self.class_names = tuple(class_names)
        self.acceptance = acceptance
        self.name = name
        self.sha256 = idx.sha256(onnx)
        graph.check(onnx, name)
        options = session_options()
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise FmnistError(f"ONNX Runtime cannot read the graph of {name}: {one_line(error)}") from error
        _check_interface(self._session, name)
        widths = {output.name: output.shape[1] for output in self._session.get_outputs()}
        if widths["probabilities"] != len(self.class_names):
            raise FmnistError(
                f"the graph of {name} knows {widths['probabilities']} classes, but {len(self.class_names)} are named"
            )

        if acceptance and len(acceptance.projection) != widths["features"]:
            raise FmnistError(
                f"the acceptance of {name} is of {len(acceptance.projection)} features, but its graph gives "
                f"{widths['features']}"
            )

    @classmethod
    def load(cls, run: runs.Run | str | Path | None = None, *, int8: bool = False) -> "Classifier":
        """Open the model of a finished run.

        Args:
            run: the run, or its folder; None takes the small model that comes with the package.
            int8: take the quantised graph, smaller and quicker, that `fmnist export --int8` has made.

        Raises:
            FmnistError: if it is missing, not finished, of another format version, or not what its manifest says.
        """
        if run is None:
            run = runs.packaged()
        run = run if isinstance(run, runs.Run) else runs.open_run(run)
        is_packaged = run.folder.absolute() == runs.PACKAGED_FOLDER
        content = run.read_onnx(runs.INT8_FILE if int8 or is_packaged else "model.onnx")
        manifest = run.manifest()
        try:
            known = manifest.get("acceptance")
            accepting = Acceptance.from_json(known) if known else None
        except (KeyError, TypeError, ValueError) as error:
            raise FmnistError(
                f"{run.folder / 'manifest.json'} is damaged (its acceptance: {error}); "
                f"`fmnist export {run.folder}` writes it again"
            ) from error
        return cls(content, manifest["class_names"], PACKAGED if is_packaged else str(run.folder), accepting)

    def predict(self, images: np.ndarray, *, single_view: bool = False) -> np.ndarray:
        """Ask for images that are as in the data set.

        Args:
            images: (n, 28, 28) uint8, garment bright on black.
            single_view: look at each image once, as it is, instead of averaging over views: quicker, and a little
                less accurate.

        Returns:
            (n, classes) float32, rows that sum to 1.

        Raises:
            FmnistError: for images of another shape or type, or a single view of a graph that has no such choice.
        """
        return self.outputs(images, single_view=single_view)["probabilities"]

    def outputs(self, images: np.ndarray, *, single_view: bool = False) -> dict[str, np.ndarray]:
        """Give all that the graph tells of images; arguments and errors as in `predict`.

        Returns:
            `probabilities` and `probabilities_single_view`, (n, classes), and `features`, (n, width), all float32.
        """
        data.check_images(images)
        more = {"num_views": np.array(1, np.int32)} if single_view else {}
        if single_view and not self._session.get_overridable_initializers():
            raise FmnistError(f"the graph of {self.name} cannot be asked for a single view; `fmnist export` renews it")
        names = [output.name for output in self._session.get_outputs()]
        batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)] or [images]
        try:
            answers = [self._session.run(names, {"images": batch, **more}) for batch in batches]
            outputs = {
                name: np.concatenate(parts) for name, parts in zip(names, zip(*answers, strict=True), strict=True)
            }
        except Exception as error:
            raise FmnistError(f"the graph of {self.name} cannot be computed: {one_line(error)}") from error
        for name in PROBABILITIES:
            shape = len(images), len(self.class_names)
            if outputs[name].shape != shape or not np.isfinite(outputs[name]).all():
                raise FmnistError(
                    f"the graph of {self.name} gives {name} of shape {outputs[name].shape} or no numbers; expected "
                    f"finite ones of shape {shape}"
                )
        if len(outputs["features"]) != len(images) or not np.isfinite(outputs["features"]).all():
            raise FmnistError(f"the graph of {self.name} gives features that are no numbers, or too few")
        return outputs

    def classify(self, source: Path | str | bytes | Image.Image | np.ndarray) -> dict[str, Any]:
        """Ask for one picture: a photo of a garment, or an image that is as in the data set.

        Args:
            source: a file, its content, a picture from `photo.read`, or an array of shape (28, 28), uint8. What is
                28x28 and grey is taken as it is; all else is converted by `photo.convert`.

        Returns:
            What `answer` gives.

        Raises:
            FmnistError: if it cannot be read as a picture, or the array is of another form.
        """
        if isinstance(source, np.ndarray):
            data.check_images(source[np.newaxis])
            return self.answer(photo.Conversion(source, {}, None))
        if not isinstance(source, Image.Image):
            source = photo.read(Path(source) if isinstance(source, str) else source)
        return self.answer(photo.convert(source))

    def answer(self, conversion: photo.Conversion) -> dict[str, Any]:
        """Ask for a photo that has been converted.

        Args:
            conversion: from `photo.convert`.

        Returns:
            `label` and `class` (name and index of the likeliest) and its `probability`; `acceptance`, a score from 0
            to 1, whether that is `accepted`, and the `reason` in words if it is not, all None for a model without
            a threshold (`reason` also where nothing is wrong); `top`, all classes by falling probability, each
            with `label`, `class` and `probability`.
        """
        outputs = self.outputs(conversion.pixels[np.newaxis])
        probabilities = outputs["probabilities"]
        top = [
            {"label": self.class_names[index], "class": int(index), "probability": float(probabilities[0, index])}
            for index in np.argsort(-probabilities[0], kind="stable")
        ]
        verdict: dict[str, Any] = {"acceptance": None, "accepted": None, "reason": None}
        if self.acceptance:
            (score,) = self.acceptance.score(probabilities, outputs["features"])
            if conversion.problem == photo.NOTHING_FOUND:
                score = 0.0  # there is nothing that the answer could be about
            verdict = {"acceptance": float(score), "accepted": bool(score >= self.acceptance.threshold), "reason": None}
            if not verdict["accepted"]:
                verdict["reason"] = conversion.problem or self._reason(outputs, top)
        return {**top[0], **verdict, "top": top}

    def _reason(self, outputs: dict[str, np.ndarray], top: list[dict[str, Any]]) -> str:
        """Say in words which half of the score is the lower."""
        assert self.acceptance
        (likeness,) = self.acceptance.likeness(outputs["features"])
        (sure,) = sureness(outputs["probabilities"])
        if likeness < sure:
            return f"not like any of the {NUMBERS.get(len(top), len(top))}"
        return f"between {top[0]['label']} and {top[1]['label']}"


def session_options() -> onnxruntime.SessionOptions:
    """Give the options that `Classifier` opens graphs with; a new object, to be changed at will."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = environment.num_processors()
    options.log_severity_level = 3
    # Where products of bytes overflow when they are added, int8 graphs go a way that takes twice as long and is
    # exact, so that they give the same answers everywhere. ONNX Runtime would go it on every x86 processor.
    options.add_session_config_entry("session.x64quantprecision", str(int(not environment.has_vnni())))
    # The one format that `graph.check` reads; ONNX Runtime has another of its own.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


def _check_interface(session: onnxruntime.InferenceSession, name: str) -> None:
    """Refuse a graph that is asked, or answers, in another way than `fmnist.export` writes it."""
    given = {part.name: (part.type, len(part.shape), *part.shape[1:]) for part in session.get_inputs()}
    answers = {part.name: (part.type, len(part.shape)) for part in session.get_outputs()}
    if given != {"images": ("tensor(uint8)", 3, 28, 28)}:
        raise FmnistError(f"the graph of {name} takes {given}; expected images, uint8 of shape (n, 28, 28)")
    if answers != dict.fromkeys((*PROBABILITIES, "features"), ("tensor(float)", 2)):
        raise FmnistError(
            f"the graph of {name} gives {answers}; expected {', '.join(PROBABILITIES)} and features, float32 and flat"
        )
