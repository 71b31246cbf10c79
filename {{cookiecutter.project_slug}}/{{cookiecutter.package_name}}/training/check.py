"""Train.py's own parser, for many requests in one process: what a launcher checks before it submits anything."""

import json
from collections.abc import Callable, Iterable

from ..runs.request import Request
from ..runs.settings import SettingsError
from .cli import CLI


def check_all(requests: Iterable[tuple[str, Request]], progress: Callable[[int], object] = lambda done: None) -> None:
    """Check every key and every value of every request, exactly as Train.py would, without running anything.

    The parser takes about 60 ms for a request, so one whose numbers have all been parsed before, each under the same
    key and beside the same classes and texts, is not parsed again: a grid of 100 × 10 numbers takes 100 parses.

    Args:
        requests: what to call each in an error, such as "run 73 (lr=abc)", and the request.
        progress: called with the number of requests that are right so far.

    Raises:
        SettingsError: the first wrong one: which request, key and value, and what was expected.
    """
    cli, right = None, set()
    for number, (name, wanted) in enumerate(requests):
        numbers = {k: v for k, v in wanted.settings.flat.items() if v is None or isinstance(v, bool | int | float)}
        others = {k: v for k, v in wanted.settings.flat.items() if k not in numbers}
        context = json.dumps([others, sorted(numbers)], sort_keys=True, default=str)
        parts = {(context, key, type(value), value) for key, value in numbers.items()} | {(context,)}
        if not parts <= right:
            try:
                if cli is None:
                    cli = CLI(wanted)  # the parser takes a second to build, so it is built once
                else:
                    cli.wanted = wanted
                    cli.parse_arguments(cli.parser)
            except SettingsError as error:
                raise SettingsError(f"{name}: {error}") from None
            right |= parts
        progress(number + 1)
