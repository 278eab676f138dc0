from collections import Counter
from pathlib import Path

from search.item_input import ImportedItem
from search.record_file import QueryRecord, read_records
from search.row_file import RowFile

SAMPLE = Path(__file__).parent.parent / "scripts" / "sample"


def test_the_sample_has_at_least_500_good_items_of_every_kind() -> None:
    items = list(RowFile(SAMPLE / "found_items.csv", ImportedItem))
    assert all(isinstance(item, ImportedItem) for item in items)
    assert len({item.reference for item in items if isinstance(item, ImportedItem)}) == len(items) >= 500
    kinds = Counter(item.category for item in items if isinstance(item, ImportedItem))
    assert len(kinds) >= 20
    assert len(read_records(QueryRecord, SAMPLE / "lost_reports.jsonl")) == 3
