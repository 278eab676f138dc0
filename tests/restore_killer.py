"""Restores a backup in children: one killed at every line of the code that it runs, then some with too little disk.

    restore_killer.py DATABASE BACKUP COPY-OF-THE-DATABASE

After each child the content must be the old one or the new one, whole, else it stops with an AssertionError. Prints the
number of kills, the numbers of items seen, and how often a full disk was refused.
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from killing import kill_at

from search.errors import DatabaseError
from storage import backup, items
from storage.database import Database

REFUSED, FAILED = 3, 4
SIZES = range(4096, 800_000, 40_000)


def references(database: Database) -> set[str]:
    with database.read() as session:
        return {item.reference for item in items.by_ids(session, items.ids_after(session, 0, 10_000)).values()}


class Office:
    """A database, a backup to be restored into it, and a copy with which each restore is undone."""

    def __init__(self, database: Path, source: Path, present: Path) -> None:
        self.database = Database.at(database)
        self.source, self.present = source, present
        self.old, self.new = references(self.database), references(Database.at(source))

    def restore_in_child(self, prepare: Callable[[], None]) -> tuple[int, set[str]]:
        """The child's wait status and the content that it left; the old content is put back."""
        child = os.fork()
        if not child:
            try:
                prepare()
                backup.restore(self.database, self.source)
            except DatabaseError:
                os._exit(REFUSED)
            except BaseException:
                os._exit(FAILED)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        content = references(self.database)
        assert content in (self.old, self.new), len(content)
        assert backup.check(self.database) == []
        if content == self.new:
            backup.restore(self.database, self.present)
            assert references(self.database) == self.old
        return status, content


def limit_files(size: int) -> None:
    """As if the disk were full after so many bytes of a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def main() -> None:
    office = Office(*map(Path, sys.argv[1:]))
    kills, seen, number, status = 0, set(), 0, int(signal.SIGKILL)
    while os.WIFSIGNALED(status):
        number += 1
        status, content = office.restore_in_child(partial(kill_at, number, {backup.__file__}))
        kills += os.WIFSIGNALED(status)
        seen.add(len(content))
    assert status == 0
    refused = 0
    for size in SIZES:
        status, content = office.restore_in_child(partial(limit_files, size))
        assert os.WEXITSTATUS(status) in (0, REFUSED), status
        assert (os.WEXITSTATUS(status) == 0) == (content == office.new)
        refused += os.WEXITSTATUS(status) == REFUSED
    print(kills, sorted(seen), refused)


if __name__ == "__main__":
    main()
