"""The command line as clerks and cron jobs use it, with tiny models."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.console import Console

from search.cli import app

Run = Callable[..., tuple[int, str, str]]

COMMANDS = ("init", "add", "import", "update", "return", "dispose", "show", "search", "score", "reindex", "status")


def test_an_item_goes_through_its_life(stocked: Run) -> None:
    assert stocked("update", "H-1", "--place", "platform 4", "--colour", "red")[0] == 0
    assert stocked("update", "H-1", "--colour", "")[0] == 0
    code, out, _ = stocked("show", "H-1", "--json")
    shown = json.loads(out)
    assert (code, shown["place"], shown["colour"], shown["found_on"]) == (0, "platform 4", None, "2026-10-01")
    assert json.loads(stocked("return", "H-1", "--json")[1])["status"] == "returned"
    assert json.loads(stocked("dispose", "H-2", "--json")[1])["status"] == "disposed"
    answer = json.loads(stocked("search", "hat", "--json", "--all")[1])
    assert [match["reference"] for match in answer["matches"]] == ["H-3"]
    everything = json.loads(stocked("search", "hat", "--json", "--all", "--status", "any")[1])
    assert {match["reference"] for match in everything["matches"]} == {"H-1", "H-2", "H-3"}
    status = json.loads(stocked("status", "--json")[1])
    assert status["items"] == {"held": 1, "returned": 1, "disposed": 1, "total": 3}
    assert status["vectors"] == {"of this encoder": 3, "of other encoders": 0, "missing": 0}
    assert status["index"]["items"] == 1


def test_status_tells_of_a_missing_model_and_of_all_the_rest(stocked: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSTFOUND_RERANKER", "/no/such/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, _ = stocked("status", "--json")
    status = json.loads(out)
    assert (code, status["items"]["held"]) == (0, 3)
    assert "neither built in" in status["reranker"]["error"]


def test_a_search_prints_a_table_for_a_person(stocked: Run) -> None:
    code, out, error = stocked("search", "a [red] hat", "--top", "2")
    assert code == 0
    assert "a [red] hat" in out
    assert sum(f"H-{number}" in out for number in (1, 2, 3)) == 2
    assert "3 candidates compared, no threshold. The best 2 are shown, --top 3 shows all." in " ".join(out.split())
    assert "--top" not in stocked("search", "hat")[1]
    assert "no threshold is fitted" in error


def test_no_match_is_an_answer_and_no_error(stocked: Run) -> None:
    code, out, error = stocked("search", "hat", "--min-score", "1")
    assert (code, error) == (0, "")
    assert "No match for: hat" in out
    assert "--all shows them" in out
    assert json.loads(stocked("search", "hat", "--min-score", "1", "--json")[1])["matches"] == []
    assert "There is no item to compare." in stocked("search", "hat", "--office", "Nowhere", "--all")[1]


def test_an_answer_that_cannot_be_written_is_no_success(stocked: Run) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for arguments in (("status", "--json"), ("search", "hat", "--all")):
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                [sys.executable, "-m", "search.cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True,
                env=environment, check=False,
            )  # fmt: skip
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].startswith("error: the answer cannot be written: No space left")
        assert "Exception" not in ended.stderr


def test_an_import_stores_the_good_rows_and_lays_the_bad_ones_aside(stocked: Run, tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes(
        b"reference,description,shelf\nH-1,a red hat,\nH-4,a fez,3\nH-5,,4\nH-6,caf\xe9,5\nH-1,a pink hat,1\n"
    )
    code, out, error = stocked("import", str(path), "--json")
    summary = json.loads(out)
    assert code == 0
    assert [summary[key] for key in ("added", "updated", "unchanged", "rejected")] == [1, 1, 1, 2]
    assert "shelf" in error
    rejects = [json.loads(line) for line in (tmp_path / "export.rejects.jsonl").read_text().splitlines()]
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [
        (4, "description: is empty"),
        (5, "description: is not UTF-8"),
    ]
    assert [reject["row"] for reject in rejects] == ["H-5,,4", "H-6,caf\\xe9,5"]
    path.write_text("ref;description\nH-4;a fez\n")
    assert stocked("import", str(path))[0] == 1
    assert (tmp_path / "export.rejects.jsonl").exists()
    path.write_text("reference,description,status\nH-4,a fez, \n")
    assert stocked("import", str(path))[0] == 0
    assert not (tmp_path / "export.rejects.jsonl").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_good_rows_are_stored_though_the_bad_ones_cannot_be_laid_aside(stocked: Run, tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text("reference,description\nH-5,\nH-6,a fez\n")
    code, out, error = stocked("import", str(path), "--rejects", "/proc/rejects.jsonl")
    assert (code, out, "/proc/rejects.jsonl cannot be written" in error) == (1, "", True)
    assert stocked("show", "H-6")[0] == 0
    earlier = tmp_path / f"{'r' * 240}.jsonl"  # beside such a name there is no place for an unfinished file
    earlier.write_text('{"file": "export.csv", "line": 2, "reason": "", "row": ""}\n')
    code, out, error = stocked("import", str(path), "--rejects", str(earlier))
    assert (code, out, "cannot be written: File name too long" in error) == (1, "", True)
    assert earlier.exists()


def test_rejects_are_as_private_as_the_export_that_they_quote(stocked: Run, tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text("reference,description\nH-5,\n")
    for mode in (0o600, 0o640, 0o444):
        path.chmod(mode)
        assert stocked("import", str(path))[0] == 0
        assert path.with_name("export.rejects.jsonl").stat().st_mode & 0o777 == mode | 0o600


def test_rejects_replace_nothing_but_rejects(stocked: Run, office: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("reference,description\nG-1,a fez\n")
    bad.write_text("reference,description\nB-1,\nB-2,a cap\n")
    (tmp_path / "notes.txt").write_text("precious")
    for source in (good, bad):
        for target in (source, tmp_path / "notes.txt", office / "lostfound.db", Path("/dev/null"), tmp_path):
            code, _, error = stocked("import", str(source), "--rejects", str(target))
            assert (code, "no file of rejects" in error) == (1, True)
    assert (tmp_path / "notes.txt").read_text() == "precious"
    assert good.read_text().endswith("a fez\n")
    stocked("import", str(bad), "--rejects", str(tmp_path / "same.jsonl"))
    stocked("import", str(good), "--rejects", str(tmp_path / "same.jsonl"))
    assert "bad.csv" in (tmp_path / "same.jsonl").read_text()


def test_a_failing_database_leaves_word_of_what_is_stored(stocked: Run, office: Path, tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text("reference,description\nB-1,\n" + "".join(f"R-{n},thing {n}\n" for n in range(600)))
    with sqlite3.connect(office / "lostfound.db") as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON items WHEN new.reference = 'R-550' "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    connection.close()
    code, _, error = stocked("import", str(path))
    assert (code, "511 rows of" in error) == (1, True)
    assert "B-1" in (tmp_path / "export.rejects.jsonl").read_text()


def test_answers_reach_stdout_while_a_progress_bar_is_drawn(
    stocked: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.console.err", Console(stderr=True, force_terminal=True))
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"lost": "a hat", "found": "a red hat"}\n' * 3)
    code, out, error = stocked("score", str(path))
    assert (code, len(out.splitlines())) == (0, 3)
    assert "Scoring" in error


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("show", "X-9"), 1, "no item has the reference 'X-9'"),
        (("return", "X-9"), 1, "no item has the reference 'X-9'"),
        (("update", "X-9", "--place", "x"), 1, "no item has the reference 'X-9'"),
        (("update", "H-1"), 2, "name at least one field"),
        (("update", "H-1", "--description", " "), 1, "description: is empty"),
        (("update", "H-1", "--status", "any"), 1, "status: 'any'"),
        (("add", "  "), 1, "description: is empty"),
        (("add", "a hat", "--reference", "H-1"), 1, "'H-1' exists"),
        (("add", "a hat", "--found-on", "yesterday"), 1, "not a date in the form YYYY-MM-DD"),
        (("search", ""), 1, "the query is empty"),
        (("search", "  "), 1, "the query is empty"),
        (("search",), 2, "--queries FILE"),
        (("search", "hat", "--all", "--min-score", "0.5"), 2, "give one of them"),
        (("search", "hat", "--top", "0"), 2, "--top"),
        (("search", "hat", "--depth", "0"), 2, "--depth"),
        (("search", "hat", "--min-score", "2"), 2, "--min-score"),
        (("search", "hat", "--found-from", "1.2.2026"), 2, "YYYY-MM-DD"),
        (("search", "hat", "--found-from", "2026-02-02", "--found-to", "2026-02-01"), 1, "is after the last"),
        (("search", "hat", "--office", " "), 2, "must not be empty"),
        (("search", "hat", "--category", "x\udce9"), 2, "is not UTF-8"),
        (("search", "hat \udce9"), 1, "the query is not UTF-8"),
        (("show", "\udce9"), 2, "is not UTF-8"),
        (("import", "."), 1, "neither *.csv nor *.jsonl"),
        (("import", "x" * 5000 + ".csv"), 1, "File name too long"),
        (("search", "--queries", "missing.jsonl"), 1, "missing.jsonl cannot be read: No such file"),
        (("import", "missing.csv"), 1, "missing.csv cannot be read: No such file"),
        (("score", "missing.jsonl"), 1, "missing.jsonl cannot be read"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_a_mistake_gets_one_clear_line(stocked: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    exit_code, out, error = stocked(*arguments)
    assert (exit_code, out) == (code, "")
    assert message in " ".join(error.replace("│", " ").split())
    assert "Traceback" not in error
    if code == 1:
        assert len(error.splitlines()) == 1


def test_a_database_that_was_never_made_names_the_command_that_makes_it(lostfound: Run) -> None:
    for arguments in (("search", "hat"), ("add", "a hat"), ("status",)):
        code, _, error = lostfound(*arguments)
        assert (code, "lostfound init" in error) == (1, True)


def test_a_defect_of_ours_is_one_line_and_its_traceback_is_in_the_log(
    stocked: Run, office: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("json.dumps", lambda *_, **__: 1 / 0)
    code, _, error = stocked("show", "H-1", "--json")
    assert (code, len(error.splitlines())) == (1, 1)
    assert "unexpected ZeroDivisionError" in error
    assert "Traceback" in (office / "lostfound.log").read_text()


def test_every_command_and_option_has_a_help_text() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(commands) >= set(COMMANDS)
    for command in commands.values():
        assert command.help
        for parameter in command.params:
            assert parameter.help, f"{command.name} {parameter.name}"


def test_help_and_status_load_no_model(office: Path) -> None:
    subprocess.run([sys.executable, "-m", "search.cli", "init"], check=True, capture_output=True)
    for arguments, unwanted in ((["--help"], ("torch", "sqlalchemy", "numpy")), (["status"], ("torch",))):
        code = (
            "import sys; sys.argv = ['lostfound', *sys.argv[1:]]\n"
            "from search.cli import main\n"
            "try: main()\n"
            f"finally: assert not set(sys.modules) & set({unwanted})"
        )
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


@pytest.mark.slow
def test_an_import_that_is_killed_and_repeated_ends_as_if_it_had_never_been_killed(office: Path) -> None:
    lines = [json.dumps({"reference": f"K-{n}", "description": f"thing {n} " * 30}) for n in range(6000)]
    Path("export.jsonl").write_text("\n".join(lines))
    command = [sys.executable, "-m", "search.cli"]
    subprocess.run([*command, "init"], check=True, capture_output=True)
    with subprocess.Popen([*command, "import", "export.jsonl"], start_new_session=True) as process:
        while process.poll() is None:
            if items_stored(command) >= 512:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
    assert process.returncode == -signal.SIGKILL
    stored = items_stored(command)
    assert 512 <= stored < 6000
    assert stored % 512 == 0
    summary = json.loads(
        subprocess.run([*command, "import", "export.jsonl", "--json"], check=True, capture_output=True).stdout
    )
    assert (summary["added"], summary["unchanged"], summary["rejected"]) == (6000 - stored, stored, 0)
    assert items_stored(command) == 6000


def items_stored(command: list[str]) -> int:
    status = json.loads(subprocess.run([*command, "status", "--json"], check=True, capture_output=True).stdout)
    assert status["vectors"]["missing"] == 0
    return int(status["items"]["total"])
