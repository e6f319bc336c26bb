"""Numbers on held-out data."""
