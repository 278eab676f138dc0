"""Items, their vectors and the change log in SQLite. Knows nothing of models or FAISS."""
