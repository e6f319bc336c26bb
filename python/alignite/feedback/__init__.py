"""Data about preferences: rankings, ratings, who rates well, and feedback that models give. Needs no torch."""
