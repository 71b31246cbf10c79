"""gs://…: what only Google's store can do wrong, how often it is asked, and whose key is used."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from faulty import Fault
from google_stand_in import PAGE
from places import GooglePlace, operations

from lightning_hpc.remote import Missing, StoreError, open_store

LARGE = 6_000_000  # gcsfs sends it as an upload that can have several parts


@pytest.fixture
def bucket(make_place) -> GooglePlace:
    return make_place("google")


def test_a_bucket_that_is_not_there_is_no_empty_one(bucket, file, tmp_path):
    store = open_store("gs://no-such-bucket/project")
    for act in operations(store, file, tmp_path / "target"):
        with pytest.raises(StoreError, match="no such place.*notFound") as caught:
            act()
        assert type(caught.value) is StoreError and caught.value.permanent


def test_a_file_is_missing_only_if_the_bucket_answers(bucket, file, tmp_path):
    """The file's own 404 is believed only together with an answer of the bucket."""
    store = bucket.open()
    store.put({"run/x": file})
    bucket.proxy.fault = Fault(503, b"{}", only="maxResults=1")
    with pytest.raises(StoreError) as caught:
        store.get("run/none", tmp_path / "target")
    assert not isinstance(caught.value, Missing)

    bucket.mend()
    with pytest.raises(Missing):
        store.get("run/none", tmp_path / "target")


def test_a_place_may_be_a_whole_bucket(bucket, file, tmp_path):
    store = open_store(bucket.url.removesuffix("/project"))
    names = {f"run/{number}" for number in range(2 * PAGE + 1)}
    store.put(dict.fromkeys(names, file))
    assert set(store.list("")) == set(store.list("run")) == names


@pytest.mark.parametrize("status", [401, 429, 500, 502, 503])
def test_an_error_is_told_at_once(bucket, file, status):
    """gcsfs alone would try six times, for half a minute."""
    store = bucket.open()
    store.put({"run/x": file})
    bucket.proxy.fault = Fault(status, b'{"error": {"message": "Invalid Credentials"}}')
    before = len(bucket.proxy.requests)
    with pytest.raises(StoreError, match=f"HTTP {status}"):
        store.list("")
    assert len(bucket.proxy.requests) == before + 1


def test_a_large_upload_that_is_cut_off_leaves_the_file_before(bucket, file, tmp_path):
    store = bucket.open()
    store.put({"run/step.ckpt": file})
    large = tmp_path / "large"
    large.write_bytes(bytes(LARGE))
    bucket.proxy.fault = Fault(dropped=True, only="^POST.*upload_id")
    with pytest.raises(StoreError, match="no answer") as caught:
        store.put({"run/step.ckpt": large})
    assert not caught.value.permanent
    assert store.list("") == {"run/step.ckpt": 7}

    bucket.mend()
    store.put({"run/step.ckpt": large})
    store.get("run/step.ckpt", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == bytes(LARGE)


def test_a_server_that_nobody_answers_for_is_given_up_soon(bucket, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    begin = time.monotonic()
    with pytest.raises(StoreError, match="no answer") as caught:
        bucket.open().list("")
    assert not caught.value.permanent and time.monotonic() - begin < 20


def test_a_key_that_google_does_not_take_says_where_keys_belong(bucket, google):
    bucket.key.write_text(bucket.key.read_text().replace("/token", "/no-token"))
    with pytest.raises(StoreError, match="no access.*GOOGLE_APPLICATION_CREDENTIALS") as caught:
        bucket.open().list("")
    assert caught.value.permanent and caught.value.__suppress_context__
    assert not [secret for secret in bucket.secrets if secret in f"{caught.value!r} {caught.value.__cause__}"]


def test_no_key_at_all_says_where_keys_belong(bucket, monkeypatch, tmp_path):
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(StoreError, match="who asks.*gcloud auth application-default login") as caught:
        bucket.open().list("")
    assert caught.value.permanent


def test_a_package_that_is_missing_is_named(bucket):
    program = "import sys; sys.modules['gcsfs'] = None\nfrom lightning_hpc.remote import open_store\n"
    program += f"try: open_store({bucket.url!r})\nexcept ValueError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert said == 'a mirror at gs:// needs gcsfs: pip install -e ".[remote]"\n'


def test_two_threads_may_ask_one_store_the_same(bucket, file):
    store = bucket.open()
    store.put({"run/x": file})
    bucket.proxy.fault = Fault(seconds=0.3)  # so that both wait at once
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(store.list, [""] * 4)) == [{"run/x": 7}] * 4
