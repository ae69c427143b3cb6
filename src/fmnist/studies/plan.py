"""The plan of a study: which configurations are trained with which seeds. It is written before the first run."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta
from msgspec.structs import replace

from fmnist.config import Config
from fmnist.data.dataset import Dataset
from fmnist.documents import FORMAT_VERSION, Document, read_document, write_document
from fmnist.errors import FmnistError, quote
from fmnist.files import is_temporary_file
from fmnist.runs.environment import installed_versions
from fmnist.runs.folders import RUNS_FOLDER
from fmnist.runs.schemas import FileName, Sha256, Text

PLAN_FILE = "study.json"
RESULTS_FILE = "results.json"
MAX_RUNS = 10_000
MAX_CHOICES = 100

Seed = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Configuration(Document, frozen=True, kw_only=True):
    """A configuration of a study. Its seed is that of the run."""

    name: FileName
    config: Config


class Range(Document, frozen=True, kw_only=True):
    """Where a search looks for the value of a setting: in an interval, or among choices."""

    name: FileName
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Whether every order of magnitude is equally probable."""
    choices: Annotated[tuple[bool | int | float | str | None, ...], Meta(max_length=MAX_CHOICES)] = ()


class Search(Document, frozen=True, kw_only=True):
    """How a study looks for the best settings of its only configuration."""

    trials: Annotated[int, Meta(ge=1, le=MAX_RUNS)]
    """Settings that are tried."""
    batch_size: Annotated[int, Meta(ge=1, le=MAX_RUNS)]
    """Settings that are proposed at the same time, from the results of all batches before."""
    ranges: Annotated[tuple[Range, ...], Meta(min_length=1, max_length=MAX_CHOICES)]
    optuna: Text
    """Its version. Others propose other settings."""


class StudyPlan(Document, frozen=True, kw_only=True):
    """`study.json`: everything that the results of a study depend on."""

    format_version: int = FORMAT_VERSION
    created: Annotated[datetime, Meta(tz=True)]
    configurations: Annotated[tuple[Configuration, ...], Meta(min_length=1, max_length=MAX_RUNS)]
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1, max_length=MAX_RUNS)]
    cores: Annotated[int, Meta(ge=1, le=10_000)]
    """Processors of each run. Their number changes the last bits of the weights."""
    backend: Text
    """Of Keras."""
    versions: dict[Text, Text]
    """Package name to version. All runs have the same."""
    data_sha256: dict[FileName, Sha256]
    search: Search | None = None

    @property
    def num_runs(self) -> int:
        """Number of runs."""
        return (self.search.trials if self.search else len(self.configurations)) * len(self.seeds)


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study."""

    configuration: str
    config: Config
    folder: Path

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.name


def make_plan(
    presets: Sequence[str],
    grid: Mapping[str, Sequence[Any]],
    num_seeds: int,
    cores: int,
    backend: str,
    dataset: Dataset,
    search: Search | None = None,
    **changes: Any,
) -> StudyPlan:
    """Return the plan of all combinations of presets and settings, or of a search.

    Args:
        presets: names of presets.
        grid: name of a field of `Config` to its values.
        num_seeds: seeds are 0, 1, ...
        cores: of each run.
        backend: of Keras.
        dataset: the data of all runs.
        search: for the best settings of the preset.
        changes: fields of `Config` that all runs share.

    Raises:
        FmnistError: for a value out of bounds, two configurations with the same settings, or several with a search.
    """
    configurations = []
    for preset, *values in itertools.product(presets, *grid.values()):
        settings = dict(zip(grid, values, strict=True))
        config = Config.from_preset(preset, data=dataset.path, **changes, **settings)
        # Machines with and without a GPU can do the runs, so none depends on the device.
        config = _check_config(config).resolve(dataset.is_fashion_mnist)
        words = [preset, *(f"{name}-{value}" for name, value in settings.items())]
        name = re.sub(r"[^A-Za-z0-9_.-]+|\.(?=\.)", "_", "-".join(words))[:150]
        configurations.append(Configuration(name=name, config=config))
    if len({each.name for each in configurations}) < len(configurations):
        raise FmnistError("two configurations are the same; name each preset and each value once")
    if search and len(configurations) > 1:
        raise FmnistError(f"a search has {len(configurations)} configurations to start from; expected one preset")
    if search:
        _check_ranges(search.ranges, configurations[0].config, dataset.is_fashion_mnist)
    num_runs = (search.trials if search else len(configurations)) * num_seeds
    if num_runs > MAX_RUNS:
        raise FmnistError(f"the study has {num_runs} runs; expected at most {MAX_RUNS}")
    return StudyPlan(
        created=datetime.now(UTC),
        configurations=tuple(configurations),
        seeds=tuple(range(num_seeds)),
        cores=cores,
        backend=backend,
        versions=installed_versions(),
        data_sha256=dataset.sha256,
        search=search,
    )


def _check_config(config: Config) -> Config:
    """Refuse what needs a user's own function, which a study does not take. Returns the configuration."""
    if names := [name for name in ("network", "optimizer", "schedule") if getattr(config, name) == "custom"]:
        raise FmnistError(f"{names[0]} is custom, which is for a function of your own; a study takes none")
    return config


def _check_ranges(ranges: Sequence[Range], config: Config, is_fashion_mnist: bool) -> None:
    """Refuse values out of bounds now rather than in some trial, and those that would become others."""
    for each in ranges:
        if len(set(each.choices)) < len(each.choices):
            raise FmnistError(f"{each.name} has the same choice twice; name each value once")
        for value in each.choices or (each.low, each.high):
            changed = _check_config(replace(config, **{each.name: value})).resolve(is_fashion_mnist)
            if getattr(changed, each.name) != value:
                raise FmnistError(
                    f"{each.name} of {value} would become {getattr(changed, each.name)} for this data; leave it out"
                )


def planned_runs(
    folder: Path, plan: StudyPlan, configurations: Sequence[Configuration] | None = None
) -> list[PlannedRun]:
    """Return the runs of the plan's configurations, or of others.

    First come all with seed 0, then with seed 1, so that all configurations progress alike.
    """
    return [
        PlannedRun(each.name, replace(each.config, seed=seed), folder / RUNS_FOLDER / f"{each.name}-seed-{seed}")
        for seed in plan.seeds
        for each in configurations or plan.configurations
    ]


def write_plan(folder: Path, plan: StudyPlan) -> None:
    """Start a study: write its plan into a new or empty folder.

    Raises:
        FmnistError: if the folder has other files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not all(is_temporary_file(path) for path in folder.iterdir()):
        raise FmnistError(f"{folder} is not empty and no study; expected a new folder, so choose another name")
    write_document(folder / PLAN_FILE, plan)


def freeze_plan(folder: Path, plan: StudyPlan) -> StudyPlan:
    """Start a study with a plan, or check that the study in the folder has the same. Returns the one that is kept."""
    if not (folder / PLAN_FILE).exists():
        write_plan(folder, plan)
    before = read_plan(folder)
    check_same_plan(folder, before, plan)
    return before


def read_plan(folder: Path) -> StudyPlan:
    """Read the plan of a study.

    Raises:
        FmnistError: if there is none, or it is damaged.
    """
    return read_document(folder / PLAN_FILE, StudyPlan, "start the study again in a new folder")


def check_same_plan(folder: Path, before: StudyPlan, now: StudyPlan) -> None:
    """Raise an `FmnistError` if options contradict the plan of a study."""
    words = {"search": "settings of its search (--search, --set, --jobs)"}
    for field in ("configurations", "search", "seeds", "cores", "backend", "data_sha256"):
        planned, given = getattr(before, field), getattr(now, field)
        if planned != given:
            raise FmnistError(
                f"{folder} was planned with other {words.get(field, field)}; `fmnist study {quote(folder)}` continues "
                "it as planned, and another study needs a new folder"
            )


def planned_folders(folder: Path) -> list[Path]:
    """Return the run folders of a study, in the order of its plan; of any other folder, itself.

    Of a search, these are the folders that there are: its next settings are not known before.
    """
    if not (folder / PLAN_FILE).is_file():
        return [folder]
    plan = read_plan(folder)
    if plan.search:
        names = [trial_name(number) for number in range(plan.search.trials)]
        trials = [Configuration(name=name, config=plan.configurations[0].config) for name in names]
        return [run.folder for run in planned_runs(folder, plan, trials) if run.folder.is_dir()]
    return [run.folder for run in planned_runs(folder, plan)]


def trial_name(number: int) -> str:
    """Return the name of a configuration of a search, from 0."""
    return f"trial-{number:04}"
