"""What `make demo` runs: a chat model learns who it is."""
