"""Places where files of runs can be put, and another machine can fetch them: folders, object stores, hosts, services.

    store = open_store("s3://BUCKET/FOLDER")
    store.put({"3f9c2a71/latest.json": Path("latest.json")})

Four operations, the same for all of them: put, get, list, delete. What goes where, and when, is the business of the
room `mirror`. Clients are imported when a place is opened, since no run without a mirror needs them.
"""

from .opening import open_store
from .store import Missing, Store, StoreError

__all__ = ["Missing", "Store", "StoreError", "open_store"]
