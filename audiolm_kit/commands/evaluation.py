"""The verb that judges sounds: metrics with intervals, as JSON, as Markdown and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audiolm_kit.commands.given import checked_device

if TYPE_CHECKING:
    from audiolm_kit.codec.opening import AnyCodec
    from audiolm_kit.evaluation.examples import Example
    from audiolm_kit.evaluation.job import Job, Judges
    from audiolm_kit.evaluation.plan import Model, Plan
    from audiolm_kit.evaluation.report import Report

MANIFESTS = (".jsonl", ".jsonl.gz")


def evaluate(
    sounds: str,
    *,
    output: str,
    references: str = "",
    codec: str = "",
    config: tuple[str, ...] = (),
    split: str = "",
    name: str = "",
    listen: str = "",
    device: str = "auto",
) -> None:
    """Judge a folder of sounds: metrics with intervals, as metrics.json, metrics.md and report.html.

    Args:
        sounds: A folder of sounds (with notes beside them, as `generate` writes them, or an index.json), a list of
            them, or a manifest.
        output: The folder to write the three files into.
        references: What they are compared with: a folder, a list or a manifest, where names are alike pair by pair.
        codec: A codec's checkpoint folder or hub name, for distances in its latents and the use of its codebooks.
        config: A YAML file that says what to measure, and by which models; what is left out is what needs no download.
        split: Of manifests, only rows of this split.
        name: What the sounds are called in the report; else by their folder.
        listen: The address of a page where they can be heard, for links from the report.
        device: Where to compute: cpu, cuda, or auto for the best there is.
    """
    from pathlib import Path

    from audiolm_kit import audio
    from audiolm_kit.evaluation import page, report
    from audiolm_kit.evaluation.job import Job
    from audiolm_kit.evaluation.plan import read_plan, suggested

    examples, real = listed(sounds, split), listed(references, split) if references else []
    paired = with_references(examples, real)
    has_pairs = any(example.reference for example in paired)
    plan = read_plan(config) if config else suggested(has_pairs, bool(real), bool(codec))
    if plan.wants_codec and not codec:
        raise ValueError("the plan asks what a codec hears, and none is given: give codec, a checkpoint folder")
    Job(paired, real, plan).check()  # before models are opened
    job = Job(paired, real, plan, judges_of(plan, codec, checked_device(device)))
    found = judged(job, name or Path(sounds).resolve().name)
    folder = Path(output)
    report.write(found, folder / "metrics.json")
    text = f"{report.rows({str(found.about['name']): found})}\n\n{report.table(found)}\n"
    audio.write_bytes(folder / "metrics.md", text.encode())
    audio.write_bytes(folder / "report.html", page.render(found, listen).encode())
    print(report.table(found))
    print(folder / "report.html")


def listed(source: str, split: str) -> list[Example]:
    """The sounds of a folder, of a list or of a manifest."""
    from pathlib import Path

    from audiolm_kit.evaluation.examples import Clip, Example, named, read_examples

    if not source.endswith(MANIFESTS):
        return read_examples(source)
    from audiolm_kit.data.manifest import read_manifest

    rows = read_manifest(source, split or None)
    if not rows:
        raise ValueError(f"{source} has no rows" + (f" of split {split!r}: give another" if split else ""))
    made = []
    for row in rows:
        path = Path(row.path)
        clip = Clip(path, row.start, row.duration)
        made.append(Example(path.stem, clip, text=row.caption or row.label or "", transcript=row.transcript or ""))
    return named(made)


def with_references(examples: list[Example], references: list[Example]) -> list[Example]:
    """Each with its own; those that an index names stay."""
    from audiolm_kit.evaluation import examples as gathered

    return gathered.with_references(examples, references) if references else examples


def judges_of(plan: Plan, codec: str, device: str) -> Judges:
    """Open all models of a plan."""
    from audiolm_kit import checkpoint
    from audiolm_kit.evaluation.job import Judges
    from audiolm_kit.evaluation.listeners import Recogniser, Voice, clap

    opened = opened_codec(codec, device) if plan.wants_codec else None
    return Judges(
        codec=opened,
        codec_name=codec,
        codec_fingerprint="" if opened is None else checkpoint.fingerprint(opened),
        device=device,
        embedders=[embedder_of(model, opened, codec, device) for model in plan.embedders],
        classifiers=[embedder_of(model, opened, codec, device, classes=True) for model in plan.classifiers],
        scorers=[function_or(clap, model, device) for model in plan.scorers],
        recognisers=[function_or(Recogniser, model, device) for model in plan.recognisers],
        voices=[function_or(Voice, model, device) for model in plan.voices],
    )


def opened_codec(codec: str, device: str) -> AnyCodec:
    """The codec of a folder, or of an AudioGen's, or of the hub."""
    from audiolm_kit import checkpoint, hub
    from audiolm_kit.codec.opening import open_codec

    folder = hub.checkpoint(codec)
    return open_codec(folder / "codec" if checkpoint.kind_of(folder) == "AudioGen" else folder).to(device).eval()


def embedder_of(model: Model, codec: AnyCodec | None, codec_name: str, device: str, classes: bool = False) -> Any:
    """The embedder, or the classifier, that a plan names."""
    from audiolm_kit.evaluation import listeners
    from audiolm_kit.evaluation.embedding import function_of

    if model.kind == "function":
        return function_of(model.name)
    if model.kind == "codec":
        assert codec is not None
        return in_latents(codec, codec_name, model, device)
    if model.kind == "ssl":
        return in_layer(model, device)
    if model.kind == "encodec":
        return listeners.encodec(model.name, device, model.pool)
    if model.kind == "clap":
        return listeners.SoundsOf(listeners.clap(model.name, device))
    return listeners.Tagger(model.name, device, embeds=not classes)


def function_or(kind: Any, model: Model, device: str) -> Any:
    """The function that a plan names, or a model."""
    from audiolm_kit.evaluation.embedding import function_of

    return function_of(model.name) if model.kind == "function" else kind(model.name, device)


def in_latents(codec: AnyCodec, name: str, model: Model, device: str) -> Any:
    """What a codec's decoder reads of a sound, [T, D]; of channels that are coded apart, side by side."""
    from torch import Tensor

    from audiolm_kit import checkpoint
    from audiolm_kit.evaluation.embedding import FrameEmbedder, digest

    def frames(samples: Tensor) -> Tensor:
        latents = codec.latents(codec.encode(samples[None].to(device)))  # [1 or C, D, T]
        return latents.permute(2, 0, 1).flatten(1)

    fingerprint = digest("codec", model.pool, checkpoint.fingerprint(codec))
    return FrameEmbedder(name, fingerprint, frames, codec.sample_rate, codec.channels, model.pool)


def in_layer(model: Model, device: str) -> Any:
    """What leaves a layer of a model of speech."""
    from torch import Tensor

    from audiolm_kit.evaluation.embedding import FrameEmbedder, digest
    from audiolm_kit.semantic.features import FrameFeatures

    features = FrameFeatures.of_ssl(model.name, model.layer)

    def frames(samples: Tensor) -> Tensor:
        found: Tensor = features(samples.to(device))
        return found[0]

    fingerprint = digest("ssl", features.config.fingerprint, model.layer, model.pool)
    return FrameEmbedder(model.name, fingerprint, frames, features.config.sample_rate, 1, model.pool)


def judged(job: Job, name: str) -> Report:
    """Run the suite, and say how its figures came about; of paths their last part alone."""
    import datetime
    from dataclasses import asdict, replace

    from audiolm_kit import __version__, provenance
    from audiolm_kit.evaluation.report import Report
    from audiolm_kit.evaluation.suite import run

    results = run(job)
    about = {
        "name": name,
        "sounds": len(job.examples),
        "references": len(job.references),
        "pairs": len(job.pairs),
        "commit": provenance.commit(),
        "version": __version__,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    told = [
        replace(each, judge=replace(each.judge, name=provenance.named(each.judge.name))) if each.judge else each
        for each in results
    ]
    texts = {example.name: example.text for example in job.examples if example.text}
    return Report(about, provenance.named(asdict(job.plan)), told, texts)
