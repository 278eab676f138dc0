import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import DatabaseError, InputFileError
from search.item_input import ImportedItem
from search.line_reader import LINE_LIMIT, LineReader
from search.rejects import RejectsFile
from search.row_file import Reject, RowFile

HEADER = b"reference,description,found_on,status\n"
TOMORROW_PLUS = (datetime.now(UTC).date() + timedelta(days=2)).isoformat()

BAD_ROWS = {
    b"A-1,,2026-01-02,": "description: is empty",
    b"A-1,  \t ,2026-01-02,": "description: is empty",
    b",an umbrella,2026-01-02,": "reference: is empty",
    b"A-1,an umbrella,02/01/2026,": "found_on: '02/01/2026' is not a date in the form YYYY-MM-DD",
    b"A-1,an umbrella,2026-02-30,": "found_on: '2026-02-30' is not a date in the form YYYY-MM-DD",
    b"A-1,an umbrella,20260130,": "is not a date",
    b"A-1,an umbrella,1026-01-30,": "found_on: 1026-01-30 is before 1900-01-01 or in the future",
    f"A-1,an umbrella,{TOMORROW_PLUS},".encode(): "or in the future",
    b"A-1,an umbrella,2026-01-02,sold": "status: 'sold': input should be 'held', 'returned' or 'disposed'",
    b"A-1," + b"x" * 4001 + b",2026-01-02,": "description: is longer than 4000 characters",
    b"R" * 65 + b",an umbrella,2026-01-02,": "reference: is longer than 64 characters",
    b"A-1,caf\xe9 latte mug,2026-01-02,": "description: is not UTF-8",
    b"A-1,an umb\x1b[31mrella,2026-01-02,": "description: has the control character '\\x1b'",
    b"A-1,an umb\x00rella,2026-01-02,": "description: has the control character '\\x00'",
    b"A-1,an umbrella": "has 2 values for 4 columns",
    b"A-1,an umbrella,2026-01-02,held,more": "has 5 values for 4 columns",
    b"A-1," + b"x" * (LINE_LIMIT + 10) + b",,": "is not CSV: a line is longer than 1,048,576 bytes",
    b"A-1," + "é".encode() * (LINE_LIMIT // 2) + b",2026-01-02,": "is not CSV: a line is longer than 1,048,576 bytes",
    b"A-1," + "\u0301\u0316".encode() * 9000 + b",,": "description: is longer than 16,384 characters",
    b'A-1,"an umbrella,2026-01-02,': "is not CSV",
    b'"A-1,an umbrella,2026-01-02,': "is not CSV",
    b'A-1,"an umbrella" with a dot,2026-01-02,': "is not CSV",
    b"A-1,\xe2\x80\x8b,2026-01-02,": "description: is empty",
    b"A-1\xe2\x80\xa8B,an umbrella,2026-01-02,": "reference: must be one line of printable characters",
    b"A-1,an \xe2\x80\xaeumbrella,2026-01-02,": "description: has the control character '\\u202e'",
}


def rows_of(path: Path, content: bytes) -> list[ImportedItem | Reject]:
    path.write_bytes(content)
    return list(RowFile(path, ImportedItem))


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.items(), ids=[str(row[:30]) for row in BAD_ROWS])
def test_a_bad_row_is_rejected_with_line_and_reason_and_its_neighbours_are_read(
    tmp_path: Path, row: bytes, reason: str
) -> None:
    good = b"B-1,a red scarf,2026-03-04,\n"
    first, bad, last = rows_of(tmp_path / "items.csv", HEADER + good + row + b"\n" + good.replace(b"B-1", b"B-2"))
    assert isinstance(first, ImportedItem)
    assert isinstance(last, ImportedItem)
    assert (first.reference, last.reference) == ("B-1", "B-2")
    assert isinstance(bad, Reject)
    assert bad.line == 3
    assert reason in bad.reason
    assert bad.row == row.decode("utf-8", "backslashreplace")[:4000]


@given(
    broken=st.lists(st.sampled_from(['A-1,"open', '"A-2,open', 'A-3,"a" b', "A-4,a", 'A-5,"ok"', 'A-6,"two\nlines"'])),
)
def test_an_open_quotation_mark_takes_no_later_row_with_it(
    tmp_path_factory: pytest.TempPathFactory, broken: list[str]
) -> None:
    last = [f"Z-{number},good" for number in range(3)]
    content = "\n".join(["reference,description", *broken, *last]).encode()
    rows = rows_of(tmp_path_factory.mktemp("quotes") / "items.csv", content)
    lines = content.decode().split("\n")
    for row in rows:
        if isinstance(row, Reject):
            assert row.row.split("\n")[0] == lines[row.line - 1]
    stored = [row.reference for row in rows if isinstance(row, ImportedItem)]
    if '"' not in (broken[-1:] or [""])[0].replace('"ok"', ""):
        assert stored[-3:] == ["Z-0", "Z-1", "Z-2"]


def test_thousands_of_rows_after_an_open_quotation_mark_are_stored(tmp_path: Path) -> None:
    good = b"".join(b"G-%d,a good row\n" % number for number in range(6000))
    bad, *rows = rows_of(tmp_path / "items.csv", b'reference,description\nB-1,"an open one\n' + good)
    assert isinstance(bad, Reject)
    assert (bad.line, bad.row) == (2, 'B-1,"an open one')
    assert "quotation mark" in bad.reason
    assert [row.reference for row in rows if isinstance(row, ImportedItem)] == [f"G-{n}" for n in range(6000)]


@pytest.mark.parametrize(
    "header",
    [b"sep=;\nreference;description;", b"\n \nreference\tdescription", b'Reference;"Description";"a, b, c, d";;'],
)
def test_headers_as_spreadsheets_write_them_are_read(tmp_path: Path, header: bytes) -> None:
    delimiter = b"\t" if b"\t" in header else b";"
    count = header.rpartition(b"\n")[2].count(delimiter)
    row = delimiter.join([b"A-1", b"a hat"] + [b""] * (count - 1))
    (item,) = rows_of(tmp_path / "items.CSV", header + b"\r\n" + row + b"\r\n")
    assert isinstance(item, ImportedItem)
    assert (item.reference, item.description) == ("A-1", "a hat")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"reference": "A-1"}', "description: is missing"),
        (b'{"description": "a hat"}', "reference: is missing"),
        (b'{"reference": "A-1", "description": null}', "description: must not be empty"),
        (b'{"reference": "A-1", "description": ["a hat"]}', "description: ['a hat']"),
        (b'{"reference": true, "description": "a hat"}', "reference: True"),
        (b'{"reference": "", "description": "a hat", "x": ' + b"[" * 900 + b"]" * 900 + b"}", "reference: is empty"),
        (b'{"reference": "A-1", "description": "a hat"', "is not JSON"),
        (b'["A-1", "a hat"]', "is not a JSON object"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"reference": "A-1", "description": "caf\xe9"}', "is not UTF-8"),
        (b'{"reference": "A-1", "description": "\\ud83d"}', "is not UTF-8"),
        (b'{"reference": "A-1", "description": "' + b"x" * LINE_LIMIT + b'"}', "is not JSON"),
    ],
)
def test_a_bad_json_line_is_rejected_and_its_neighbours_are_read(tmp_path: Path, line: bytes, reason: str) -> None:
    good = b'{"reference": 17, "description": "a hat", "found_on": "2026-01-02", "extra": 1}\n'
    first, bad, last = rows_of(tmp_path / "items.jsonl", good + line + b"\n\n" + good)
    assert isinstance(first, ImportedItem)
    assert isinstance(last, ImportedItem)
    assert first.reference == "17"
    assert isinstance(bad, Reject)
    assert (bad.line, reason in bad.reason) == (2, True), bad.reason
    assert json.loads(json.dumps(bad.row)) == bad.row


def test_a_file_of_open_quotation_marks_is_read_a_few_times_not_thousands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read_line = LineReader.__next__

    def counted(self: LineReader) -> str:
        nonlocal reads
        reads += 1
        return read_line(self)

    monkeypatch.setattr(LineReader, "__next__", counted)
    long = b'A-1,"' + b"a red umbrella\n" * 100 + b'",,\n'  # one row of a hundred lines
    bad = b'A-0,"17" screen",,\n'
    rows = rows_of(tmp_path / "items.csv", HEADER + bad * 20 + long + b'x","\n' * 8000 + long.replace(b"A-1", b"A-2"))
    assert [row.reference for row in rows if isinstance(row, ImportedItem)][:1] == ["A-1"]
    assert sum(isinstance(row, Reject) for row in rows) >= 8000
    assert reads < 250 * len(rows)


def test_of_many_unknown_columns_a_hundred_are_named(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    rows = [{"reference": f"A-{n}", "description": "a hat"} | {f"{n}-{k}": "" for k in range(60)} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = RowFile(path, ImportedItem)
    assert all(isinstance(row, ImportedItem) for row in items)
    assert len(items.ignored) == 100
    assert items.ignored > {f"0-{k}" for k in range(60)}


def test_rejects_outlive_their_source_and_leave_no_half_of_a_file(tmp_path: Path) -> None:
    source, path = tmp_path / "items.csv", tmp_path / "items.rejects.jsonl"
    source.touch()
    with RejectsFile(path, source) as rejects:
        rejects.write(Reject(2, "is bad", "x"))
        source.rename(tmp_path / "archived.csv")
    assert json.loads(path.read_text())["line"] == 2

    def write_where_a_folder_appears() -> None:
        with RejectsFile(path, tmp_path / "archived.csv") as rejects:
            rejects.write(Reject(3, "is bad", "x"))
            path.unlink()
            path.mkdir()
            raise DatabaseError("the disk is full")

    with pytest.raises(DatabaseError, match="the disk is full"):
        write_where_a_folder_appears()
    assert not list(tmp_path.glob("*.partial"))


@given(
    rows=st.lists(
        st.tuples(
            st.text(alphabet="abcXYZ019-/", min_size=1, max_size=20),
            st.text(st.characters(exclude_categories=("C",), exclude_characters="\u2028\u2029\x85"), min_size=1).filter(
                str.strip
            ),
        )
    )
)
def test_what_a_spreadsheet_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("spreadsheet") / "items.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Reference", "Description", "Clerk"])
        writer.writerows([*row, "x"] for row in rows)
    items = RowFile(path, ImportedItem)
    read = [(row.reference, row.description) for row in items if isinstance(row, ImportedItem)]
    expected = [ImportedItem(reference=reference, description=description) for reference, description in rows]
    assert read == [(item.reference, item.description) for item in expected]
    assert items.ignored == ({"clerk"} if rows else set())
    assert items.position == items.size
    assert not [row for row in items if isinstance(row, Reject)]


def test_a_description_may_have_several_lines(tmp_path: Path) -> None:
    content = b'description,reference\n"a bag,\nwith ""Ann"" on it",A-1\n,A-2\n'
    item, bad = rows_of(tmp_path / "items.csv", content)
    assert isinstance(item, ImportedItem)
    assert item.description == 'a bag,\nwith "Ann" on it'
    assert isinstance(bad, Reject)
    assert bad.line == 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.csv", b"reference,text\nA-1,a hat\n", "has no column description"),
        ("items.csv", b"", "no column"),
        ("items.csv", b"reference,description,description\n", "names a column twice"),
        ("items.csv", "reference,description\n".encode("utf-16"), "UTF-16 or UTF-32; save it as UTF-8"),
        ("items.csv", b"reference,description\rA-1,a hat\r", "no first line that names the columns"),
        ("items.xlsx", b"PK", "neither"),
    ],
)
def test_a_file_of_another_kind_is_refused_as_a_whole(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        rows_of(tmp_path / name, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No such file"):
        RowFile(tmp_path / "items.csv", ImportedItem)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputFileError, match="Is a directory"):
        list(RowFile(tmp_path / "folder.csv", ImportedItem))


def test_a_number_in_json_stays_as_it_is_written(tmp_path: Path) -> None:
    (item,) = rows_of(
        tmp_path / "items.jsonl", b'{"reference": 7.50, "description": 1e400, "status": null, "place": 0}'
    )
    assert isinstance(item, ImportedItem)
    assert (item.reference, item.description, item.place) == ("7.50", "1e400", "0")
    assert "status" not in item.given()
