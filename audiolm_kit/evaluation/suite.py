"""The suite: sounds, their references and captions, and the judges of a plan -> results."""

from __future__ import annotations

from audiolm_kit.evaluation import pairs, whole, words
from audiolm_kit.evaluation.job import Job
from audiolm_kit.evaluation.report import Result

MAKERS = (
    pairs.of_pairs,
    whole.of_codes,
    whole.of_distances,
    whole.of_classes,
    words.of_texts,
    words.of_words,
    words.of_voices,
    pairs.of_music,
)


def run(job: Job) -> list[Result]:
    """All results of a plan, what belongs together in one go.

    Raises:
        ValueError: The sounds do not fit the plan, said before any work; or one of them cannot be heard.
    """
    job.check()
    if job.plan.codes and job.judges.codec is None:
        raise ValueError("the plan asks how codes are used, and there is no codec: give one")
    return [result for make in MAKERS for result in make(job)]
