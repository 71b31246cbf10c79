"""What a local sweep tries next (Bayesian search), and which runs it stops early (Hyperband).

Both are functions of what is known so far, and keep nothing. Optuna's TPE is asked for one point at a time, and told
about all earlier trials each time: there is no storage of its own that a killed agent could leave locked, or with
trials that run for ever.

Hyperband is that of W&B's sweeps. A history is the list of the metric's values that a run has logged. With
`min_iter: 3` and `eta: 3` runs are compared at their values number 3, 9, 27, …: one whose best value so far is worse
than the best third was there is stopped. Source: Li et al., Hyperband, JMLR 2018; rules as in hyperband_stopping.py of
W&B's `sweeps` package.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..planning import space
from ..settings.errors import SettingsError

Point = Mapping[str, float]  # for each parameter with more than one value: its place in the list, or its quantile


def suggest(
    parameters: Mapping[str, Any], known: Sequence[tuple[Point, float | None]], index: int, maximize: bool
) -> dict[str, Any]:
    """Return the next point, by what is known of all trials so far.

    A listed value is chosen by its place in the list, a number by its quantile, so that each distribution of the
    sweep's file counts as what is likely before anything is known.

    Args:
        parameters: the sweep file's parameters.
        known: point and value of the trials so far. Without a value (it still runs), a trial counts as a bad one, so
            that agents who ask at the same time do not all get the same point.
        index: number of the trial that asks; it seeds the search.
        maximize: True if large values are good.

    Returns:
        overlay: the settings; point: where it lies.

    Raises:
        SettingsError: Optuna is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise SettingsError("a local sweep of method bayes needs Optuna: pip install -e '.[local-sweeps]'") from None
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    every_parameter = space.read_parameters(parameters)
    distributions = distributions_of([parameter for parameter in every_parameter if len(parameter.values) != 1])

    trials = []
    for point, value in known:
        state = TrialState.RUNNING if value is None else TrialState.COMPLETE
        trials.append(create_trial(state=state, value=value, params=dict(point), distributions=distributions))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=index, multivariate=True, constant_liar=True)
        study = optuna.create_study(sampler=sampler, direction="maximize" if maximize else "minimize")
        study.add_trials(trials)
        chosen = study.ask(distributions).params

    # A parameter with one value is no part of the search: it is at place 0 of its list.
    values = [value_at(parameter, chosen.get(parameter.name, 0)) for parameter in every_parameter]
    return dict(overlay=space.settings(every_parameter, values), point=chosen)


def distributions_of(parameters: Sequence[space.Parameter]) -> dict[str, Any]:
    """Return Optuna's distribution for each parameter: over the places in its list, or over its quantiles."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    distributions: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.values:
            distributions[parameter.name] = CategoricalDistribution(range(len(parameter.values)))
        else:
            distributions[parameter.name] = FloatDistribution(0.0, 1.0)
    return distributions


def value_at(parameter: space.Parameter, place: float) -> Any:
    """Return a parameter's value at a place of the search: the place in its list, or its quantile."""
    if parameter.values:
        return parameter.values[int(place)]
    return parameter.quantile(place)


def bands(settings: Mapping[str, Any], most: int) -> list[int]:
    """Return the points of comparison up to `most` values, in order.

    Args:
        settings: `early_terminate` of the sweep's file.
        most: how many values a run has logged.
    """
    eta = settings.get("eta", 3)

    # By the last step: each band lies a factor of eta before the one after it.
    if "min_iter" not in settings:
        steps = range(1, int(settings.get("s", 2)) + 1)
        backwards = [int(settings["max_iter"] / eta**step) for step in steps]
        return sorted(band for band in backwards if 1 <= band <= most)

    forwards, band = [], settings["min_iter"]
    while band <= most:
        forwards.append(int(band))
        band *= eta
    return forwards


def should_stop(
    history: Sequence[float], others: Sequence[Sequence[float]], settings: Mapping[str, Any], maximize: bool
) -> bool:
    """True if early termination ends a run.

    Args:
        history: its values so far.
        others: those of all other runs, ended or not.
        settings: `early_terminate` of the sweep's file.
        maximize: True if large values are good.
    """
    reached = [band for band in bands(settings, len(history)) if band < len(history)]
    if not reached:
        return False

    sign = -1 if maximize else 1  # from here on, small is good
    band = reached[-1]
    values_there = sorted(sign * values[band] for values in [history, *others] if len(values) > band)
    bar = values_there[int(len(values_there) / settings.get("eta", 3))]
    return min(sign * value for value in history) > bar
