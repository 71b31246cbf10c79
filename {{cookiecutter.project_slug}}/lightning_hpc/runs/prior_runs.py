"""Which runs W&B already has: so that what has finished elsewhere, on another cluster, is not submitted again."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..settings.errors import SettingsError

AT_ONCE = 50  # identities in one question

TIMEOUT = 30  # seconds for one


def finished_in_wandb(identities: Iterable[str], project: str, entity: str | None = None) -> set[str]:
    """Those of the identities that W&B has a finished run of; failed, crashed and running ones do not count.

    A run's id in W&B ends with its identity; one that was started by a W&B sweep has another id, but its name, that of
    its folder, ends with the identity's first 8 digits. For n runs in the project, a chance match has the
    probability n / 4,294,967,296.

    Args:
        identities: of the runs in question, see runs/identity.py.
        project, entity: where in W&B; without an entity, your default.

    Raises:
        SettingsError: W&B can't be reached or refuses.
    """
    import wandb

    finished: set[str] = set()
    try:
        api = wandb.Api(timeout=TIMEOUT)
        path = f"{entity or api.default_entity}/{project}"

        for batch in batches(sorted(set(identities))):
            ends = "|".join(identity[:8] for identity in batch)
            filters = dict(state="finished", display_name={"$regex": f"-({ends})$"})
            for run in api.runs(path, filters=filters, per_page=AT_ONCE):
                if run.state == "finished":
                    finished.update(identity for identity in batch if is_run_of(identity, run.id, run.name or ""))

    except Exception as error:  # W&B's client has half a dozen kinds without a common parent
        if "could not find project" in str(error).lower():  # nothing has run there yet
            return set()
        reason = re.sub(r"\s+", " ", str(error))[:200]
        raise SettingsError(f"W&B can't say what has run already ({reason}): try again") from None

    return finished


def place_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Project and entity of the W&B logger in a run's settings (short key → value); {} without one."""
    loggers = settings.get("trainer.logger")
    if not isinstance(loggers, list):
        return {}

    for logger in loggers:
        if isinstance(logger, dict) and str(logger.get("class_path")).endswith(".WandB"):
            arguments = logger.get("init_args") or {}
            return {key: arguments[key] for key in ("project", "entity") if arguments.get(key)}

    return {}


def is_run_of(identity: str, run_id: str, name: str) -> bool:
    """True if a W&B run is that of an identity, by its id or, for one of a sweep, by its name."""
    if run_id.endswith(f"-{identity}"):
        return True

    # An id that ends with another identity is another run, whose name may be similar by chance.
    has_identity = re.search(r"-[0-9a-f]{16}$", run_id)
    return not has_identity and name.endswith(identity[:8])


def batches(identities: list[str]) -> Iterator[list[str]]:
    """The identities, as many at a time as fit into one question."""
    for start in range(0, len(identities), AT_ONCE):
        yield identities[start : start + AT_ONCE]
