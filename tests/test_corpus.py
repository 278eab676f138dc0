"""The corpus that ships: counts, splits, and what its data card says of it."""

from collections import Counter
from statistics import mean

import pytest

from search.training.corpus import CORPUS, Corpus, LostObject, Split, by_group, load_corpus


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def objects(corpus: Corpus) -> list[LostObject]:
    return [entry for split in Split for entry in corpus.objects[split]]


def test_there_are_enough_objects_in_groups_of_five(corpus: Corpus) -> None:
    groups = Counter(entry.group for entry in objects(corpus))
    assert len(objects(corpus)) >= 2000
    assert len(groups) >= 400
    assert set(groups.values()) == {5}
    assert len({entry.object for entry in objects(corpus)}) == len(objects(corpus))
    for split in (Split.VALIDATION, Split.TEST):
        assert len(corpus.objects[split]) >= 400
        assert len(corpus.strays[split]) >= 200


def test_every_object_has_two_descriptions_and_two_reports_of_a_natural_length(corpus: Corpus) -> None:
    for entry in objects(corpus):
        assert len(entry.found) >= 2
        assert len(entry.lost) >= 2
    assert 90 <= mean(len(text) for entry in objects(corpus) for text in entry.lost) <= 120
    assert 90 <= mean(len(text) for entry in objects(corpus) for text in entry.found) <= 130
    for split in (Split.VALIDATION, Split.TEST):
        assert 100 <= mean(len(text) for entry in corpus.objects[split] for text in entry.found) <= 130
    assert 0.14 <= mean(entry.mistake for entry in objects(corpus)) <= 0.20


def test_no_text_and_no_group_is_in_two_splits(corpus: Corpus) -> None:
    seen: dict[str, Split] = {}
    for split in Split:
        texts = [text for entry in corpus.objects[split] for text in (*entry.found, *entry.lost, *entry.unlike)]
        texts += [stray.report for stray in corpus.strays[split]]
        for name in [*texts, *{entry.group for entry in corpus.objects[split]}]:
            assert seen.setdefault(name, split) is split, name


def test_no_two_objects_share_a_text(corpus: Corpus) -> None:
    owners: dict[str, str] = {}
    for entry in objects(corpus):
        for text in (*entry.found, *entry.lost, *entry.unlike):
            assert owners.setdefault(text, entry.object) == entry.object, text


def test_a_stray_report_belongs_to_the_split_of_its_group(corpus: Corpus) -> None:
    for split in Split:
        groups = by_group(corpus.objects[split])
        assert all(stray.group is None or stray.group in groups for stray in corpus.strays[split])


def test_the_corpus_is_small_enough_for_git() -> None:
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < 20_000_000


def test_a_pass_may_learn_from_some_of_the_training_groups_alone(corpus: Corpus) -> None:
    some = corpus.training_groups("az")
    assert {entry.group[0] for entry in some.objects[Split.TRAIN]} == {"a", "z"}
    assert {stray.group[0] for stray in some.strays[Split.TRAIN] if stray.group} == {"a", "z"}
    lonely = [stray for stray in corpus.strays[Split.TRAIN] if stray.group is None]
    assert [stray for stray in some.strays[Split.TRAIN] if stray.group is None] == lonely != []
    assert some.of(Split.TEST) == corpus.of(Split.TEST)
    assert corpus.training_groups("") == corpus
