"""All checks in their order: the installation, and then, where one is named, a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from audiolm_kit.doctor.environment import CHECKS
from audiolm_kit.doctor.findings import SEEN_TO, Finding, checked, one_line


def diagnose(
    checkpoint: str | None = None, manifest: str = "", shards: str = "", picture: str = "", device: str = "auto"
) -> Iterator[Finding]:
    """Check the installation, and a checkpoint if its folder, or its name on the hub, is given. No check raises.

    Args:
        manifest: the user's own sounds, of which the first few are tried; empty takes a built-in one.
        shards: codes that are compared with the checkpoint; empty for none.
        picture: the PNG to write of the codec's reconstruction; empty for none.
        device: where the checkpoint computes; auto for CUDA where there is one.

    Raises:
        ValueError: a manifest or shards without a checkpoint.
    """
    if checkpoint is None and (manifest or shards):
        raise ValueError("a manifest and shards are tried with a checkpoint: name its folder first")
    return _findings(checkpoint, manifest, shards, picture, device)


def _findings(checkpoint: str | None, manifest: str, shards: str, picture: str, device: str) -> Iterator[Finding]:
    for name, check in CHECKS.items():
        yield checked(name, check)
    if checkpoint is None:
        return
    try:
        # It imports torch, transformers and all models, of which the checks above may have found one broken.
        from audiolm_kit.doctor.examination import Asked, examination
    except Exception as error:
        yield Finding("checkpoint", f"cannot be opened ({one_line(error)})", SEEN_TO)
        return
    yield from examination(checkpoint, Asked(manifest, shards, picture, device))
