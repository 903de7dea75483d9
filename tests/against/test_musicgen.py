"""Ours against MusicGen of transformers: a folder that is read or written gives the same logits, codes and sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from audiolm_kit.lm.generate import generate
from audiolm_kit.lm.sampling import Sampling
from audiolm_kit.official.musicgen import read_musicgen, write_musicgen
from audiolm_kit.official.parts import Parts, conditioner_of, read_ours, write_ours

transformers = pytest.importorskip("transformers")

K, V, T = 4, 16, 200
TEXTS = ["rain", "a dog barks twice and a bell rings"]
SHAPES = {"mono": (1, 12), "stereo": (2, 12), "equal widths": (1, 16)}
"""Audio channels, and the width of the text states; the model is 16 wide."""


class Case(NamedTuple):
    folder: Path
    theirs: Any
    parts: Parts


@pytest.fixture(scope="module", params=SHAPES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A folder that transformers has saved, opened by both."""
    folder = tmp_path_factory.mktemp("musicgen")
    save_theirs(folder, *SHAPES[request.param])
    return Case(folder, opened(folder), read_musicgen(folder))


def save_theirs(folder: Path, channels: int, text_width: int) -> None:
    """As published models are: T5 with tokenizer, EnCodec as audiocraft trains it, and processor; all tiny."""
    torch.manual_seed(0)
    text = transformers.T5Config(vocab_size=20, d_model=text_width, d_kv=4, d_ff=16, num_layers=2, num_heads=3)
    codec = transformers.EncodecConfig(
        sampling_rate=8000,
        target_bandwidths=[3.2],
        num_filters=4,
        hidden_size=8,
        codebook_dim=8,
        codebook_size=V,
        upsampling_ratios=[8, 5],
        num_lstm_layers=1,
        use_causal_conv=False,
        use_conv_shortcut=False,
    )
    decoder = transformers.MusicgenDecoderConfig(
        vocab_size=V,
        num_codebooks=K * channels,
        audio_channels=channels,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        pad_token_id=V,
        bos_token_id=V,
    )
    config = transformers.MusicgenConfig(text_encoder=text, audio_encoder=codec, decoder=decoder)
    model = transformers.MusicgenForConditionalGeneration(config)
    for name, weight in model.named_parameters():
        if not name.startswith("audio_encoder"):
            nn.init.normal_(weight, mean=float(weight.dim() == 1 and name.endswith("weight")), std=0.3)
    for name, buffer in model.audio_encoder.named_buffers():
        if name.endswith(("embed", "embed_avg")):
            nn.init.normal_(buffer)
    model.generation_config.update(pad_token_id=V, bos_token_id=V, decoder_start_token_id=V)
    model.save_pretrained(folder)
    extractor = transformers.EncodecFeatureExtractor(channels, 8000, padding_side="left")
    transformers.MusicgenProcessor(extractor, tokenizer()).save_pretrained(folder)


def tokenizer() -> Any:
    """Of the class that published models have."""
    words = sorted({f"\u2581{word}" for text in TEXTS for word in text.split()})
    likely = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "\u2581": -5.0, **dict.fromkeys(words, -2.0)}
    return transformers.T5TokenizerFast(vocab=list(likely.items()), extra_ids=0)


def opened(folder: Path) -> Any:
    model, about = transformers.MusicgenForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not about["missing_keys"] and not about["unexpected_keys"]
    return model.eval()


def their_codes(case: Case, prompt: Tensor, num_frames: int, **options: Any) -> tuple[Tensor, Tensor]:
    """What ``generate`` of theirs gives the codec, ``[B, K, T]``, and the sound that comes of it."""
    inputs = transformers.AutoProcessor.from_pretrained(case.folder)(text=TEXTS, padding=True, return_tensors="pt")
    seen: list[Tensor] = []
    codec = case.theirs.audio_encoder
    decode: Callable[..., Any] = codec.decode

    def watched(codes: Tensor, **more: Any) -> Any:
        seen.append(codes[0])
        return decode(codes, **more)

    codec.decode = watched
    try:
        length = num_frames + max(case.parts.lm.pattern.offsets) + 1
        audio = case.theirs.generate(
            **inputs, decoder_input_ids=prompt.flatten(0, 1), max_length=length, do_sample=False, **options
        )
    finally:
        codec.decode = decode
    return torch.stack(seen, dim=2).flatten(1, 2), audio


def our_codes(parts: Parts, prompt: Tensor, num_frames: int) -> Tensor:
    conditioner = conditioner_of(parts)
    assert conditioner is not None
    context = parts.lm.condition(conditioner.prepare(TEXTS))
    return generate(parts.lm, prompt, num_frames, Sampling(temperature=0, guidance_scale=3.0), context)


def some_prompt(parts: Parts) -> Tensor:
    shape = (len(TEXTS), parts.lm.config.num_codebooks, 3)
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(3))


def test_logits_are_equal_for_captions_of_unequal_length(case: Case) -> None:
    lm, conditioner = case.parts.lm, conditioner_of(case.parts)
    assert conditioner is not None
    sequence = torch.randint(V + 1, (2, lm.config.num_codebooks, 9), generator=torch.Generator().manual_seed(1))
    inputs = transformers.AutoProcessor.from_pretrained(case.folder)(text=TEXTS, padding=True, return_tensors="pt")
    assert len(set(inputs["attention_mask"].sum(1).tolist())) == 2
    with torch.no_grad():
        expected = case.theirs(**inputs, decoder_input_ids=sequence.flatten(0, 1)).logits.view(*sequence.shape, V)
        logits = lm.step_logits(sequence, lm.condition(conditioner.prepare(TEXTS)))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_prompted_greedy_guided_continuation_has_the_same_codes_and_sound(case: Case) -> None:
    prompt = some_prompt(case.parts)
    expected, audio = their_codes(case, prompt, T, guidance_scale=3.0)
    codes = our_codes(case.parts, prompt, T)
    assert torch.equal(codes, expected)
    assert codes.shape[-1] == T and torch.equal(codes[..., :3], prompt) and len(codes.unique()) > V // 2
    torch.testing.assert_close(case.parts.codec.decode(codes), audio, rtol=1e-4, atol=1e-4)


def test_prompts_are_encoded_alike(case: Case) -> None:
    codec = case.parts.codec
    audio = torch.randn(1, codec.channels, 800, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        split = [case.theirs.audio_encoder.encode(audio[:, c : c + 1]).audio_codes[0] for c in range(codec.channels)]
    assert torch.equal(codec.encode(audio), torch.stack(split, dim=2).flatten(1, 2))


def test_import_and_export_give_the_folder_back(case: Case, tmp_path: Path) -> None:
    """Every tensor, and what it is called; through a checkpoint of ours."""
    write_ours(case.parts, tmp_path / "ours")
    write_musicgen(read_ours(tmp_path / "ours"), tmp_path / "theirs")
    again = opened(tmp_path / "theirs")
    expected, found = case.theirs.state_dict(), again.state_dict()
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    for part in ("decoder", "audio_encoder", "text_encoder"):
        assert compared(getattr(again.config, part)) == compared(getattr(case.theirs.config, part))


def compared(config: Any) -> dict[str, Any]:
    """What decides how a model computes."""
    about = config.to_dict()
    return {name: about[name] for name in sorted(about) if name not in ("architectures", "dtype", "_name_or_path")}


def test_export_and_import_give_our_parts_back(case: Case, tmp_path: Path) -> None:
    write_musicgen(case.parts, tmp_path / "theirs")
    again = read_musicgen(tmp_path / "theirs")
    assert again.lm.config == case.parts.lm.config and again.codec.config == case.parts.codec.config
    for ours, theirs in ((case.parts.lm, again.lm), (case.parts.codec, again.codec)):
        expected, found = ours.state_dict(), theirs.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_written_folder_is_generated_from_alike(case: Case, tmp_path: Path) -> None:
    """With the options that it brings: guidance among them, and codes drawn among the same 250."""
    write_musicgen(case.parts, tmp_path)
    written = Case(tmp_path, opened(tmp_path), case.parts)
    options = written.theirs.generation_config
    assert (options.do_sample, options.top_k, options.guidance_scale, options.temperature) == (True, 250, 3.0, 1.0)
    assert options.max_length == 10 * 200 + K
    prompt = some_prompt(case.parts)
    codes, _ = their_codes(written, prompt, 20)
    assert torch.equal(codes, our_codes(case.parts, prompt, 20))


def test_a_processor_of_the_written_folder_takes_captions_and_sounds(case: Case, tmp_path: Path) -> None:
    write_musicgen(case.parts, tmp_path)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert type(processor.tokenizer) is type(tokenizer())
    older = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    assert (older.feature_size, older.sampling_rate) == (case.parts.codec.channels, 8000)
    channels = case.parts.codec.channels
    sound = torch.zeros((2, 400) if channels == 2 else 400).numpy()
    inputs = processor(audio=sound, sampling_rate=8000, text=TEXTS[:1], padding=True, return_tensors="pt")
    audio = opened(tmp_path).generate(**inputs, max_new_tokens=20)
    assert audio.shape[:2] == (1, channels) and audio.shape[2] > 400
