"""Models that come with the package: a checkpoint folder for each, by its name."""
