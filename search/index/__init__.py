"""Nearest neighbours with FAISS. Knows nothing of SQL."""
