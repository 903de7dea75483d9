"""What listening tests draw by a seed, in a real browser: pairs, sides, order, and the prompts beside them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from listening_tabs import ROLES, TEXTS, Listener


def test_trials_follow_from_the_seed_alone(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    for mode in ("ab", "mos"):
        orders = listener.run(f"[1, 1, 2].map((seed) => JSON.stringify(trialsOf('{mode}', page.design, seed)))")
        assert orders[0] == orders[1] != orders[2]


def test_every_pair_is_compared_once_and_every_arm_is_left_half_the_time(
    listener: Listener, pages: dict[str, Path]
) -> None:
    listener.go(pages["all"])
    for seed in range(8):
        trials = listener.run(f"abTrials(page.design, {seed}).map((t) => [t.item, ...t.sides.map((s) => s.arm)])")
        assert len(trials) == 9
        compared = Counter((item, *sorted((left, right))) for item, left, right in trials)
        assert len(compared) == 9 and set(compared.values()) == {1}
        sides = Counter((left, right) for _, left, right in trials)
        assert all(abs(sides[one, other] - sides[other, one]) == 1 for one, other in sides)
    rated = listener.run("mosTrials(page.design, 3).map((t) => [t.item, t.sides[0].arm])")
    assert sorted(map(tuple, rated)) == sorted((text, role) for text in TEXTS for role in ROLES)


def test_the_odd_side_and_the_order_are_drawn(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    firsts = listener.run("[...Array(40).keys()].map((seed) => abTrials(page.design, seed)[0])")
    assert {trial["item"] for trial in firsts} == set(TEXTS)
    lefts = Counter(trial["sides"][0]["arm"] for trial in firsts)
    assert set(lefts) == set(ROLES) and max(lefts.values()) < 25


def test_fewer_trials_keep_the_balance(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    for seed in range(5):
        few = f"{{ ...page.design, trials: 6 }}, {seed}"
        pairs = listener.run(f"abTrials({few}).map((t) => t.sides.map((s) => s.arm))")
        kinds = Counter(tuple(sorted(pair)) for pair in pairs)
        assert set(kinds.values()) == {2} and len(kinds) == 3
        assert all(pairs.count(pair) == 1 for pair in pairs)  # each of two sides once
        arms = Counter(listener.run(f"mosTrials({few}).map((t) => t.sides[0].arm)"))
        assert set(arms.values()) == {2} and len(arms) == 3


def test_each_trial_has_the_prompt_of_its_sounds(listener: Listener, pages: dict[str, Path]) -> None:
    """The one that the note of a sound names; where none does, that of the take, or the only one."""

    def prompts(named: list[int | None], count: int, mode: str) -> list[int]:
        sounds = [{"number": 10 + take, "arm": "prompt", "take": take + 1} for take in range(count)]
        for place, (arm, prompt) in enumerate((arm, prompt) for arm in ("real", "made") for prompt in named):
            own = {} if prompt is None or arm == "real" else {"prompt": prompt}
            sounds.append({"number": place, "arm": arm, "take": place % len(named) + 1, **own})
        design = {"arms": ["real", "made"], "pairs": [["real", "made"]], "prompt": "prompt", "trials": 0}
        told = json.dumps({**design, "items": [{"item": "a dog", "sounds": sounds}]})
        drawn = listener.run(f"trialsOf('{mode}', {told}, 1)")
        kept = [trial for trial in drawn if any(side["arm"] == "made" for side in trial["sides"])]
        return [trial["prompt"]["number"] for trial in sorted(kept, key=lambda trial: trial["take"])]

    listener.go(pages["all"])
    for mode in ("ab", "mos"):
        assert prompts([12, 10, 12], 3, mode) == [12, 10, 12]
        assert prompts([None] * 3, 3, mode) == [10, 11, 12]
        assert prompts([None] * 3, 1, mode) == [10, 10, 10]


def test_numbers_are_even(listener: Listener, pages: dict[str, Path]) -> None:
    listener.go(pages["all"])
    drawn = listener.run("(() => { const next = numbers(5); return [...Array(20000)].map(next); })()")
    assert 0 <= min(drawn) and max(drawn) < 1
    counts = Counter(int(10 * number) for number in drawn)
    assert max(abs(counts[part] - 2000) for part in range(10)) < 5 * 2000**0.5
