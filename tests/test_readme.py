"""The README is true: every command and every setting is in it."""

import re
from pathlib import Path

import typer

from search.cli import app
from search.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_readme_and_no_other() -> None:
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    in_code = re.findall(r"(?:`|\$ |^    )lostfound ([a-z-]+)", README, flags=re.MULTILINE)
    assert set(in_code) == commands


def test_every_setting_is_in_the_readme_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `LOSTFOUND_(\w+)` \| ([^|]*?) \|", README, flags=re.MULTILINE))
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default = str(field.default).replace(str(Path.home()), "~") or "empty"
        assert rows[name.upper()].strip("`") == default


def test_every_dependency_earns_its_place_in_a_line_of_the_readme() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = pyproject[pyproject.index("dependencies = [") : pyproject.index("[project.scripts]")]
    names = set(re.findall(r'"([a-z][a-z0-9-]+)[><=]', block))
    assert names <= set(re.findall(r"^\| `([a-z0-9-]+)` \|", README, flags=re.MULTILINE))


def test_the_scripts_of_the_readme_exist() -> None:
    for script in set(re.findall(r"scripts/([a-z_]+)", README)):
        assert (ROOT / "scripts" / script).exists()
