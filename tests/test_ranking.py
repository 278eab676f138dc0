"""The shipped models, judged on texts that they were not trained on."""

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from search.encoder import BiEncoder
from search.ingest import Ingest
from search.model_folder import find_model
from search.pipeline import Request, SearchPipeline
from search.reranker import Reranker
from search.threshold import load_threshold
from search.training.corpus import Split, load_corpus
from search.training.metrics import average_precision
from search.training.pairs import twin_pairs
from storage.database import Database

SAMPLE = Path(__file__).parent.parent / "scripts" / "sample" / "found_items.csv"

PAIRS = [
    (
        "A Hydro Flask in a light brown color with a small hand logo.",
        "A large, light-brown Hydro Flask water bottle with a darker tan cap and black accents, appears to be made of "
        "metal, and seems to be in new condition with tags still attached.",
    ),
    (
        "A black smartphone.",
        "The image shows four used smartphones, including a white and black Samsung smartphone, a black and silver "
        "phone of unknown brand, a white and black Nokia phone, and a white Apple iPhone, all appearing to be between "
        "4 and 5 inches in screen size.",
    ),
    (
        "A purple pencil case with a unicorn design.",
        "A new, mint green hard-shell pencil case with a ribbed texture and a central circular illustration of a "
        "unicorn with a rainbow mane.",
    ),
    (
        "A folded, dark blue umbrella has a slightly crinkled matching fabric case and its handle is still wrapped in "
        "clear plastic.",
        "There are two blue umbrellas.",
    ),
    (
        "a black messenger bag with purple stitching.",
        'A gray-green backpack with black mesh padding and an orange "NANEU PRO" tag on the side.',
    ),
]
"""The first is of one object, the others are not."""


def test_the_matching_pair_of_five_is_first_by_a_wide_margin(shipped_reranker: Reranker) -> None:
    match, *others = shipped_reranker.score_pairs(PAIRS).tolist()
    fitted = load_threshold(shipped_reranker)
    assert fitted is not None
    assert match >= fitted.threshold > max(others)
    assert match > 3 * max(others)


def test_the_shipped_folder_is_a_cross_encoder_as_sentence_transformers_users_expect(
    shipped_reranker: Reranker,
) -> None:
    model = CrossEncoder(str(find_model("lostfound-minilm")), device="cpu", local_files_only=True)
    np.testing.assert_allclose(
        model.predict(PAIRS, show_progress_bar=False), shipped_reranker.score_pairs(PAIRS), atol=1e-5
    )
    found = ["A red umbrella.", "Rucksack, black, Eastpak, front pocket torn", "Black leather wallet"]
    ranked = model.rank("my black eastpak backpack with a ripped pocket", found, show_progress_bar=False)
    assert ranked[0]["corpus_id"] == 1
    assert (find_model("lostfound-minilm") / "model.safetensors").stat().st_size < 45_000_000


def test_the_shipped_encoder_retrieves_from_a_large_office_and_is_small(shipped_encoder: BiEncoder) -> None:
    model = SentenceTransformer(str(find_model("lostfound-encoder")), device="cpu", local_files_only=True)
    texts = [text for pair in PAIRS for text in pair]
    np.testing.assert_allclose(model.encode(texts, show_progress_bar=False), shipped_encoder.encode(texts), atol=1e-5)
    assert (find_model("lostfound-encoder") / "model.safetensors").stat().st_size < 45_000_000
    objects = load_corpus().objects[Split.TEST][:200]
    reports = shipped_encoder.encode_queries([entry.lost[0] for entry in objects])
    items = shipped_encoder.encode([entry.found[0] for entry in objects])
    assert ((reports @ items.T).argmax(axis=1) == np.arange(len(objects))).mean() > 0.75


def test_the_two_shipped_models_decide_together(
    shipped_encoder: BiEncoder, shipped_reranker: Reranker, database: Database
) -> None:
    alone, fitted = (load_threshold(shipped_reranker, encoder=encoder) for encoder in (None, shipped_encoder))
    assert alone is not None
    assert fitted is not None
    assert fitted.blend is not None
    assert fitted.figures["AP"].value > alone.figures["AP"].value
    scores, _ = SearchPipeline(database, shipped_encoder, shipped_reranker).score_pairs(PAIRS)
    match, *others = scores.tolist()
    assert match >= fitted.threshold
    assert match > max(others)
    assert sorted(others)[-2] < fitted.threshold  # the mint green pencil case is let through


def test_twins_of_the_test_split_are_told_apart(shipped_reranker: Reranker) -> None:
    objects = load_corpus().objects[Split.TEST][:100]
    pairs = twin_pairs(objects)
    scores = shipped_reranker.score_pairs([(pair.lost, pair.found) for pair in pairs]).astype(np.float64)
    assert average_precision(np.array([pair.label for pair in pairs]), scores) > 0.75


@pytest.mark.slow
def test_the_sample_is_searched_with_the_right_item_first_and_nothing_where_there_is_nothing(
    database: Database, shipped_encoder: BiEncoder, shipped_reranker: Reranker, tmp_path: Path
) -> None:
    summary = Ingest(database, shipped_encoder).import_file(SAMPLE, tmp_path / "rejects.jsonl")
    assert (summary.added, summary.rejected) == (600, 0)
    pipeline = SearchPipeline(database, shipped_encoder, shipped_reranker)
    wanted = {
        "black eastpak backpack, leather bottom, little mushroom on the key ring, biology cards": "CS-00253",
        "gray cuddly bunny with a chewed ear": "CS-00009",
        "airpods with my initials in red nail varnish on the lid, one bud is missing": "AP-00172",
        "cello in a grey soft case, with a sticker that says it is no guitar": "CS-00126",
        "old black army rucksack on a metal frame, full of band names in paint pen": "CS-00228",
    }
    answers = pipeline.search_many(list(wanted), Request(depth=50))
    for answer, reference in zip(answers, wanted.values(), strict=True):
        assert answer.matches[0].reference == reference
    absent = ["a stuffed pike in a glass case", "a prosthetic running leg with hummingbirds on the socket"]
    assert [answer.matches for answer in pipeline.search_many(absent, Request(depth=50))] == [[], []]
