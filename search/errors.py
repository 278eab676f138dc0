"""Every error a user of lostfound can meet.

LostfoundError
├── SettingsError          a setting has a value that cannot be used
├── DatabaseError          the database is missing, damaged, full, locked or not writable
│   └── SchemaError        the database is at another revision than this version
├── ItemError
│   ├── InvalidItemError       a field of an item breaks a rule
│   ├── UnknownReferenceError  no item has this reference
│   └── DuplicateReferenceError  another item has this reference
├── InputFileError         a file of items, queries or pairs cannot be read
├── QueryError             a search that cannot be answered as it was asked
├── IndexFileError         an index on disk cannot be read or written
│   ├── DamagedIndexError      it is not what was written
│   └── ReindexRunningError    another process builds one
├── TrainingError          a fine-tuning that cannot be run as it was asked
├── BenchmarkError         a peer of the benchmark cannot be run
└── ModelError             a model folder is missing, unsafe or of another kind
    └── FingerprintError   a vector or threshold was made for another model

Each message names the offending value and, where there is one, the next command.
"""


class LostfoundError(Exception):
    """The root: `except LostfoundError` catches all that lostfound raises on purpose."""


class SettingsError(LostfoundError):
    """A setting has a value that cannot be used."""


class DatabaseError(LostfoundError):
    """The database is missing, damaged, full, locked or not writable."""


class SchemaError(DatabaseError):
    """The database is at another revision than this version of lostfound."""


class ItemError(LostfoundError):
    """Something is wrong with one item."""


class InvalidItemError(ItemError):
    """A field of an item breaks a rule."""


class UnknownReferenceError(ItemError):
    """No item has this reference."""


class DuplicateReferenceError(ItemError):
    """Another item has this reference."""


class InputFileError(LostfoundError):
    """A file of items, queries or pairs cannot be read."""


class QueryError(LostfoundError):
    """A search that cannot be answered as it was asked."""


class IndexFileError(LostfoundError):
    """An index on disk cannot be read or written."""


class DamagedIndexError(IndexFileError):
    """An index on disk is not what was written, or of a format that this version does not know."""


class ReindexRunningError(IndexFileError):
    """Another process builds an index."""


class TrainingError(LostfoundError):
    """A fine-tuning that cannot be run as it was asked."""


class BenchmarkError(LostfoundError):
    """A peer of the benchmark cannot be run."""


class ModelError(LostfoundError):
    """A model folder is missing, unsafe or of another kind."""


class FingerprintError(ModelError):
    """A vector or a threshold was made for another model than the one in use."""
