"""Several threads of one process use a graph from its very first moment."""

import subprocess
import sys
from pathlib import Path

from search.reranker import Reranker

FIRST_ANSWERS = """
import sys, threading
from pathlib import Path
from search.graph import Graph

graph = Graph(Path(sys.argv[1]), sys.argv[2])
ready = threading.Barrier(4)

def answer():
    ready.wait()
    graph.run([("a hat", "a red hat")])

sys.setswitchinterval(1e-4)  # as often as can be, another thread has its turn
threads = [threading.Thread(target=answer) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_the_first_answers_of_a_graph_may_be_asked_for_at_the_same_moment(graphs: Path, reranker: Reranker) -> None:
    asked = [sys.executable, "-c", FIRST_ANSWERS, graphs / reranker.fingerprint[:16], reranker.fingerprint]
    for _ in range(3):
        assert subprocess.run(asked, check=False, timeout=60).returncode == 0  # a lock held for ever ends the test
