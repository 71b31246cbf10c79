"""The search space of a sweep file, in W&B's own schema: what can be tried, and in which order.

    parameters:
      model.network.width: {values: [16, 32, 64]}                    a list; with `probabilities` if you like
      model.optimizer.lr: {distribution: log_uniform_values, min: 1e-4, max: 1e-1}
      trainer.max_epochs: {value: 5}                                 the same in all runs
      data: {parameters: {batch_size: {min: 16, max: 128} } }        nested: data.batch_size, a whole number

Every parameter is described by its quantile function: the value below which a share u of all draws lies. A random draw
is the quantile of a random u, both ends are those of u = 0 and u = 1, and a Bayesian search may look for the best u.
Names, defaults and rules are those of W&B's `sweeps` package, which itself is too old to be installed (numpy below 2).
The functions raise SettingsError where something is wrong with a parameter; the message names it.
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

from ..settings.errors import SettingsError, did_you_mean
from ..settings.flat import Flat, flatten

TAIL = 0.001  # a normal distribution has no ends: it is cut where this share of the draws lies on either side


def uniform(u: float, low: float, high: float) -> float:
    return low + u * (high - low)


def int_uniform(u: float, low: int, high: int) -> int:
    return min(high, low + math.floor(u * (high - low + 1)))  # u = 1 would be one number too far


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
    if sigma == 0:
        return mu
    return NormalDist(mu, sigma).inv_cdf(min(max(u, TAIL), 1 - TAIL))


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

        quantile_function, _ = DISTRIBUTIONS[self.distribution]
        value = quantile_function(u, *self.fields)
        if self.q is None:
            return value

        rounded = round(value / self.q) * self.q
        return int(rounded) if isinstance(self.q, int) else rounded  # layers and widths stay whole numbers

    def grid(self) -> tuple[Any, ...]:
        """All values, where they can be counted; SettingsError if there is no end of them."""
        if self.values and not self.shares:  # W&B has no grid of values with probabilities
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


def read_parameters(parameters: Mapping[str, Any]) -> list[Parameter]:
    """Read the `parameters` of a sweep file: nested ones get dotted names; they are sorted by name."""
    if not (isinstance(parameters, Mapping) and parameters):
        raise SettingsError("parameters: there are none; write `parameters:` with a line `KEY: {values: […]}` for each")

    entries: dict[str, Mapping[str, Any]] = {}
    for name, entry in unnest(parameters):
        if name in entries:
            raise SettingsError(f"parameter {name} is there twice, nested and with dots")
        entries[name] = entry

    return [read_parameter(name, entries[name]) for name in sorted(entries)]


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


def read_parameter(name: str, entry: Mapping[str, Any]) -> Parameter:
    """One parameter from its entry in the sweep file: a constant, a list of values, or a distribution."""
    fields = dict(entry)
    distribution = fields.pop("distribution", None)

    try:
        if set(fields) == {"value"} and distribution in (None, "constant"):
            return Parameter(name, (fields["value"],))
        if "values" in fields and distribution in (None, "categorical", "categorical_w_probabilities"):
            return read_categorical(name, fields)
        return read_distribution(name, distribution, fields)
    except SettingsError as error:
        raise SettingsError(f"parameter {name}: {error}") from None


def read_categorical(name: str, fields: Flat) -> Parameter:
    """A parameter that is a list of `values`, with or without `probabilities`."""
    meaningless = sorted(set(fields) - {"values", "probabilities"})
    if meaningless:
        raise SettingsError(f"{meaningless[0]} has no meaning beside `values`")

    values = fields["values"]
    if not isinstance(values, list | tuple) or not values:
        raise SettingsError(f"`values` must be a list with something in it, got {values!r}")

    probabilities = fields.get("probabilities")
    if probabilities is None:
        once = {json.dumps(value, sort_keys=True, default=str): value for value in values}
        return Parameter(name, tuple(once.values()))

    if not isinstance(probabilities, list | tuple) or len(probabilities) != len(values):
        raise SettingsError(f"`probabilities` must be a list of {len(values)} numbers, one for each value")

    possible = all(isinstance(share, int | float) and share >= 0 for share in probabilities)
    if not possible or abs(sum(probabilities) - 1) > 1e-6:
        raise SettingsError(f"probabilities must not be negative and add up to 1, got {list(probabilities)}")

    return Parameter(name, tuple(values), tuple(itertools.accumulate(probabilities)))


def read_distribution(name: str, distribution: str | None, fields: Flat) -> Parameter:
    """A parameter that is drawn from a distribution; without a name for it, min and max make it a uniform one."""
    if distribution is None and {"min", "max"} <= set(fields):
        whole = isinstance(fields["min"], int) and isinstance(fields["max"], int)
        distribution = "int_uniform" if whole else "uniform"
    check_distribution(distribution)

    # q_NAME is NAME, rounded to multiples of q.
    numbers = dict(fields)
    q = numbers.pop("q", 1) if distribution in ROUNDED else None
    distribution = ROUNDED.get(distribution, distribution)

    defaults = DISTRIBUTIONS[distribution][1]
    unknown = sorted(set(numbers) - set(defaults))
    if unknown:
        near = did_you_mean(unknown[0], defaults)
        raise SettingsError(f"{distribution} has no {unknown[0]}{near}; it has {', '.join(defaults)}")

    numbers = {**defaults, **numbers}
    for field, number in numbers.items():
        check_number(distribution, field, number)
    if q is not None:
        check_number(distribution, "q", q)

    if "min" in numbers and numbers["min"] > numbers["max"]:
        raise SettingsError(f"min {numbers['min']} is more than max {numbers['max']}")
    return Parameter(name, (), (), distribution, tuple(numbers[field] for field in defaults), q)


def check_distribution(distribution: str | None) -> None:
    """Check the name of a distribution with fields of its own."""
    if distribution is None:
        raise SettingsError("give it `value`, `values`, or `min` and `max`")
    if distribution in ("constant", "categorical"):
        needed = "value" if distribution == "constant" else "values"
        raise SettingsError(f"distribution {distribution} needs `{needed}`")

    known = [*DISTRIBUTIONS, *ROUNDED, "categorical", "constant"]
    if distribution not in known:
        hint = did_you_mean(str(distribution), known) or f"; there are {', '.join(sorted(known))}"
        raise SettingsError(f"there is no distribution {distribution}{hint}")


def check_number(distribution: str, field: str, number: Any) -> None:
    """Check one field of a distribution."""
    if number is None:
        raise SettingsError(f"{distribution} needs {field}")
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise SettingsError(f"{field} must be a number, got {number!r}")
    if distribution == "int_uniform" and not isinstance(number, int):
        raise SettingsError(f"{field} of int_uniform must be a whole number, got {number}")

    # The ends of a distribution over factors are above 0; max is so because it is not below min.
    positive = field in ("a", "b", "q") or (field == "min" and distribution.endswith("log_uniform_values"))
    if positive and number <= 0:
        raise SettingsError(f"{field} must be more than 0, got {number}")
    if field == "sigma" and number < 0:
        raise SettingsError(f"sigma must not be negative, got {number}")


def grid(parameters: Mapping[str, Any]) -> list[Flat]:
    """All combinations as settings of a run, in W&B's order: sorted by name, the last parameter changes fastest."""
    space = read_parameters(parameters)
    choices = [parameter.grid() for parameter in space]
    return [settings(space, values) for values in itertools.product(*choices)]


def sample(parameters: Mapping[str, Any], rng: random.Random) -> Flat:
    """One random draw. `rng` gives one number for each parameter, in order of their names."""
    space = read_parameters(parameters)
    return settings(space, [parameter.quantile(rng.random()) for parameter in space])


def corners(parameters: Mapping[str, Any]) -> list[Flat]:
    """Settings to check before a sweep starts: each listed value and both ends of each distribution, one at a time."""
    space = read_parameters(parameters)
    first = [parameter.corners()[0] for parameter in space]
    rows = [first]  # each other row differs from the first in one parameter

    for place, parameter in enumerate(space):
        for value in parameter.corners()[1:]:
            rows.append([*first[:place], value, *first[place + 1 :]])

    return [settings(space, row) for row in rows]


def settings(space: Sequence[Parameter], values: Sequence[Any]) -> Flat:
    """One value for each parameter as the settings of a run; a class with settings of its own is flattened too."""
    return flatten({parameter.name: value for parameter, value in zip(space, values, strict=True)})
