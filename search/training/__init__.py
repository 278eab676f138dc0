"""Corpus, pairs, fine-tuning, evaluation and calibration of the reranker."""
