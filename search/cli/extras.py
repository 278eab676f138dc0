"""What commands need beyond the plain installation."""

from importlib.util import find_spec

from search.errors import SettingsError

EXTRAS = {
    "fast": ("nncf", "openvino", "sklearn"),
    "train": ("accelerate", "bm25s", "datasets", "filelock", "matplotlib", "sklearn"),
}
"""The modules of each extra."""


def require_extra(*extras: str) -> None:
    """Refuse a command whose libraries are not there.

    Raises:
        SettingsError: A module of the extras is not installed.
    """
    missing = sorted({name for extra in extras for name in EXTRAS[extra] if find_spec(name) is None})
    if missing:
        setup = "scripts/setup train" if "train" in extras else "scripts/setup"
        raise SettingsError(f"{', '.join(missing)} is not installed; run `{setup}`")
