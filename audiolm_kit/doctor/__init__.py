"""What commonly goes wrong with an installation, a checkpoint or a manifest, found and told together with its cure."""
