"""Speed beside peers, on the same models, texts and machine, in one run."""
