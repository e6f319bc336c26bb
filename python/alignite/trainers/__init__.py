"""Facades: one a method, each picks an objective and a source of updates."""
