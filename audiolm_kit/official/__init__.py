"""Published weights of others, read and written: EnCodec, AudioGen, MusicGen."""
