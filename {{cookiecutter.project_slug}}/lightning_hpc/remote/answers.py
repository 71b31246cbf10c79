"""What a server's refusal means for who mirrors a run: is it worth trying again, and what has to be done?

Texts that servers send are not repeated: they can hold addresses with keys in them.
"""

from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

from .store import StoreError

FULL = {413, 507}
BUSY = {408, 425, 429}

# Codes of object stores that say more than the HTTP status with which they come.
NO_SPACE = {
    "QuotaExceeded",
    "EntityTooLarge",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "StorageLimitExceeded",
    "quotaExceeded",
}
SLOW_DOWN = {
    "SlowDown",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "rateLimitExceeded",
    "userRateLimitExceeded",
}
CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}


def refused(
    address: str, status: int, headers: Mapping[str, str] | None = None, *, code: str = "", keys: str = ""
) -> StoreError:
    """The error for an answer that is none.

    Args:
        address: of the place.
        status: of HTTP.
        headers: of the answer; `Retry-After` and `Date` are read.
        code: the service's own word for it, such as NoSuchBucket.
        keys: where this service looks for a key.
    """
    said = f"HTTP {status}{f' {code}' if code and not code.isdigit() else ''}"
    wait = _retry_after({name.lower(): value for name, value in (headers or {}).items()})
    if code in NO_SPACE or status in FULL:
        return StoreError(f"{address}: no space or quota is left ({said}); make room there", permanent=True)
    if code in CLOCK:
        return StoreError(f"{address}: this machine's clock is wrong, so its key is refused ({said})", permanent=True)
    if status in BUSY or code in SLOW_DOWN:
        return StoreError(f"{address}: it wants fewer requests ({said})", retry_after=wait)
    if status == 401:
        return StoreError(f"{address}: it does not know who asks ({said}); {keys or 'log in'}", permanent=True)
    if status in (402, 403):
        return StoreError(f"{address}: this key may not do that, or is wrong ({said}); {keys}", permanent=True)
    if status >= 500:
        return StoreError(f"{address}: an error of the server's own ({said})", retry_after=wait)
    if status in (404, 410):
        return StoreError(f"{address}: there is no such place ({said}), or this key may not see it", permanent=True)
    return StoreError(f"{address}: the server answers {said}", permanent=True)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server wants to be left alone: a number, or a time, which counts from the server's own clock."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError):
        return None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
