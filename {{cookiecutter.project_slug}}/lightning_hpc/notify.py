"""One message when an array or a sweep has ended: to a webhook, as an alert in W&B, or both.

Set NOTIFY_WEBHOOK to the address of a webhook (Slack, Mattermost, Discord, Teams and ntfy.sh take this form), or
NOTIFY_WANDB=1 for an alert in W&B. Both belong into the environment or .env: an address like this is a password.
"""

import http.client
import json
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT = 30.0  # seconds; nobody waits for a message

SENT = Path("sweeps", ".notified")  # a file for each sweep whose end has been told


def somebody_to_tell() -> bool:
    """True if the environment names a webhook or asks for alerts in W&B."""
    return bool(os.environ.get("NOTIFY_WEBHOOK")) or os.environ.get("NOTIFY_WANDB") == "1"


def notify(title: str, text: str, project: str | None = None, entity: str | None = None) -> list[str]:
    """Send a message to whatever is set in the environment.

    Args:
        title: at most 64 characters are shown.
        text: what has happened.
        project, entity: where in W&B the alert belongs.

    Returns:
        a line for each message: that it was sent, or why not. Nothing is raised: a job must not fail for a message.
    """
    lines = []

    url = os.environ.get("NOTIFY_WEBHOOK")
    if url:
        lines.append(f"webhook: {to_webhook(url, title, text)}")

    if os.environ.get("NOTIFY_WANDB") == "1":
        lines.append(f"W&B alert: {to_wandb(title, text, project, entity)}")

    return lines


def notify_once(root: Path, sweep: str, text: str) -> list[str]:
    """Tell that a sweep has ended; of all the agents that notice, the first one does.

    Args:
        root: the project's folder.
        sweep: the sweep's id.
        text: how it ended.

    Returns:
        a line for each message; none if there is nobody to tell, or another agent has told it.
    """
    if not somebody_to_tell():
        return []

    marker = root / SENT / sweep.replace("/", ":")
    marker.parent.mkdir(parents=True, exist_ok=True)
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return []

    return notify(f"sweep {sweep} has ended", text)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: urllib would follow it without the message, which then counts as sent."""

    def redirect_request(self, *_: object) -> None:
        return None


def to_webhook(url: str, title: str, text: str) -> str:
    """Post the message; returns `sent`, or why not, without the address."""
    if not url.lower().startswith(("http://", "https://")):
        return "not sent: NOTIFY_WEBHOOK is no address that begins with https:// or http://"

    message = f"{title}\n{text}"
    # Services read different fields of the same message: Slack `text`, Discord `content`, for example.
    body = json.dumps({"title": title, "text": message, "content": message, "message": text}).encode()

    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.build_opener(NoRedirects).open(request, timeout=TIMEOUT):
            return "sent"
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:
            return f"not sent: it answers {error.code} and has another address now; set NOTIFY_WEBHOOK to that"
        return f"not sent: it answers {error.code}"
    except (OSError, ValueError, http.client.HTTPException):
        return "not sent: it can't be reached"


def to_wandb(title: str, text: str, project: str | None, entity: str | None) -> str:
    """Send an alert from a run that has nothing else in it; returns `sent`, or why not."""
    import wandb

    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = wandb.Settings(init_timeout=TIMEOUT, silent=True)
            place = dict(project=project, entity=entity, dir=folder)
            with wandb.init(job_type="notification", name=title, settings=settings, **place) as run:
                run.alert(title[:64], text, level="INFO")
    except wandb.Error as error:
        return f"not sent: {str(error).splitlines()[0]}"

    return "sent"
