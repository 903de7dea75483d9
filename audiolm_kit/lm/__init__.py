"""Token language models: codes -> codes."""
