"""What `lostfound status` tells. Loads no model."""

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from search.application import Application
from search.errors import DamagedIndexError, ModelError, SettingsError
from search.index.generations import Generations
from search.model import Model
from search.threshold import is_passed_over, load_threshold
from storage import changes, items, vectors
from storage.database import REVISION
from storage.items import HELD
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
                "items": by_status[Status.HELD] - vectors.count_without(session, encoder, HELD),
                "last change": changes.newest(session).number,
                **_on_disk(session, Generations(database.index_folder), encoder),
            }
        except ModelError:
            pass  # told by the section of the encoder
    return report | {
        "encoder": _told(lambda: _model(application.encoder)),
        "reranker": _told(lambda: _model(application.reranker)),
        "threshold": _told(lambda: _threshold(application)),
    }


def _on_disk(session: Session, generations: Generations, encoder: str) -> dict[str, Any]:
    told: dict[str, Any] = {"on disk": "none, searches read the stored vectors; `lostfound reindex` makes one"}
    if trouble := generations.trouble():
        told["on disk"] = f"none: {generations.folder} cannot be used, {trouble}"
    for name in generations.names():
        try:
            manifest = generations.manifest(name)
        except (DamagedIndexError, OSError) as error:
            told[name] = f"not used: {error}"
            continue
        if manifest.encoder == encoder and changes.reaches(session, manifest.position):
            told |= {
                "on disk": name,
                "kind": manifest.kind,
                "built": f"{manifest.built_at:%Y-%m-%d %H:%M} UTC",
                "recall": manifest.recall,
            }
            told |= {"items changed since": changes.count_since(session, manifest.position)}
            break
    return told | ({"set aside": ", ".join(aside)} if (aside := generations.set_aside_names()) else {})


def _told(collect: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return collect()
    except (ModelError, SettingsError) as error:
        return {"error": str(error)}


def _model(model: Model) -> dict[str, Any]:
    told = {"name": model.name, "folder": str(model.folder), "fingerprint": model.fingerprint}
    if notes := model.graph_notes:
        leaving = f", {1 - notes.early_exit.going_on[-1]:.0%} leave early" if notes.early_exit else ""
        return told | {"computed by": f"OpenVINO, {notes.precision}{leaving}"}
    if not model.runs_on_cpu:
        return told | {"computed by": f"torch on {model.torch_device}"}
    advice = "; `lostfound optimise` makes a CPU faster" if model.graph_folder else ""
    return told | {"computed by": "; ".join(model.warnings) or f"torch{advice}"}


def _threshold(application: Application) -> dict[str, Any]:
    threshold = load_threshold(application.reranker, application.threshold_file, application.encoder)
    if threshold is None:
        return {"value": None, "policy": "none fitted: nothing is hidden"}
    told = {"value": threshold.threshold, "policy": threshold.policy, "fitted on": threshold.fitted_on}
    told |= {"precision": threshold.precision}
    if threshold.blend:
        told |= {"blend": f"the similarity by {application.encoder.name} counts too"}
    if is_passed_over(application.threshold_file, application.reranker):
        told |= {"passed over": f"{application.threshold_file}, fitted for another reranker"}
    notes = application.reranker.graph_notes
    if notes and notes.early_exit_for not in (None, (threshold.threshold, application.encoder.fingerprint)):
        at, encoder = notes.early_exit_for
        which = "" if encoder == application.encoder.fingerprint else " with another encoder"
        told |= {"graph": f"measured at {at:.4f}{which}; `lostfound optimise` measures it anew"}
    return told
