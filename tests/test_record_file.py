"""Files of queries and of pairs, answered line by line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_a_file_of_queries_is_answered_line_by_line(stocked: Run, tmp_path: Path) -> None:
    queries = [{"query_id": number, "text": f"hat number {number}"} for number in range(70)]
    path = tmp_path / "queries.jsonl"
    path.write_text("\n".join(map(json.dumps, queries)) + "\n\n")
    code, out, _ = stocked("search", "--queries", str(path), "--json", "--all")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [answer["query_id"] for answer in answers] == list(range(70))
    alone = json.loads(stocked("search", "hat number 69", "--json", "--all")[1])
    assert [match["reference"] for match in answers[69]["matches"]] == [
        match["reference"] for match in alone["matches"]
    ]
    hurried = stocked("search", "--queries", str(path), "--json", "--all", "--deadline", "1")[1].splitlines()
    assert [json.loads(line)["candidates"] for line in hurried] == [3] * 70  # each has its own time
    assert set(answers[0]["matches"][0]) >= {"reference", "item_id", "description", "similarity", "score", "rank"}


def test_pairs_are_scored_line_by_line(lostfound: Run, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"lost": "a hat", "found": "a red hat", "id": 7}\n{"lost": "é", "found": "ü"}\n', encoding="utf-8")
    code, out, _ = lostfound("score", str(path))
    first, second = map(json.loads, out.splitlines())
    assert code == 0
    assert (first["id"], first["lost"], second["found"]) == (7, "a hat", "ü")
    assert 0 <= first["score"] <= 1
    path.write_text('{"lost": "a hat", "found": "a hat"}\n{"lost": " ", "found": "a hat"}\n')
    code, out, error = lostfound("score", str(path))
    assert (code, out, "pair 2: the query is empty" in error) == (1, "", True)


def test_scores_that_a_search_would_not_give_come_with_a_warning(lostfound: Run, office: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"lost": "a hat", "found": "a red hat"}\n' * 2)
    office.mkdir(exist_ok=True)
    (office / "threshold.json").write_text("{}")
    code, out, error = lostfound("score", str(path))
    assert (code, len(out.splitlines()), error.count("scores are not calibrated")) == (0, 2, 1)


def test_a_number_that_no_answer_could_repeat_is_refused(lostfound: Run, tmp_path: Path) -> None:
    for number in ("1e999", "NaN"):
        (tmp_path / "pairs.jsonl").write_text(f'{{"lost": "a hat", "found": "a cap", "price": {number}}}')
        code, out, error = lostfound("score", str(tmp_path / "pairs.jsonl"))
        assert (code, out, "line 1: a number is not finite" in error) == (1, "", True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"query_id": 1}', "line 2: text: Field required"),
        (b'{"query_id": 1, "text": 5}', "line 2: text"),
        (b'{"query_id": true, "text": "a cap"}', "line 2: query_id"),
        (b"nonsense", "line 2: Invalid JSON"),
        (b'{"query_id": 1, "text": "caf\xe9"}', "line 2: Invalid JSON"),
        (b'{"query_id": 1, "text": " "}', "line 2: text: Value error, the query is empty"),
        (b'{"query_id": "b", "text": "\xef\xb8\x8f"}', "query 'b': the model reads nothing of the query"),
    ],
)
def test_a_bad_line_among_queries_is_named(stocked: Run, tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_bytes(b'{"query_id": 0, "text": "a hat"}\n' + line)
    code, out, error = stocked("search", "--queries", str(path), "--json")
    assert (code, out) == (1, "")
    assert message in error
