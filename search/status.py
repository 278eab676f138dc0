"""What `lostfound status` tells. Loads no model."""

from typing import Any

from search.application import Application
from search.threshold import FILE_NAME, load_threshold
from storage import changes, items, vectors
from storage.database import REVISION, database_file
from storage.models import Status


def collect_status(application: Application) -> dict[str, dict[str, Any]]:
    """The state of the office by section: items, vectors, index, models, threshold.

    Raises:
        DatabaseError: The database cannot be read.
        ModelError: A model of the settings is missing, or its threshold is another model's.
    """
    encoder, reranker = application.encoder, application.reranker
    with application.database.read() as session:
        by_status = items.count_by_status(session)
        by_encoder = vectors.count_by_encoder(session)
        last_change = changes.last_number(session)
    of_this = by_encoder.pop(encoder.fingerprint, 0)
    total = sum(by_status.values())
    threshold = load_threshold(reranker)
    return {
        "database": {"file": str(database_file(application.database.url)), "revision": REVISION},
        "items": {status.value: count for status, count in by_status.items()} | {"total": total},
        "vectors": {
            "of this encoder": of_this,
            "of other encoders": sum(by_encoder.values()),
            "missing": total - of_this,
        },
        "index": {
            "kind": "exact, built in memory from the vectors of the held items",
            "items": by_status[Status.HELD],
            "last change": last_change,
        },
        "encoder": {"name": encoder.name, "folder": str(encoder.folder), "fingerprint": encoder.fingerprint},
        "reranker": {"name": reranker.name, "folder": str(reranker.folder), "fingerprint": reranker.fingerprint},
        "threshold": {
            "value": threshold.threshold if threshold else None,
            "policy": threshold.policy if threshold else "none fitted: nothing is hidden",
            "source": str(reranker.folder / FILE_NAME) if threshold else None,
        },
    }
