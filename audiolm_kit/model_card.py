"""The model card of a checkpoint: what it is, how it is used, what it was trained on and how, told by its own files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import nn

from audiolm_kit import checkpoint, hub, provenance
from audiolm_kit.codec.foreign import ForeignCodec
from audiolm_kit.codec.model import NeuralCodec
from audiolm_kit.evaluation.contrastive import ContrastiveModel, ContrastiveScorer
from audiolm_kit.lm.model import StreamLM
from audiolm_kit.semantic.masked import MaskedModel
from audiolm_kit.semantic.tokenizer import SemanticTokenizer

FILE = "README.md"
MARK = "<!-- Written by `audiolm-kit push`; without this line the next push leaves the card as it is. -->"
MODELS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (NeuralCodec, ForeignCodec, StreamLM, SemanticTokenizer, MaskedModel, ContrastiveModel)
}
WHOLE = {
    "AudioGen": "Captions to sound, and sound to its continuation",
    "AudioLM": "Sound to its continuation, in the voice and the room that it has, without any text",
    "AudioLMStage": "One stage of an AudioLM",
    "NeuralCodec": "A neural codec: waveforms to codes and back",
    "ForeignCodec": "A neural codec: waveforms to codes and back",
    "StreamLM": "A language model of audio codes",
    "SemanticTokenizer": "A semantic tokenizer: waveforms to codes of what is said or played",
    "MaskedModel": "A model of sound that was trained to fill masked spans in",
    "ContrastiveScorer": "A small CLAP: how well a sound fits a caption",
}
TAGS = {
    "AudioGen": ["audiogen", "audio-generation"],
    "AudioLM": ["audiolm", "audio-generation"],
    "AudioLMStage": ["audiolm", "audio-generation"],
    "NeuralCodec": ["neural-codec"],
    "ForeignCodec": ["neural-codec"],
}
MADE = """```python
from audiolm_kit import {kind}, audio

model = {kind}.load("{name}")
[sound] = model.generate({what}, seconds=5, seed=0)
audio.write("sound.wav", sound)
```"""
OPENED = """```python
from audiolm_kit import checkpoint, hub
from {home} import {kind}

model = checkpoint.load({kind}, hub.local("{name}"))
```"""
ENCODED = '```sh\naudiolm-kit tokenize "{name}" manifest.jsonl -o shards\n```'

SCORED = """```python
from audiolm_kit import ContrastiveScorer, hub

scorer = ContrastiveScorer.load(hub.local("{name}"))
[sound] = model.generate(["rain falls on a roof"], seconds=5, seed=0, candidates=4, scorer=scorer)
```"""


class Part(NamedTuple):
    """A model of a checkpoint."""

    name: str
    """Its folder's; of a model by itself its kind."""
    model: nn.Module
    fingerprint: str


def write_card(folder: str | Path, name: str, licence: str, results: Sequence[str | Path] = ()) -> Path:
    """Write the card of a checkpoint into its folder as README.md, and return its path.

    A README.md that is not one of ours stays. All of the checkpoint is opened: none is published that is damaged.

    Args:
        name: what the model is called on the hub, ``owner/model``.
        licence: of the weights, by the hub's name for it.
        results: JSON files of measured numbers.

    Raises:
        FileNotFoundError: the folder, a part of it or a file of results is missing.
        ValueError: it is none of our checkpoints, or damaged; or the licence or the name is none of the hub's.
    """
    folder = Path(folder)
    if not hub.NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}, wanted owner/model, as the hub has it")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise ValueError(
            f"licence is {licence!r}, wanted the hub's name for it, such as mit, apache-2.0, cc-by-4.0, cc-by-nc-4.0, "
            "or other"
        )
    text = card(folder, name, licence, [_numbers(path) for path in results])
    path = folder / FILE
    if path.is_file() and MARK not in path.read_text(encoding="utf-8"):
        return path
    with checkpoint.replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def card(
    folder: Path,
    name: str,
    licence: str,
    results: Sequence[Mapping[str, Any]] = (),
    sections: Mapping[str, str] = {},
    mark: str = MARK,
) -> str:
    """The text of the card.

    Args:
        sections: what takes the place of the sections of these titles, or stands behind them.
        mark: a comment that says what has written the card.
    """
    kind = checkpoint.kind_of(folder)
    if kind not in WHOLE:
        checkpoint.read_kind(folder, "AudioGen")  # says what is missing, where it is no checkpoint at all
        raise ValueError(f"{folder} holds {checkpoint.article(kind)}, which has no model card: push a model or a codec")
    parts, facts = parts_of(folder, kind), provenance.read(folder)
    reads = any(isinstance(part.model, StreamLM) and part.model.config.text.kind != "none" for part in parts)
    own = {
        "Use": _use(kind, name, reads),
        "Model": _table(parts),
        "Training data": "\n".join(_data(facts)) or "The checkpoint does not say what it was trained on.",
        "Training": "\n\n".join(_training(facts)) or "The checkpoint does not say how it was trained.",
        "Results": _results(facts, results) or "None are recorded.",
        "Licence": f"The weights are under the licence `{licence}`.{_borrowed(facts)}",
    }
    about = f"{WHOLE[kind]}: {checkpoint.article(kind)} of audiolm_kit."
    body = "\n\n".join(f"## {title}\n\n{content}" for title, content in {**own, **sections}.items())
    return f"---\n{_front_matter(kind, licence, reads, facts)}---\n\n{mark}\n\n# {name}\n\n{about}\n\n{body}\n"


def parts_of(folder: Path, kind: str) -> list[Part]:
    """The models of a checkpoint, each opened and compared with its fingerprint.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: one is damaged, or another than the checkpoint was made of.
    """
    if kind in MODELS:
        model = checkpoint.load(MODELS[kind], folder)
        return [Part(kind, model, checkpoint.fingerprint(model))]
    parts: list[Part] = []
    found: dict[str, str] = {}
    for name in checkpoint.read_kind(folder, kind).get("fingerprints", {}):
        path = folder / name
        if (path_kind := checkpoint.kind_of(path)) in MODELS:
            model = checkpoint.load(MODELS[path_kind], path)
            parts.append(Part(name, model, checkpoint.fingerprint(model)))
            found[name] = parts[-1].fingerprint
        elif path.is_dir():
            found[name] = checkpoint.folder_fingerprint(path)
            if path_kind == ContrastiveScorer.__name__:
                parts.append(Part(name, ContrastiveScorer.load(path).model, found[name]))
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    checkpoint.check_bundle(folder, kind, found)
    return parts


# --- sections ---------------------------------------------------------------------------------------------------------


def _front_matter(kind: str, licence: str, reads: bool, facts: Mapping[str, Any]) -> str:
    about: dict[str, Any] = {"license": licence, "library_name": "audiolm_kit", "tags": ["audiolm_kit", "audio"]}
    about["tags"] += TAGS.get(kind, ["audio-tokenizer"])
    if kind == "AudioGen" and reads:
        about["pipeline_tag"] = "text-to-audio"
    bases = sorted({base for run in _runs(facts).values() for base in _bases(run) if hub.NAME.fullmatch(base)})
    if bases:
        about["base_model"] = bases
    return str(yaml.safe_dump(about, sort_keys=False))


def _use(kind: str, name: str, reads: bool) -> str:
    shown = "audiolm_kit is needed.\n\n"
    if kind == "AudioGen" and reads:
        command = f'```sh\naudiolm-kit generate "{name}" "rain falls on a roof" -o rain.wav --seconds 5\n```\n\n'
        return shown + command + MADE.format(kind=kind, name=name, what='["rain falls on a roof"]')
    if kind == "AudioGen":
        return shown + MADE.format(kind=kind, name=name, what='[""]')
    if kind == "AudioLM":
        command = f'```sh\naudiolm-kit continue "{name}" prompt.wav -o whole.wav --seconds 10\n```\n\n'
        return shown + command + MADE.format(kind=kind, name=name, what="1")
    if kind == "AudioLMStage":
        return shown + f'```sh\naudiolm-kit assemble "{name}" OTHER_STAGES -o audiolm\n```'
    if kind == "ContrastiveScorer":
        return shown + SCORED.format(name=name)
    if kind in ("NeuralCodec", "ForeignCodec", "SemanticTokenizer"):
        return shown + ENCODED.format(name=name) + "\n\n" + _opening(kind, name)
    return shown + _opening(kind, name)


def _opening(kind: str, name: str) -> str:
    return OPENED.format(kind=kind, name=name, home=MODELS[kind].__module__)


def _table(parts: Sequence[Part]) -> str:
    rows = [
        f"| {part.name} | {_described(part.model)} | {_count(part.model)} | `{part.fingerprint}` |" for part in parts
    ]
    return "\n".join(["| part | what it is | weights | fingerprint |", "|---|---|---|---|", *rows])


def _described(model: nn.Module) -> str:
    """A model's shape in a few words."""
    if isinstance(model, (NeuralCodec, ForeignCodec)):
        kind = model.config.body if isinstance(model, NeuralCodec) else model.config.kind
        sound = f"{model.sample_rate} Hz, {'stereo' if model.channels == 2 else 'mono'}"
        return (
            f"codec ({kind}), {model.num_codebooks} codebooks of {model.codebook_size} at {model.frame_rate:g} Hz, "
            f"{sound}, {_kbps(model):.3g} kbit/s"
        )
    if isinstance(model, StreamLM):
        own, text = model.config, model.config.text
        captions = {"none": "no captions", "t5": f"captions by the T5 {text.name}"}.get(
            text.kind, f"captions by {text.kind}"
        )
        shape = f"{own.transformer.layers} layers of {own.transformer.dim}, {own.transformer.heads} heads"
        return f"{own.num_codebooks} codebooks of {own.codebook_size}, pattern {own.pattern}, {shape}, {captions}"
    if isinstance(model, SemanticTokenizer):
        features = model.config.features.kind
        return f"{model.codebook_size} codes of {features} at {model.frame_rate:g} Hz, {model.sample_rate} Hz"
    if isinstance(model, ContrastiveModel):
        heard = model.config
        return f"a small CLAP that chooses among takes, {heard.seconds:g} s at {heard.sample_rate} Hz"
    return type(model).__name__


def _kbps(codec: NeuralCodec | ForeignCodec) -> float:
    return codec.num_codebooks * (codec.codebook_size - 1).bit_length() * codec.frame_rate / 1000


def _count(model: nn.Module) -> str:
    """How many numbers a checkpoint holds for it, its codebooks among them."""
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    return f"{count / 1e6:.3g} M" if count >= 1e5 else str(count)


def _runs(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The runs behind a checkpoint by what they made: one, or one for each stage of an AudioLM."""
    stages = facts.get("stages")
    if isinstance(stages, Mapping):
        return {f"stage {name}": run for name, run in stages.items()}
    return {"": facts} if facts else {}


def _bases(run: Mapping[str, Any]) -> Iterator[str]:
    """What a run began with, or what was imported."""
    recipe = run.get("recipe", {})
    found = (run.get("imported", {}).get("source"), recipe.get("model", {}).get("init_args", {}).get("base"))
    yield from (str(each) for each in found if each)


def _data(facts: Mapping[str, Any]) -> Iterator[str]:
    for made, run in _runs(facts).items():
        data = run.get("data", {})
        if not data:
            continue
        sources = [
            f"{name} {', '.join(each) if isinstance(each, list) else each}"
            for name, each in data.items()
            if isinstance(each, (str, list)) and name != "kind"
        ]
        amounts = [f"{data[name]} {name}" for name in ("recordings", "rows") if name in data]
        amounts += [f"{data['hours']:g} hours"] if "hours" in data else []
        told = "; ".join([*sources, ", ".join(amounts)] if amounts else sources)
        yield f"- {made + ': ' if made else ''}{told} ({data.get('kind', 'data')})"


def _training(facts: Mapping[str, Any]) -> Iterator[str]:
    for made, run in _runs(facts).items():
        commit = f", commit {run['commit'][:12]}" if run.get("commit") else ""
        version = f"audiolm_kit {run.get('version', 'of unknown version')}{commit}"
        if "imported" in run:
            source = run["imported"]
            yield f"Not trained by audiolm_kit: imported from {source['source']} ({source['layout']}), {version}."
        if "task" not in run:
            continue
        batch = run.get("data", {}).get("batch_size")
        sizes = f" of {batch} items on each of {run['ranks']} devices" if batch else ""
        begun = "".join(f"; it began with {base}" for base in _bases(run))
        head = f"{made[:1].upper()}{made[1:]}: " if made else ""
        steps = f"{run['steps']} steps{sizes}, seed {run['seed']}, precision {run['precision']}"
        yield f"{head}{run['task']}, {steps}, {version}{begun}."
        if run.get("recipe"):
            recipe = yaml.safe_dump(run["recipe"], sort_keys=False, width=100)
            yield f"<details><summary>The recipe</summary>\n\n```yaml\n{recipe}```\n\n</details>"


def _results(facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for made, run in _runs(facts).items():
        validated = dict(run.get("validated", {}))
        step = validated.pop("step", None)
        where = " ".join(each for each in (made, f"validation after step {step}") if each)
        rows += [f"| {metric} | {value:g} | {where} |" for metric, value in validated.items()]
    rows += [f"| {metric} | {value:g} | measured |" for found in results for metric, value in found.items()]
    return "\n".join(["| metric | value | where |", "|---|---|---|", *rows]) if rows else ""


def _borrowed(facts: Mapping[str, Any]) -> str:
    bases = sorted({base for run in _runs(facts).values() for base in _bases(run)})
    return f" They come of {', '.join(bases)}, whose own licence holds too." if bases else ""


def _numbers(path: str | Path) -> dict[str, float]:
    """The numbers of a JSON file, those of inner objects under joined names."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no results at {path}: give a JSON file of numbers")
    found = dict(_leaves(checkpoint.read_json(path), ""))
    if not found:
        raise ValueError(f"{path} holds no numbers: give a JSON object whose values are numbers")
    return found


def _leaves(value: Any, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{name}/{key}" if name else str(key))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield name.replace("|", "\\|"), float(value)
