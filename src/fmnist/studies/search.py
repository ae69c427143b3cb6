"""Search for the best settings. Optuna proposes them; the run folders are the only state."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from fmnist.config import PRESETS, Config
from fmnist.errors import FmnistError
from fmnist.runs.run import open_run
from fmnist.studies.plan import Configuration, PlannedRun, Range, Search, StudyPlan, planned_runs, trial_name
from fmnist.studies.study import finished_run

Settings = dict[str, Any]
Trial = tuple[Settings, float | None]
"""Settings, and the mean validation accuracy of their runs. None if no run is finished."""


def rounds_of(folder: Path, plan: StudyPlan) -> Iterator[list[PlannedRun]]:
    """Return the runs of a study in rounds. The runs of a round have to be done before the next is asked for.

    A study without a search has one round. The settings of a search follow from the plan and from the results before,
    so they are the same whenever the study is continued. Those of a run that has begun are read from its folder: a run
    that failed at first can have another result now, from which other settings would follow.
    """
    search = plan.search
    if not search:
        yield planned_runs(folder, plan)
        return
    base = plan.configurations[0].config
    finished: list[Trial] = []
    for start in range(0, search.trials, search.batch_size):
        batch: list[Configuration] = []
        proposed: list[Trial] = []
        for number in range(start, min(start + search.batch_size, search.trials)):
            trial = Configuration(name=trial_name(number), config=base)
            begun = _begun_settings(planned_runs(folder, plan, [trial]), search)
            settings = begun or propose(search, [*finished, *proposed], number)
            proposed.append((settings, None))
            batch.append(replace(trial, config=_with_settings(base, settings)))
        runs = planned_runs(folder, plan, batch)
        yield runs
        for trial, (settings, _) in zip(batch, proposed, strict=True):
            accuracy = _mean_accuracy([each for each in runs if each.configuration == trial.name])
            finished.append((settings, accuracy))


def _with_settings(base: Config, settings: Settings) -> Config:
    """Return a configuration with the settings of a trial. Views that `base` excludes come back if these allow them."""
    views = {"tta_views": PRESETS[base.preset].tta_views} if settings.keys() & {"flip", "shift"} else {}
    return replace(base, **views, **settings)


def check_optuna(search: Search) -> None:
    """Raise an `FmnistError` if Optuna has another version than a search was planned with."""
    import optuna

    if optuna.__version__ != search.optuna:
        raise FmnistError(
            f"found Optuna {optuna.__version__}, which proposes other settings than {search.optuna}, with which the "
            f"search was planned; install Optuna {search.optuna}, or start a new study"
        )


def propose(search: Search, trials: Sequence[Trial], number: int) -> Settings:
    """Propose the settings of a trial, by Optuna's tree-structured Parzen estimator.

    Args:
        search: ranges of the settings.
        trials: those before. The ones without a result count as poor, so that a batch has different settings.
        number: of the trial, from 0. It is the seed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {each.name: _distribution(each) for each in search.ranges}
    states = optuna.trial.TrialState
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=number, constant_liar=True)
    )
    for settings, value in trials:
        state = states.RUNNING if value is None else states.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(state=state, params=settings, distributions=distributions, value=value)
        )
    return dict(study.ask(distributions).params)


def _distribution(each: Range) -> Any:
    from optuna import distributions

    if each.choices:
        return distributions.CategoricalDistribution(each.choices)
    assert each.low is not None
    assert each.high is not None
    if isinstance(each.low, int) and isinstance(each.high, int):
        return distributions.IntDistribution(each.low, each.high, log=each.log)
    return distributions.FloatDistribution(each.low, each.high, log=each.log)


def _begun_settings(runs: Sequence[PlannedRun], search: Search) -> Settings | None:
    """Read the settings of a trial from the first of its runs that has begun. None if there is none in the ranges."""
    for each in runs:
        try:
            config = open_run(each.folder).config
        except FmnistError:  # it is not there, or is damaged, which the process that does the run says
            continue
        settings = {one.name: getattr(config, one.name) for one in search.ranges}
        if all(_contains(one, settings[one.name]) for one in search.ranges):
            return settings
    return None


def _contains(each: Range, value: Any) -> bool:
    if each.choices:
        return value in each.choices
    assert each.low is not None
    assert each.high is not None
    return isinstance(value, int | float) and each.low <= value <= each.high


def _mean_accuracy(runs: Sequence[PlannedRun]) -> float | None:
    """Return the mean validation accuracy of the runs that are finished."""
    validations = [run.manifest().validation for each in runs if (run := finished_run(each, test=False))]
    values = [each.accuracy for each in validations if each]
    return sum(values) / len(values) if values else None
