import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import InputFileError
from search.item_file import LINE_LIMIT, ItemFile, Reject
from search.item_input import ImportedItem

HEADER = b"reference,description,found_on,status\n"
TOMORROW_PLUS = (datetime.now(UTC).date() + timedelta(days=2)).isoformat()

BAD_ROWS = {
    b"A-1,,2026-01-02,": "description: is empty",
    b"A-1,  \t ,2026-01-02,": "description: is empty",
    b",an umbrella,2026-01-02,": "reference: is empty",
    b"A-1,an umbrella,02/01/2026,": "found_on: '02/01/2026' is not a date in the form YYYY-MM-DD",
    b"A-1,an umbrella,2026-02-30,": "found_on: day",
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
    b"A-1," + b"x" * (LINE_LIMIT + 10) + b",,": "is not CSV: field larger than field limit",
}


def rows_of(path: Path, content: bytes) -> list[ImportedItem | Reject]:
    path.write_bytes(content)
    return list(ItemFile(path))


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
    json.dumps(bad.row)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"reference": "A-1"}', "description: is missing"),
        (b'{"description": "a hat"}', "reference: is missing"),
        (b'{"reference": "A-1", "description": null}', "description: must not be empty"),
        (b'{"reference": "A-1", "description": ["a hat"]}', "description: ['a hat']"),
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
    json.dumps(bad.row)


@given(
    rows=st.lists(
        st.tuples(
            st.text(alphabet="abcXYZ019-/", min_size=1, max_size=20),
            st.text(
                st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\x85"), min_size=1
            ).filter(str.strip),
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
    items = ItemFile(path)
    read = [(row.reference, row.description) for row in items if isinstance(row, ImportedItem)]
    expected = [ImportedItem(reference=reference, description=description) for reference, description in rows]
    assert read == [(item.reference, item.description) for item in expected]
    assert items.ignored == ({"clerk"} if rows else set())
    assert items.position == items.size


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
        ("items.csv", "reference,description\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("items.xlsx", b"PK", "neither"),
    ],
)
def test_a_file_of_another_kind_is_refused_as_a_whole(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        rows_of(tmp_path / name, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No such file"):
        list(ItemFile(tmp_path / "items.csv"))
