"""A run's folder as a page and as a model card: reads files, draws, writes; needs no torch."""
