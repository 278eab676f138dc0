"""Whatever was done to an office, and whichever process is asked: the answer is that of brute force."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import search.index.build
from search.encoder import BiEncoder
from search.errors import FingerprintError
from search.ingest import Ingest
from search.item_input import ImportedItem
from search.reindex import reindex
from search.retriever import Retriever
from search.text import item_text
from storage.database import Database
from storage.items import HELD, Filters
from storage.models import Status
from storage.schema import upgrade

numbers = st.integers(0, 15)
words = st.sampled_from(["hat", "red umbrella", "black leather wallet", "phone", "a ring with a blue stone", "keys"])
offices = st.sampled_from(["Airport", "Harbour"])


def machine(encoders: list[BiEncoder]) -> type[RuleBasedStateMachine]:
    class Office(RuleBasedStateMachine):
        @initialize()
        def found(self) -> None:
            self.folder = Path(tempfile.mkdtemp())
            self.database = Database.at(self.folder / "lostfound.db")
            upgrade(self.database)
            self.stock: dict[str, tuple[str, str, Status]] = {}
            self.encoder = encoders[0]
            self.running = {encoder.name: Retriever(self.database, encoder) for encoder in encoders}

        def teardown(self) -> None:
            shutil.rmtree(self.folder)

        @rule(number=numbers, text=words, office=offices)
        def add_or_update(self, number: int, text: str, office: str) -> None:
            self.store({f"R-{number}": (f"{text}, {number}", office, Status.HELD)})

        @rule(chosen=st.dictionaries(numbers, words, min_size=2), office=offices)
        def import_many(self, chosen: dict[int, str], office: str) -> None:
            self.store({f"R-{number}": (text, office, Status.HELD) for number, text in chosen.items()})

        @rule(number=numbers, status=st.sampled_from(Status))
        def return_or_dispose_or_take_back(self, number: int, status: Status) -> None:
            if f"R-{number}" in self.stock:
                text, office, _ = self.stock[f"R-{number}"]
                self.store({f"R-{number}": (text, office, status)})

        def store(self, changed: dict[str, tuple[str, str, Status]]) -> None:
            rows = [
                ImportedItem(reference=reference, description=text, office=office, status=status)
                for reference, (text, office, status) in changed.items()
            ]
            Ingest(self.database, self.encoder).upsert(rows)
            self.stock |= changed

        @rule(keep=st.integers(1, 3), is_approximate=st.booleans())
        def reindex(self, keep: int, is_approximate: bool) -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(search.index.build, "EXACT_UP_TO", self.encoder.dim * (6 if is_approximate else 10**9))
                patch.setattr(search.index.build, "VECTORS_PER_CENTROID", 2)
                report = reindex(self.database, self.encoder, keep=keep)
            assert report.indexed.refused is None

        @rule(encoder=st.sampled_from(encoders), is_approximate=st.booleans())
        def change_the_encoder(self, encoder: BiEncoder, is_approximate: bool) -> None:
            self.encoder = encoder
            self.reindex(keep=1, is_approximate=is_approximate)

        @rule()
        def lose_the_index(self) -> None:
            shutil.rmtree(self.database.index_folder, ignore_errors=True)

        @rule(encoder=st.sampled_from(encoders))
        def start_anew(self, encoder: BiEncoder) -> None:
            self.running[encoder.name] = Retriever(self.database, encoder)

        @invariant()
        def answers_are_those_of_brute_force(self) -> None:
            if not hasattr(self, "stock"):
                return
            query = self.encoder.encode_queries(["a black wallet"])
            for filters in (HELD, Filters(office="Harbour"), Filters(status=Status.RETURNED)):
                chosen = [
                    item_text(text, None, None, None)
                    for text, office, status in self.stock.values()
                    if status is filters.status and filters.office in (None, office)
                ]
                true = np.sort(self.encoder.encode(chosen) @ query[0])[::-1] if chosen else np.empty(0)
                for retriever in (self.running[self.encoder.name], Retriever(self.database, self.encoder)):
                    with retriever.retrieve(query, 16, filters) as (_, retrieval):
                        (candidates,) = retrieval.candidates
                    np.testing.assert_allclose([c.similarity for c in candidates], true, atol=1e-5)

        @invariant()
        def a_process_of_the_other_encoder_finds_what_it_can_or_says_that_it_cannot(self) -> None:
            if not hasattr(self, "stock"):
                return
            (other,) = (encoder for encoder in encoders if encoder is not self.encoder)
            query = other.encode_queries(["a black wallet"])
            held = sum(status is Status.HELD for _, _, status in self.stock.values())
            try:
                with self.running[other.name].retrieve(query, 16, HELD) as (_, retrieval):
                    assert len(retrieval.candidates[0]) + retrieval.without_vector == held
            except FingerprintError:
                assert held

    return Office


@pytest.mark.slow
def test_answers_equal_brute_force_after_any_sequence_of_steps(encoder: BiEncoder, other_encoder: BiEncoder) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine([encoder, other_encoder]), settings=settings(max_examples=20, stateful_step_count=20, deadline=None)
    )
