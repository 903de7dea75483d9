"""Datasets: manifests of sounds, shards of codes, and what feeds them to training."""
