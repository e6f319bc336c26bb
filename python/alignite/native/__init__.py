"""The only importer of the Rust module ``alignite._core``."""
