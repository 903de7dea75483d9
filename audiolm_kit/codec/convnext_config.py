"""Sizes and choices of the light codec body."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ConvNeXtConfig:
    """Sizes of the light body; its hop is ``hop * frames_per_code`` samples."""

    dim: int = 64
    """The width of the latents, D."""
    width: int = 256
    """Of the residual stream, W."""
    encoder_layers: int = 4
    decoder_layers: int = 8
    expansion: int = 3
    """Of the two pointwise layers inside a block."""
    hop: int = 160
    """Samples between spectral frames."""
    fft_size: int = 640
    """The window of the Fourier transforms, in samples."""
    frames_per_code: int = 2
    """Spectral frames that one code frame stands for."""
    noise: bool = False
    """The decoder says for each frame and frequency how much of it is noise, an idea of DDSP (arXiv:2001.04643): what
    codes cannot and ears need not tell apart, such as the drops of rain, is drawn and not copied."""
    linear: bool = False
    """A straight way beside the blocks, from log magnitudes to latents and back. Training starts it as the principal
    components of what is trained on, and the codebooks as the k-means of those (``begin``), so that the blocks have to
    learn only what the best linear codec leaves: pitch, which blocks alone find after very many steps, is there from
    the first one."""
    linear_noise: bool = False
    """With noise, the straight way also says how much of each magnitude that is; it begins as what is likeliest, given
    what codes leave out of magnitudes. Of rain, codes say how loud it is in the mean, which alone is a hum. What codes
    are too few to say of other sounds becomes noise, too: listen to both (recipes/sound_events, ``codecs``)."""
    tonal: float = 0.0
    """Added to the logits of the tonal shares that ``linear_noise`` begins with. Likelihood takes for noise all that
    codes leave out, also harmonics; with 2 a share of a half becomes 88 %, and what is all noise stays mostly that."""
    white: bool = False
    """Noise is white noise as the frames of a transform see it: neighbouring frames hold much of the same, and their
    sum is as loud as it should be. Drawn frame by frame (False, as codecs before it are), noise does not fit itself
    where frames overlap, and fades."""
    refine: int = field(default=0, compare=False)
    """Rounds of Griffin and Lim's algorithm that decoding ends with: phases that fit the decoder's magnitudes. With
    noise they start from phases that are noise, and the decoder's own are left out. Training leaves all of it out, and
    codes mean the same with any number: no part of the fingerprint."""

    postfilter: int = 0
    """Filters of a network that draws, in the magnitudes, the detail that codes leave open (``codec.postfilter``; 0:
    none); `PostfilterTask` adds and trains it. Phases then begin as noise, and refining fits them: give it rounds."""

    @property
    def bins(self) -> int:
        """Frequencies of a spectral frame of one channel."""
        return self.fft_size // 2 + 1

    def __post_init__(self) -> None:
        if self.fft_size < self.hop or (self.fft_size - self.hop) % 2:
            wanted = f"hop ({self.hop}) plus an even number, so that frames overlap evenly"
            raise ValueError(f"fft_size is {self.fft_size}, wanted {wanted}")
        if self.linear_noise and not (self.linear and self.noise):
            raise ValueError("linear_noise is what a linear way says of noise: set linear and noise, too")
        if self.postfilter and not (self.linear and self.noise and not self.linear_noise):
            raise ValueError(
                "postfilter works on what a linear way says, from noise: set linear and noise, no linear_noise"
            )
        if self.tonal and not self.linear_noise:
            raise ValueError(f"tonal is {self.tonal} without linear_noise, whose beginning it changes: set that, too")
        if self.white and not self.noise:
            raise ValueError("white says of what kind noise is: set noise, too")
        if self.postfilter < 0:
            raise ValueError(f"postfilter is {self.postfilter}, wanted 0 filters (none) or more")
        if self.refine < 0:
            raise ValueError(f"refine is {self.refine}, wanted 0 rounds or more")
