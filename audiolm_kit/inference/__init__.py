"""Roof two: sound out."""
