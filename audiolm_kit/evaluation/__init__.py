"""Evaluation: what a sound is worth, by the judgement of models that others have trained."""
