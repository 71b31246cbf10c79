"""Bayesian search for local sweeps: Optuna's TPE, asked for one point at a time.

Optuna keeps nothing. What it knows are the trials' folders, read anew for each question, so there is no storage of its
own that a killed agent could leave locked or with trials that run for ever.
"""

import warnings
from typing import TYPE_CHECKING, Any

from ..runs import space
from ..runs.settings import SettingsError

if TYPE_CHECKING:
    from .local_sweep import LocalSweep


def suggest(local: "LocalSweep", index: int) -> dict[str, Any]:
    """The next point, by what is known of all trials so far.

    A listed value is chosen by its place in the list, a number by its quantile, so that each distribution of the
    sweep's file counts as what is likely before anything is known. Trials that still run count as bad ones, so that
    agents who ask at the same time do not all get the same point.

    Args:
        local: the sweep.
        index: number of the trial that asks; it seeds the search.

    Returns:
        overlay: the settings; point: where it lies.

    Raises:
        SettingsError: Optuna is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise SettingsError("a local sweep of method bayes needs Optuna: pip install -e '.[local-sweeps]'") from None
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    parameters = [each for each in space.check(local.sweep.parameters) if len(each.values) != 1]
    distributions = {
        each.name: CategoricalDistribution(range(len(each.values))) if each.values else FloatDistribution(0.0, 1.0)
        for each in parameters
    }
    known = []
    for trial in local.trials():
        point, result = trial.parameters.get("point"), local.result(trial)
        if point is None or result.get("state") == "failed":
            continue
        state = TrialState.COMPLETE if result else TrialState.RUNNING
        known.append(create_trial(state=state, value=result.get("value"), params=point, distributions=distributions))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=index, multivariate=True, constant_liar=True)
        study = optuna.create_study(sampler=sampler, direction="maximize" if local.sweep.maximize else "minimize")
        study.add_trials(known)
        point = study.ask(distributions).params
    every = space.check(local.sweep.parameters)
    values = [value_at(each, point.get(each.name, 0)) for each in every]
    return dict(overlay=space.settings(every, values), point=point)


def value_at(parameter: space.Parameter, place: float) -> Any:
    """A parameter's value at a place of the search: the place in its list, or its quantile."""
    return parameter.values[int(place)] if parameter.values else parameter.quantile(place)
