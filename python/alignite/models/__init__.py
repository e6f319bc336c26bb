"""Everything that touches transformers: loading, attention, log-probabilities, generation, GGUF import."""
