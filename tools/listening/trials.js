"use strict";
// What is heard in a test, in which order and on which side: all of it follows from the page and a seed.
// Nothing here touches the page; what was answered is kept in the browser and written as CSV.

const LARGEST_SEED = 4294967295;
const SCORES = { 1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "excellent" }; // ITU-T P.800, absolute category rating
const COLUMNS = {
  ab: ["page", "mode", "listener", "seed", "trial", "item", "left", "right", "take", "choice", "seconds", "time"],
  mos: ["page", "mode", "listener", "seed", "trial", "item", "arm", "take", "score", "seconds", "time"],
};

/** Numbers in [0, 1) that follow from a seed of 32 bits: a counter, mixed (splitmix32). */
function numbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed ^= mixed >>> 15;
    mixed = Math.imul(mixed, 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 4294967296;
  };
}

function shuffled(list, random) {
  const made = [...list];
  for (let i = made.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [made[i], made[j]] = [made[j], made[i]];
  }
  return made;
}

/** One from each list by turns until all are empty or `most` are taken (0: all); lists of lists of the same kind. */
function byTurns(lists, most) {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  const taken = [];
  for (let place = 0; place < longest; place++)
    for (const list of lists) if (place < list.length && (!most || taken.length < most)) taken.push(list[place]);
  return taken;
}

function ofArm(item, arm) {
  return item.sounds.filter((sound) => sound.arm === arm);
}

/** What a sound continues: the prompt that its note names or else that of its take, or the only one. */
function promptOf(item, design, sound) {
  if (design.arms.includes(design.prompt)) return null;
  const prompts = ofArm(item, design.prompt);
  return prompts.find((each) => each.number === sound.prompt) || prompts[sound.take - 1] || prompts[0] || null;
}

/**
 * Pairs of sounds of one item. Of the trials of two arms each arm has the left side in half (an odd one is drawn);
 * where `design.trials` leaves some out, all pairs of arms keep as many as the others.
 */
function abTrials(design, seed) {
  const random = numbers(seed);
  const lists = design.pairs.map(([one, other]) => {
    const found = [];
    for (const item of design.items) {
      const [ones, others] = [ofArm(item, one), ofArm(item, other)];
      for (let take = 0; take < Math.min(ones.length, others.length); take++) {
        const sides = [ones[take], others[take]];
        const prompt = promptOf(item, design, sides.find((sound) => sound.prompt) || sides[0]);
        found.push({ item: item.item, prompt, take: take + 1, sides, one });
      }
    }
    return shuffled(found, random);
  });
  const taken = byTurns(lists, design.trials);
  for (const [one, other] of design.pairs) {
    const own = taken.filter((trial) => trial.one === one && trial.sides[1].arm === other);
    const odd = random() < 0.5 ? 0 : 1;
    own.forEach((trial, place) => {
      if ((place + odd) % 2) trial.sides.reverse();
    });
  }
  return shuffled(taken, random);
}

/** Sounds one by one; where `design.trials` leaves some out, all arms keep as many as the others. */
function mosTrials(design, seed) {
  const random = numbers(seed ^ 0x4d4f53); // another order than that of the A/B test
  const lists = design.arms.map((arm) => {
    const found = [];
    for (const item of design.items)
      for (const sound of ofArm(item, arm))
        found.push({ item: item.item, prompt: promptOf(item, design, sound), take: sound.take, sides: [sound] });
    return shuffled(found, random);
  });
  return shuffled(byTurns(lists, design.trials), random);
}

function trialsOf(mode, design, seed) {
  return mode === "ab" ? abTrials(design, seed) : mosTrials(design, seed);
}

/** One listener's run through one test, kept in the browser under a name that holds all it depends on. */
class Run {
  constructor(mode, design, listener, seed) {
    Object.assign(this, { mode, design, listener, seed });
    this.trials = trialsOf(mode, design, seed);
    const kept = recall(this.key);
    this.answers = kept && typeof kept === "object" ? kept : {}; // by the number of the trial, from 1
  }

  get key() {
    return `listening/${this.design.page}/${this.mode}/${this.seed}/${this.listener}`;
  }

  get count() {
    return Object.keys(this.answers).length;
  }

  /** The first trial without an answer, from 1; one past the last where there is none. */
  get next() {
    let number = 1;
    while (this.answers[number]) number++;
    return number;
  }

  /** Keep an answer: "left", "right", "same", or a score. */
  answer(number, value, seconds) {
    this.answers[number] = { value, seconds: Math.round(seconds * 100) / 100, time: new Date().toISOString() };
    keep(`listening/${this.design.page}/last`, { listener: this.listener, seed: this.seed });
    return keep(this.key, this.answers);
  }

  rows() {
    return this.trials.flatMap((trial, place) => {
      const given = this.answers[place + 1];
      if (!given) return [];
      const about = { page: this.design.page, mode: this.mode, listener: this.listener, seed: this.seed };
      const told = { ...about, trial: place + 1, item: trial.item, take: trial.take, seconds: given.seconds, time: given.time };
      const [left, right] = trial.sides;
      return this.mode === "ab"
        ? [{ ...told, left: left.arm, right: right.arm, choice: given.value }]
        : [{ ...told, arm: left.arm, score: given.value }];
    });
  }

  csv() {
    return csv(COLUMNS[this.mode], this.rows());
  }

  get file() {
    const name = this.listener.replace(/[^\p{L}\p{N}]+/gu, "_");
    return `${this.mode}-${name}-${this.seed}.csv`;
  }
}

/** RFC 4180: a head, CRLF, quotes where they are needed. */
function csv(columns, rows) {
  const cell = (value) => (/[",\r\n]/.test(String(value)) ? `"${String(value).replace(/"/g, '""')}"` : String(value));
  return [columns, ...rows.map((row) => columns.map((name) => row[name]))].map((line) => line.map(cell).join(",") + "\r\n").join("");
}

/** A value that the browser has kept; null where it has none, or keeps nothing for pages from a disk. */
function recall(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

/** Whether the browser keeps it. */
function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
