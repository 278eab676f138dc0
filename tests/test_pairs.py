"""Which pairs are built of the corpus, and read from a user's file."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from search.encoder import BiEncoder
from search.errors import InputFileError
from search.training.corpus import Corpus, Split, VagueReport, load_corpus
from search.training.pair_file import hold_out, read_pairs
from search.training.pairs import MIXED, Mix, Origin, Pair, build_pairs, twin_pairs


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def test_pairs_have_the_asked_for_origins_and_the_right_labels(corpus: Corpus, encoder: BiEncoder) -> None:
    objects = [
        entry.model_copy(update={"unlike": (f"no {entry.kind}", f"not {entry.object}")})
        for entry in corpus.objects[Split.VALIDATION][:50]
    ]
    strays = corpus.strays[Split.VALIDATION][:10]
    mix = Mix(foreign=1, stray=2, unlike=1, shortened=2, embellished=2, lot=1)
    pairs = build_pairs(objects, strays, encoder, mix, seed=1)
    owner = {text: entry for entry in objects for text in (*entry.found, *entry.lost)}
    for pair in pairs:
        match pair.origin:
            case Origin.MATCH:
                assert (owner[pair.lost], pair.label) == (owner[pair.found], 1)
            case Origin.TWIN:
                assert owner[pair.lost] != owner[pair.found]
                assert (owner[pair.lost].group, pair.label) == (owner[pair.found].group, 0)
            case Origin.HARD | Origin.RANDOM:
                assert owner[pair.lost].group != owner[pair.found].group
                assert pair.label == 0
            case Origin.FOREIGN:
                assert owner[pair.lost].category != owner[pair.found].category
                assert pair.label == 0
            case Origin.UNLIKE:
                assert (pair.found in owner[pair.lost].unlike, pair.label) == (True, 0)
            case Origin.STRAY:
                assert (pair.lost in owner, pair.label) == (False, 0)
            case Origin.SHORTENED:
                same_start = [text for text in owner if text.startswith(re.split(r"[,;.]", pair.found)[0])]
                assert bool(pair.label) in {owner[text] == owner[pair.lost] for text in same_start}
            case Origin.EMBELLISHED:
                (report,) = (text for text in owner if pair.lost.startswith(text.rstrip(" .!?") + " with "))
                assert (owner[report] == owner[pair.found]) == bool(pair.label)
            case Origin.LOT:
                starts = [owner[text] for text in owner if text.startswith(re.split(r"[,;.]", pair.lost)[0])]
                inside = {owner[text].object for text in owner if text.strip().rstrip(".") in pair.found}
                begun = {owner[text].object for text in owner if re.split(r"[,;.]", text)[0][2:] in pair.found}
                assert (len(begun) >= 2, pair.label) == (True, 0)
                assert any(entry.group == pair.group and entry.object not in inside for entry in starts)
    count = {origin: sum(pair.origin is origin for pair in pairs) for origin in Origin}
    assert (count[Origin.MATCH], count[Origin.TWIN], count[Origin.HARD]) == (200, 300, 300)
    assert (count[Origin.FOREIGN], count[Origin.STRAY], count[Origin.RANDOM]) == (100, 20, 100)
    assert count[Origin.UNLIKE] == 100
    assert count[Origin.SHORTENED] == 400
    assert count[Origin.EMBELLISHED] > 100
    assert count[Origin.LOT] == 100
    assert pairs == build_pairs(objects, strays, encoder, mix, seed=1)
    assert pairs != build_pairs(objects, strays, encoder, mix, seed=2)


def test_a_vague_report_is_half_a_match_with_every_object_that_it_may_be_of(corpus: Corpus, encoder: BiEncoder) -> None:
    objects = corpus.objects[Split.VALIDATION][:20]
    vague = VagueReport(report="something", group=objects[7].group, split=Split.VALIDATION)
    pairs = build_pairs(objects, [], encoder, MIXED, seed=1, vague=[vague])
    halves = [pair for pair in pairs if pair.origin is Origin.VAGUE]
    assert {(pair.lost, pair.label) for pair in halves} == {("something", 0.5)}
    owner = {text: entry.object for entry in objects for text in entry.found}
    assert {owner[pair.found] for pair in halves} == {e.object for e in objects if e.group == vague.group}


def test_a_hard_negative_may_be_of_other_objects_but_not_as_near_as_the_own_description(
    corpus: Corpus, shipped_encoder: BiEncoder
) -> None:
    objects, others = corpus.objects[Split.VALIDATION][:10], corpus.objects[Split.VALIDATION][10:50]
    own = {lost: entry.found for entry in objects for lost in entry.lost}

    def hard(mix: Mix) -> list[Pair]:
        pairs = build_pairs(objects, [], shipped_encoder, mix, seed=1, others=others)
        return [pair for pair in pairs if pair.origin is Origin.HARD]

    def share_of_own(pairs: list[Pair]) -> npt.NDArray[np.float64]:
        nearest = [shipped_encoder.similarities([(p.lost, found) for found in own[p.lost]]).max() for p in pairs]
        return shipped_encoder.similarities([(p.lost, p.found) for p in pairs]) / np.array(nearest)

    far, any_distance = hard(Mix(hard_below=0.5)), hard(Mix())
    assert share_of_own(far).max() <= 0.5001 < share_of_own(any_distance).max()
    assert {pair.found for pair in far} & {found for entry in others for found in entry.found}


def test_whether_a_category_is_told_does_not_tell_a_contradiction_from_a_match(
    corpus: Corpus, encoder: BiEncoder
) -> None:
    objects, others = corpus.objects[Split.VALIDATION][:20], corpus.objects[Split.VALIDATION][20:60]
    pairs = build_pairs(objects, [], encoder, Mix(unlike=2, with_category=1), seed=1, others=others)
    category_of = {pair.lost: entry.category for entry in objects for pair in pairs if pair.lost in entry.lost}
    for pair in pairs:
        if pair.origin in {Origin.MATCH, Origin.UNLIKE}:
            assert category_of[pair.lost] in pair.found.lower()
    categories = {entry.category for entry in (*objects, *others)}
    assert all(any(category in pair.found.lower() for category in categories) for pair in pairs)


def test_about_23_percent_of_mixed_and_20_percent_of_twin_pairs_match(corpus: Corpus, encoder: BiEncoder) -> None:
    objects, strays = corpus.objects[Split.VALIDATION], corpus.strays[Split.VALIDATION]
    mixed = build_pairs(objects, strays, encoder, MIXED, seed=1)
    assert np.mean([pair.label for pair in mixed]) == pytest.approx(0.22, abs=0.02)
    twins = twin_pairs(objects)
    assert len(twins) == len(objects) * 5 * 4
    assert np.mean([pair.label for pair in twins]) == pytest.approx(0.2)


def test_more_draws_are_the_same_matches_with_other_negatives(corpus: Corpus, encoder: BiEncoder) -> None:
    objects, strays = corpus.objects[Split.VALIDATION][:20], corpus.strays[Split.VALIDATION][:5]
    once, twice = (build_pairs(objects, strays, encoder, MIXED, seed=1, draws=draws) for draws in (1, 2))
    assert len(twice) == 2 * len(once)
    matches = [{(p.lost, p.found) for p in pairs if p.label} for pairs in (once, twice)]
    assert matches[0] == matches[1]
    assert len({(p.lost, p.found) for p in twice}) > 1.3 * len({(p.lost, p.found) for p in once})


def test_reports_that_match_one_description_are_held_out_together(tmp_path: Path) -> None:
    rows = [
        (f"report {number} of {thing}", f"thing {found}", int(found == thing))
        for thing in range(20)
        for number in range(3)
        for found in (thing, (thing + 1) % 20)
    ]
    path = tmp_path / "pairs.csv"
    path.write_text("sentence_0,sentence_1,label\n" + "".join(f"{','.join(map(str, row))}\n" for row in rows))
    train, held = hold_out(read_pairs(path, tmp_path / "rejects.jsonl")[0], seed=3)
    assert (len(held), len({pair.group for pair in held})) == (12, 2)
    assert not {pair.found for pair in train if pair.label} & {pair.found for pair in held if pair.label}


def test_a_tenth_of_the_reports_is_held_out_and_none_is_on_both_sides(own_pairs: Path, tmp_path: Path) -> None:
    pairs, rejected = read_pairs(own_pairs, tmp_path / "rejects.jsonl")
    assert (len(pairs), rejected) == (200, 4)
    train, held = hold_out(pairs, seed=1)
    assert (len(train), len(held)) == (180, 20)
    assert not {pair.lost for pair in train} & {pair.lost for pair in held}
    assert sorted([*train, *held], key=repr) == sorted(pairs, key=repr)
    with pytest.raises(InputFileError, match="--validation"):
        hold_out(pairs[:4], seed=1)


@pytest.mark.parametrize(
    ("rows", "message"), [("", "it has no rows"), ("a,b,7\n", "1 rows were rejected, see .*rejects")]
)
def test_a_file_without_a_good_pair_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(f"sentence_0,sentence_1,label\n{rows}")
    with pytest.raises(InputFileError, match=message):
        read_pairs(tmp_path / "pairs.csv", tmp_path / "pairs.rejects.jsonl")
