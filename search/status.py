"""What `lostfound status` tells. Loads no model."""

from collections.abc import Callable
from typing import Any

from search.application import Application
from search.encoder import BiEncoder
from search.errors import ModelError
from search.reranker import Reranker
from search.threshold import is_passed_over, load_threshold
from storage import changes, items, vectors
from storage.database import REVISION
from storage.items import Filters
from storage.models import Status


def collect_status(application: Application) -> dict[str, dict[str, Any]]:
    """The state of the office by section; a model or threshold that cannot be used is told in its section.

    Raises:
        DatabaseError: The database cannot be read.
    """
    database = application.database
    with database.read() as session:
        report: dict[str, dict[str, Any]] = {"database": {"file": str(database.file), "revision": REVISION}}
        by_status = items.count_by_status(session)
        report["items"] = {status.value: count for status, count in by_status.items()}
        report["items"]["total"] = sum(by_status.values())
        try:
            encoder = application.encoder.fingerprint
            by_encoder = vectors.count_by_encoder(session)
            of_this = by_encoder.pop(encoder, 0)
            report["vectors"] = {
                "of this encoder": of_this,
                "of other encoders": sum(by_encoder.values()),
                "missing": report["items"]["total"] - of_this,
            }
            report["index"] = {
                "kind": "exact, built in memory from the vectors of the held items",
                "items": by_status[Status.HELD] - vectors.count_without(session, encoder, Filters(Status.HELD)),
                "last change": changes.last_number(session),
            }
        except ModelError:
            pass  # told by the section of the encoder
    return report | {
        "encoder": _told(lambda: _model(application.encoder)),
        "reranker": _told(lambda: _model(application.reranker)),
        "threshold": _told(lambda: _threshold(application)),
    }


def _told(collect: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return collect()
    except ModelError as error:
        return {"error": str(error)}


def _model(model: BiEncoder | Reranker) -> dict[str, Any]:
    return {"name": model.name, "folder": str(model.folder), "fingerprint": model.fingerprint}


def _threshold(application: Application) -> dict[str, Any]:
    threshold = load_threshold(application.reranker, application.threshold_file)
    if threshold is None:
        return {"value": None, "policy": "none fitted: nothing is hidden"}
    told = {"value": threshold.threshold, "policy": threshold.policy, "fitted on": threshold.fitted_on}
    told |= {"precision": threshold.precision}
    if is_passed_over(application.threshold_file, application.reranker):
        told |= {"passed over": f"{application.threshold_file}, fitted for another reranker"}
    return told
