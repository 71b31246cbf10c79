"""What each place says when it is broken: never "there is none", one line, and whether it is worth trying again."""

import time

import places
import pytest

from lightning_hpc.remote import Missing, StoreError

CONTENT = b"content " * 1000

# Fault → whether trying again is in vain; None: that depends on the place.
PERMANENT = {
    places.UNREACHABLE: None,
    places.WRONG_KEY: True,
    places.FORBIDDEN: True,
    places.BROKEN: False,
    places.BUSY: False,
    places.BUSY_FOR_7_S: False,
    places.STRAY_404: True,
}


# W&B's client takes seconds to start, and seconds to give up.
SERVED = [kind for kind in places.KINDS if kind not in ("memory", "wandb")]


@pytest.fixture(params=[*SERVED, pytest.param("wandb", marks=pytest.mark.slow)])
def filled(request, make_place, tmp_path):
    """A place with one file, and a store that knows it."""
    place = make_place(request.param)
    place.source = tmp_path / "source"
    place.source.write_bytes(CONTENT)
    place.store = place.open()
    place.store.put({"run/step.ckpt": place.source})
    return place


def operations(place, store, target):
    """What can be asked of a store, by name."""
    return {
        "list": lambda: store.list("run"),
        "get": lambda: store.get("run/step.ckpt", target),
        "get what is not there": lambda: store.get("run/none", target),
        "put": lambda: store.put({"run/step.ckpt": place.source, "run/new": place.source}),
        "delete": lambda: store.delete(["run/step.ckpt"]),
    }


def broken(place, fault):
    """Break it, or leave the test: not every place can have every fault."""
    if not place.break_with(fault):
        pytest.skip(f"{type(place).__name__} can't have this fault")


@pytest.mark.parametrize("fault", PERMANENT)
def test_a_place_that_is_broken_never_says_that_there_is_none(filled, fault, tmp_path):
    broken(filled, fault)
    target = tmp_path / "target"
    # By one who has been there before, and by one who comes only now.
    acts = operations(filled, filled.store, target) | {"first": lambda: filled.open().list("run")}
    for name, act in acts.items():
        begin = time.monotonic()
        with pytest.raises(StoreError) as caught:
            act()
            pytest.fail(f"{name}: {fault} went unnoticed")
        assert not isinstance(caught.value, Missing), name
        assert time.monotonic() - begin < 20, name
        check(filled, caught.value, fault)
        assert not target.exists()

    filled.mend()
    assert filled.open().list("run") == {"run/step.ckpt": len(CONTENT)}
    filled.store.get("run/step.ckpt", target)
    assert target.read_bytes() == CONTENT


def check(place, error, fault):
    """One line that says where, without a secret, and whether to try again."""
    text = f"{error} {error!r} {error.__cause__} {error.args}"
    assert "\n" not in str(error) and place.url in str(error)
    assert not [secret for secret in place.secrets if secret in text]
    assert error.__suppress_context__ or error.__context__ is None  # else a traceback would show the client's words
    if PERMANENT.get(fault) is not None:
        assert error.permanent is PERMANENT[fault], error
    assert error.retry_after == (7.0 if fault == places.BUSY_FOR_7_S else None)


def test_a_download_that_ends_early_is_no_file(filled, tmp_path):
    broken(filled, places.TRUNCATED)
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(StoreError) as caught:
        filled.store.get("run/step.ckpt", target)
    assert not caught.value.permanent and not isinstance(caught.value, Missing)
    assert target.read_bytes() == b"old" and {file.name for file in tmp_path.glob("*targ*")} == {"target"}


def test_a_quota_that_is_used_up_leaves_what_is_there(filled):
    broken(filled, places.QUOTA)
    with pytest.raises(StoreError, match="no space or quota is left") as caught:
        filled.store.put({"run/new": filled.source})
    assert caught.value.permanent
    check(filled, caught.value, places.QUOTA)

    filled.mend()
    assert filled.open().list("") == {"run/step.ckpt": len(CONTENT)}


def test_no_message_and_no_object_shows_a_secret(filled):
    shown = f"{filled.store!r} {filled.store.address} {vars(filled.store)}"
    assert filled.url in filled.store.address
    assert not [secret for secret in filled.secrets if secret in shown]
