"""Waveform [B, C, L] to acoustic codes [B, K, T] and back."""
