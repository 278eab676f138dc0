"""Two-stage semantic search for lost-property offices: retrieve, rerank, threshold."""
