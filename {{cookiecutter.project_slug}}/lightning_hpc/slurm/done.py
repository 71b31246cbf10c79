"""Which of the runs that are to be submitted are done already: here, in W&B, or in another experiment."""

from collections.abc import Sequence
from pathlib import Path

from ..code.compare import notes_on_done
from ..experiments.links import done_elsewhere
from ..planning.plan import Plan
from ..runs.folder import RunFolder
from ..runs.prior_runs import finished_in_wandb, place_of
from ..settings.errors import SettingsError


def already_done(planned: Plan, check_wandb: bool, root: Path) -> set[int]:
    """Indices of the runs that are done here, by identity; and of those that W&B has as finished, if that is asked."""
    statuses = [RunFolder(file.parent).status() for file in planned.folder.glob("*/status.json")]
    ended = [status for status in statuses if status.get("state") == "done"]
    settings = planned.settings_of(planned.runs[0]).flat
    for line in notes_on_done(ended, root, planned.folder.parent, settings):
        print(line)

    done = {status["identity"] for status in ended}
    if check_wandb:
        place = place_of(settings)
        if not place:
            raise SettingsError(
                "--check-wandb: these runs have no W&B logger in trainer.logger, so there is no project"
            )
        done |= finished_in_wandb([run.identity for run in planned.runs], **place)
    return {run.index for run in planned.runs if run.identity in done}


def linkable(planned: Plan, todo: Sequence[int], link: bool, root: Path) -> dict[str, Path]:
    """The runs that are done in another experiment, identity → folder; says so, and what to type.

    Args:
        planned: the plan.
        todo: indices of the runs that would be trained.
        link: True if they are to be linked.
        root: the project's folder.
    """
    found = done_elsewhere(planned.folder, [planned.runs[index].identity for index in todo])
    if not found:
        return {}
    names = ", ".join(sorted({run.parent.name for run in found.values()}))
    offer = "they are linked" if link else "--link links them instead of training them again"
    print(f"{len(found)} of them are done in another experiment ({names}): {offer}")
    settings = planned.settings_of(planned.runs[0]).flat
    statuses = [RunFolder(run).status() for run in found.values()]
    for line in notes_on_done(statuses, root, planned.folder.parent, settings):
        print(line)
    return found
