"""Roof one: Lightning tasks, all of one shape."""
