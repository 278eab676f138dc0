"""Where the traceback of an unexpected error goes, for the report to the developers."""

import traceback
from datetime import UTC, datetime

from search.settings import load_settings


def log_defect(error: Exception) -> str:
    """Append the traceback to `lostfound.log` in the data folder; the sentence that tells the user. Never raises."""
    try:
        path = load_settings().data_dir / "lostfound.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"{datetime.now(UTC).isoformat()}\n{''.join(traceback.format_exception(error))}\n")
    except Exception as reason:
        return f"its details could not be logged ({reason})"
    return f"details are in {path}"
