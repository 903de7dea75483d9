"use strict";
// The tests: a card to begin, one card for each trial, a card at the end. No card says which arm it plays.

const TITLES = { browse: "Listen", ab: "A/B test", mos: "Rating" };

const judging = {
  design: null,
  place: null, // the element that the cards go into
  mode: "",
  run: null,
  number: 0,
  tracks: [],
  since: 0,

  begin(design, place) {
    Object.assign(this, { design, place });
  },

  show(...parts) {
    player.stop();
    this.tracks = [];
    this.number = 0;
    this.place.replaceChildren(...parts);
    const heading = this.place.querySelector("h2");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  },

  // --- the first card ---

  open(mode) {
    Object.assign(this, { mode, run: null });
    const asked = new URLSearchParams(location.search);
    const last = recall(`listening/${this.design.page}/last`) || {};
    const any = crypto.getRandomValues(new Uint32Array(1))[0] % 1000000;
    const listener = make("input", { name: "listener", required: true, maxlength: "60", autocomplete: "nickname" });
    const seed = make("input", { name: "seed", type: "number", required: true, min: "0", max: String(LARGEST_SEED), step: "1" });
    listener.value = asked.get("listener") ?? last.listener ?? "";
    seed.value = asked.get("seed") ?? last.seed ?? any;
    const button = make("button", { class: "main-button" }, "Begin");
    const form = make("form", { submit: (event) => this.start(event, listener.value.trim(), Number(seed.value)) });
    const fields = [make("label", { class: "field" }, "Your name or number", listener), make("label", { class: "field" }, "Seed", seed)];
    form.append(make("div", { class: "fields" }, ...fields), button);
    form.addEventListener("input", () => this.offer(button, listener.value.trim(), Number(seed.value)));
    const about = make("p", {}, this.about(mode));
    const note = make("p", { class: "notice" }, this.storageNote());
    this.show(make("div", { class: "card" }, make("h2", {}, TITLES[mode]), about, form, note));
    this.offer(button, listener.value.trim(), Number(seed.value));
  },

  about(mode) {
    const count = trialsOf(mode, this.design, 0).length;
    const what =
      mode === "ab"
        ? `You hear ${count === 1 ? "a pair" : `${count} pairs`} of sounds, A and B, and answer: “${this.design.questions.ab}” Which of the two is A is drawn anew for each pair.`
        : `You hear ${count === 1 ? "a sound" : `${count} sounds, one after another,`} and answer: “${this.design.questions.mos}” Scores go from 1, bad, to 5, excellent.`;
    return `${what} Use headphones in a quiet room and leave the volume as it is. The seed decides the order.`;
  },

  storageNote() {
    return keep("listening/kept", true)
      ? "Answers stay in this browser until you save them: you may close the page and go on later."
      : "This browser keeps nothing for this page: leave it open until you have saved your answers.";
  },

  offer(button, listener, seed) {
    const run = listener ? new Run(this.mode, this.design, listener, seed) : null;
    if (!run || !run.count) button.textContent = "Begin";
    else if (run.next > run.trials.length) button.textContent = "To your answers";
    else button.textContent = `Go on with ${run.next} of ${run.trials.length}`;
  },

  start(event, listener, seed) {
    event.preventDefault();
    if (!listener) return;
    this.run = new Run(this.mode, this.design, listener, seed);
    this.trial(this.run.next);
  },

  // --- a trial ---

  trial(number) {
    const run = this.run;
    if (number > run.trials.length) return this.end();
    const trial = run.trials[number - 1];
    const names = this.mode === "ab" ? ["A", "B"] : ["Sound"];
    const sides = trial.sides.map((sound, place) => this.side(sound, names[place]));
    const judged = sides.map((side) => side.track);
    const prompt = trial.prompt ? this.prompt(trial.prompt) : null;
    const notice = make("p", { class: "notice", "aria-live": "polite" });
    const card = make("div", { class: "card" }, make("h2", {}, trial.item));
    card.append(make("p", { class: "question" }, this.design.questions[this.mode]), ...(prompt ? [prompt.box] : []));
    card.append(make("div", { class: "sides" }, ...sides.map((side) => side.box)), this.answers(run.answers[number]), notice);
    card.append(make("div", { class: "switches" }, ...switches(this.mode === "ab")), this.keys(Boolean(prompt)));
    this.show(this.progress(number), card, this.below(number));
    Object.assign(this, { number, tracks: judged, promptTrack: prompt && prompt.track, notice, since: performance.now() });
    for (const track of judged) track.onheard = () => this.update();
    this.update();
    return undefined;
  },

  progress(number) {
    const all = this.run.trials.length;
    const bar = make("progress", { max: String(all), value: String(this.run.count), "aria-label": "answered" });
    return make("div", { class: "progress" }, make("span", {}, `${number} of ${all}`), bar);
  },

  audio(sound) {
    const audio = new Audio(); // not in the page: nothing there names the file
    audio.preload = "auto";
    audio.src = sound.source || document.querySelector(`figure[data-number="${sound.number}"] audio`).src;
    return audio;
  },

  side(sound, name) {
    const box = make("div", { class: "side", role: "group", "aria-label": name });
    const track = new Track({ audio: this.audio(sound), box, name, seconds: sound.seconds });
    const line = make("div", { class: "timeline" });
    box.append(make("span", { class: "name" }, name), track.button, line, track.clock);
    track.along(line);
    return { box, track };
  },

  prompt(sound) {
    const box = make("div", { class: "prompt", role: "group", "aria-label": "prompt" });
    const track = new Track({ audio: this.audio(sound), box, name: "prompt", seconds: sound.seconds });
    const line = make("div", { class: "timeline" });
    box.append(track.button, make("span", {}, "Prompt"), line, track.clock);
    track.along(line);
    return { box, track };
  },

  /** What can be answered: [value, what the button shows largest, and below it]. */
  choices() {
    if (this.mode === "mos") return Object.entries(SCORES).map(([score, word]) => [Number(score), score, word]);
    const same = ["same", "=", "no difference"];
    return [["left", "A", "this one"], ...(this.design.forced ? [] : [same]), ["right", "B", "this one"]];
  },

  answers(given) {
    const box = make("div", { class: `answers ${this.mode}`, role: "group", "aria-label": "your answer" });
    for (const [place, [value, large, small]] of this.choices().entries()) {
      const pressed = Boolean(given) && given.value === value;
      const says = { "aria-pressed": String(pressed), "aria-keyshortcuts": String(place + 1), "data-value": String(value) };
      box.append(make("button", { class: "answer", type: "button", ...says, click: () => this.answer(value) }, make("b", {}, large), small));
    }
    return box;
  },

  keys(prompt) {
    const answers = this.choices().length;
    const play = this.mode === "ab" ? [["←", "→"], "play A, B"] : [["←"], "from the beginning"];
    const more = prompt ? [[["P"], "the prompt"]] : [];
    return keysHint(play, [["space"], "plays and pauses"], ...more, [["1"], `to ${answers}: your answer`], [["backspace"], "back"]);
  },

  below(number) {
    const back = make("button", { class: "quiet", type: "button", click: () => this.back() }, "Back");
    back.disabled = number === 1;
    const skip = make("button", { class: "quiet", type: "button", click: () => this.trial(number + 1) }, "Skip");
    const leave = make("button", { class: "quiet", type: "button", click: () => this.open(this.mode) }, "Leave");
    const save = make("button", { class: "quiet push", type: "button", click: () => this.save() }, "Save so far (CSV)");
    save.disabled = !this.run.count;
    return make("div", { class: "row" }, back, skip, leave, save);
  },

  /** Answers open when everything was heard, or when there was an answer before. */
  get ready() {
    return Boolean(this.run.answers[this.number]) || this.tracks.every((track) => track.heard);
  },

  update() {
    for (const button of this.place.querySelectorAll(".answer")) button.setAttribute("aria-disabled", String(!this.ready));
    const missing = this.tracks.filter((track) => !track.heard).map((track) => track.name);
    const open = this.run.answers[this.number] ? "Answered; it can be changed." : "Your answer, please.";
    const told = this.ready ? open : `Listen to ${missing.join(" and ").replace("Sound", "the sound")} first.`;
    this.notice.textContent = this.unkept ? `${told} ${this.storageNote()}` : told;
  },

  answer(value) {
    if (!this.ready) return;
    const kept = this.run.answer(this.number, value, (performance.now() - this.since) / 1000);
    this.unkept = !kept;
    this.trial(this.number + 1);
  },

  back() {
    if (this.number > 1) this.trial(this.number - 1);
  },

  // --- the last card ---

  end() {
    const run = this.run;
    const save = make("button", { class: "main-button", type: "button", click: () => this.save() }, "Save the answers (CSV)");
    const back = make("button", { class: "quiet", type: "button", click: () => this.trial(run.trials.length) }, "Back");
    const again = make("button", { class: "quiet", type: "button", click: () => this.another() }, "Another listener");
    const told = make("p", {}, `${run.count} of ${run.trials.length} answered. Save them and send the file to whoever asked you.`);
    const card = make("div", { class: "card" }, make("h2", {}, "Thank you"), told, save);
    save.disabled = !run.count;
    const left = run.next <= run.trials.length;
    const skipped = left ? [make("button", { class: "quiet", type: "button", click: () => this.trial(run.next) }, "To what was skipped")] : [];
    // A page that shows its sounds by name has nothing to hide at the end; one that does not may be heard again.
    if (this.design.modes.includes("browse")) card.append(make("details", {}, make("summary", {}, "Which was which"), this.table(run)));
    this.show(card, make("div", { class: "row" }, back, ...skipped, again));
  },

  table(run) {
    const heads = run.mode === "ab" ? ["item", "left", "right", "choice"] : ["item", "arm", "score"];
    const line = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, String(cell))));
    const told = { left: "A", right: "B", same: "no difference" };
    const rows = run.rows().map((row) => line("td", heads.map((head) => (head === "choice" ? told[row[head]] : row[head]))));
    const named = { left: "A", right: "B" };
    const table = make("table", { class: "answered" }, line("th", heads.map((head) => named[head] || head)), ...rows);
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "which was which" }, table);
  },

  another() {
    keep(`listening/${this.design.page}/last`, {});
    this.open(this.mode);
  },

  save() {
    const link = make("a", { download: this.run.file });
    link.href = URL.createObjectURL(new Blob([this.run.csv()], { type: "text/csv;charset=utf-8" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  },

  key(name) {
    if (!this.number) return false;
    const choice = /^[1-9]$/.test(name) ? this.choices()[Number(name) - 1] : undefined;
    if (choice) this.answer(choice[0]);
    else if (name === " ") player.toggle(player.current || this.tracks[0]);
    else if (name === "ArrowLeft") this.restart(this.tracks[0]);
    else if (name === "ArrowRight") this.restart(this.tracks[this.tracks.length - 1]);
    else if (name.toLowerCase() === "p" && this.promptTrack) this.restart(this.promptTrack);
    else if (name === "Backspace") this.back();
    else return false;
    return true;
  },

  /** From the beginning or, where that was ticked, from where the other one is. */
  restart(track) {
    if (track === player.current && !player.samePlace) track.seek(0);
    player.play(track);
  },
};
