"""Waveform [B, 1, L] to semantic codes [B, 1, T]."""
