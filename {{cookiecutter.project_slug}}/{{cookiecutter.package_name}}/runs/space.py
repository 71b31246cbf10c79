"""The search space of a sweep file, in W&B's own schema: what can be tried, and in which order.

    parameters:
      model.network.width: {values: [16, 32, 64]}                    a list; with `probabilities` if you like
      model.optimizer.lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-1}
      trainer.max_epochs: {value: 5}                                 the same in all runs
      data: {parameters: {batch_size: {min: 16, max: 128} } }        nested: data.batch_size, a whole number

Every parameter is described by its quantile function: the value below which a share u of all draws lies. A random draw
is the quantile of a random u, both ends are those of u = 0 and u = 1, and a Bayesian search may look for the best u.
Names, defaults and rules are those of W&B's `sweeps` package, which itself is too old to be installed (numpy below 2).
"""

import itertools
import json
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from .settings import Flat, SettingsError, did_you_mean, flatten

TAIL = 0.001  # a normal distribution has no ends: it is cut where this share of the draws lies on either side


def uniform(u: float, low: float, high: float) -> float:
    return low + u * (high - low)


def int_uniform(u: float, low: int, high: int) -> int:
    return min(high, low + math.floor(u * (high - low + 1)))


def log_uniform(u: float, low: float, high: float) -> float:
    """The ends are given by their natural logarithms."""
    return math.exp(uniform(u, low, high))


def log_uniform_values(u: float, low: float, high: float) -> float:
    """Equal factors are equally likely: a value between 0.001 and 0.01 as one between 0.01 and 0.1."""
    return min(high, max(low, low ** (1 - u) * high**u))  # rounding must not lead outside


def inv_log_uniform(u: float, low: float, high: float) -> float:
    """The ends are given by the natural logarithms of their inverses."""
    return math.exp(-uniform(1 - u, low, high))


def normal(u: float, mu: float, sigma: float) -> float:
    return NormalDist(mu, sigma).inv_cdf(min(max(u, TAIL), 1 - TAIL)) if sigma else mu


def log_normal(u: float, mu: float, sigma: float) -> float:
    """`mu` and `sigma` are those of the natural logarithm."""
    return math.exp(normal(u, mu, sigma))


def beta(u: float, a: float, b: float) -> float:
    from scipy.special import betaincinv  # the inverse of its distribution function has no closed form

    return float(betaincinv(a, b, u))


RANGE, NORMAL, BETA = dict(min=None, max=None), dict(mu=0.0, sigma=1.0), dict(a=1.0, b=1.0)

# Name → (quantile function, its fields with their defaults; None: must be given). q_NAME rounds to multiples of q.
DISTRIBUTIONS: dict[str, tuple[Callable[..., Any], Flat]] = dict(
    uniform=(uniform, RANGE),
    int_uniform=(int_uniform, RANGE),
    log_uniform=(log_uniform, RANGE),
    log_uniform_values=(log_uniform_values, RANGE),
    inv_log_uniform=(inv_log_uniform, RANGE),
    inv_log_uniform_values=(log_uniform_values, RANGE),  # log(1/X) is uniform exactly when log(X) is
    normal=(normal, NORMAL),
    log_normal=(log_normal, NORMAL),
    beta=(beta, BETA),
)
ROUNDED = {f"q_{name}": name for name in DISTRIBUTIONS if name != "int_uniform" and not name.startswith("inv_")}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a space.

    Attributes:
        name: key of a setting, such as model.optimizer.lr.
        values: all its values, in order, for one that is a list or constant; else empty.
        shares: for each of the values, the share of draws that lie at it or before it; empty: all are equally likely.
        distribution: name in DISTRIBUTIONS, or `categorical`.
        fields: the distribution's arguments.
        q: values are rounded to multiples of this; None: not rounded.
    """

    name: str
    values: tuple[Any, ...] = ()
    shares: tuple[float, ...] = ()
    distribution: str = "categorical"
    fields: tuple[float, ...] = ()
    q: float | None = None

    def quantile(self, u: float) -> Any:
        """The value below which a share u (0 to 1) of the draws lies."""
        if self.values:
            place = bisect_right(self.shares, u) if self.shares else int(u * len(self.values))
            return self.values[min(place, len(self.values) - 1)]
        value = DISTRIBUTIONS[self.distribution][0](u, *self.fields)
        if self.q is None:
            return value
        rounded = round(value / self.q) * self.q
        return int(rounded) if isinstance(self.q, int) else rounded

    def grid(self) -> tuple[Any, ...]:
        """All values, where they can be counted.

        Raises:
            SettingsError: there is no end of them.
        """
        if self.values and not self.shares:
            return self.values
        if self.distribution == "int_uniform":
            return tuple(range(self.fields[0], self.fields[1] + 1))
        if self.distribution == "uniform" and self.q is not None:  # without the upper end, as W&B counts them
            low, high = self.fields
            return tuple(low + step * self.q for step in range(math.ceil((high - low) / self.q)))
        kind = "probabilities" if self.shares else self.distribution
        raise SettingsError(f"parameter {self.name}: method grid can't use {kind}; list its `values`")

    def corners(self) -> tuple[Any, ...]:
        """Every listed value, or both ends of the distribution."""
        return self.values or (self.quantile(0.0), self.quantile(1.0))


def check(parameters: Mapping[str, Any]) -> list[Parameter]:
    """Read the `parameters` of a sweep file.

    Returns:
        the parameters, nested ones under dotted names, sorted by name.

    Raises:
        SettingsError: one is not in the schema; it is named.
    """
    if not (isinstance(parameters, Mapping) and parameters):
        raise SettingsError("parameters: there are none; write `parameters:` with a line `KEY: {values: […]}` for each")
    found = list(unnest(parameters))
    names = [name for name, _ in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingsError(f"parameter {twice[0]} is there twice, nested and with dots")
    return [parameter(name, entry) for name, entry in sorted(found)]


def unnest(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted name and entry of each parameter."""
    for key, entry in parameters.items():
        name = f"{prefix}{key}"
        if not isinstance(entry, Mapping):
            raise SettingsError(f"parameter {name}: write `value: {entry}` below it, or `values:` and a list")
        if set(entry) == {"parameters"}:
            yield from unnest(entry["parameters"], f"{name}.")
        else:
            yield name, entry


def parameter(name: str, entry: Mapping[str, Any]) -> Parameter:
    """One parameter from its entry in the sweep file."""

    def wrong(problem: str) -> SettingsError:
        return SettingsError(f"parameter {name}: {problem}")

    given = dict(entry)
    distribution = given.pop("distribution", None)
    if "value" in given and set(given) == {"value"} and distribution in (None, "constant"):
        return Parameter(name, (given["value"],))
    if "values" in given and distribution in (None, "categorical", "categorical_w_probabilities"):
        values, probabilities = given.pop("values"), given.pop("probabilities", None)
        if given:
            raise wrong(f"{sorted(given)[0]} has no meaning beside `values`")
        if not (isinstance(values, Sequence) and not isinstance(values, str) and values):
            raise wrong(f"`values` must be a list with something in it, got {values!r}")
        if probabilities is None:
            return Parameter(name, tuple(without_repetitions(values)))
        if not (isinstance(probabilities, Sequence) and len(probabilities) == len(values)):
            raise wrong(f"`probabilities` must be a list of {len(values)} numbers, one for each value")
        if not all(isinstance(p, int | float) and p >= 0 for p in probabilities) or abs(sum(probabilities) - 1) > 1e-6:
            raise wrong(f"probabilities must not be negative and add up to 1, got {list(probabilities)}")
        return Parameter(name, tuple(values), tuple(itertools.accumulate(probabilities)))
    if distribution is None and {"min", "max"} <= set(given):
        whole = all(isinstance(given[end], int) for end in ("min", "max"))
        distribution = "int_uniform" if whole else "uniform"
    known = [*DISTRIBUTIONS, *ROUNDED, "categorical", "constant"]
    if distribution not in known:
        hint = did_you_mean(str(distribution), known) or f"; there are {', '.join(sorted(known))}"
        raise wrong("give it `value`, `values`, or `min` and `max`" if distribution is None else
                    f"there is no distribution {distribution}{hint}")  # fmt: skip
    if distribution in ("categorical", "constant"):
        raise wrong(f"distribution {distribution} needs `{'value' if distribution == 'constant' else 'values'}`")
    q = given.pop("q", 1) if distribution in ROUNDED else None
    distribution = ROUNDED.get(distribution, distribution)
    fields = DISTRIBUTIONS[distribution][1]
    if unknown := sorted(set(given) - set(fields)):
        raise wrong(f"{distribution} has no {unknown[0]}{did_you_mean(unknown[0], fields)}; it has {', '.join(fields)}")
    arguments = {field: given.get(field, default) for field, default in fields.items()}
    if q is not None:
        arguments["q"] = q
    for field, number in arguments.items():
        if number is None:
            raise wrong(f"{distribution} needs {field}")
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise wrong(f"{field} must be a number, got {number!r}")
        if distribution == "int_uniform" and not isinstance(number, int):
            raise wrong(f"{field} of int_uniform must be a whole number, got {number}")
        if number <= 0 and (field in ("a", "b", "q") or field != "max" and distribution.endswith("log_uniform_values")):
            raise wrong(f"{field} must be more than 0, got {number}")
    if "min" in arguments and arguments["min"] > arguments["max"]:
        raise wrong(f"min {arguments['min']} is more than max {arguments['max']}")
    if arguments.get("sigma", 0) < 0:
        raise wrong(f"sigma must not be negative, got {arguments['sigma']}")
    return Parameter(name, (), (), distribution, tuple(arguments[field] for field in fields), q)


def without_repetitions(values: Sequence[Any]) -> list[Any]:
    """Values, lists and maps included, each once."""
    return list({json.dumps(value, sort_keys=True, default=str): value for value in values}.values())


def grid(parameters: Mapping[str, Any]) -> list[Flat]:
    """All combinations, in W&B's order: parameters sorted by name, the last one changes fastest.

    Returns:
        settings of each run: short key → value.

    Raises:
        SettingsError: a parameter is wrong or has no end of values.
    """
    space = check(parameters)
    return [settings(space, values) for values in itertools.product(*(each.grid() for each in space))]


def sample(parameters: Mapping[str, Any], rng: random.Random) -> Flat:
    """One random draw: the settings of a run.

    Args:
        parameters: as in a sweep file.
        rng: gives one number for each parameter, in order of their names.

    Raises:
        SettingsError: a parameter is wrong.
    """
    space = check(parameters)
    return settings(space, [each.quantile(rng.random()) for each in space])


def corners(parameters: Mapping[str, Any]) -> list[Flat]:
    """Settings to check before a sweep starts: each listed value and both ends of each distribution, one at a time.

    The first has the first value of every parameter, each other one differs from it in one parameter.

    Raises:
        SettingsError: a parameter is wrong.
    """
    space = check(parameters)
    first = [each.corners()[0] for each in space]
    others = [
        [*first[:place], value, *first[place + 1 :]] for place, each in enumerate(space) for value in each.corners()[1:]
    ]
    return [settings(space, values) for values in [first, *others]]


def settings(space: Sequence[Parameter], values: Sequence[Any]) -> Flat:
    """One value for each parameter as the settings of a run; a class with settings of its own is flattened too."""
    return flatten({each.name: value for each, value in zip(space, values, strict=True)})
