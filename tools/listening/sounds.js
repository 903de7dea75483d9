"use strict";
// Sounds that can be played, one at a time, each with a button, a line of time and a moving head.

const ICONS =
  '<svg class="start" viewBox="0 0 16 16" aria-hidden="true"><path d="M4 2.2v11.6L13.4 8z"/></svg>' +
  '<svg class="pause" viewBox="0 0 16 16" aria-hidden="true"><path d="M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z"/></svg>';

/** An element with attributes (functions are listeners) and children (text or elements). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Which sound plays, and how the next one begins. */
const player = {
  current: null,
  loop: false,
  samePlace: false,

  play(track) {
    const before = this.current;
    if (before && before !== track) before.audio.pause();
    this.current = track;
    if (before && before !== track) track.seek(this.samePlace ? Math.min(before.now, track.seconds - 0.05) : 0);
    track.audio.loop = this.loop;
    track.audio.play().catch((error) => track.fail(error));
  },

  toggle(track) {
    if (track.audio.paused) this.play(track);
    else track.audio.pause();
  },

  stop() {
    if (this.current) this.current.audio.pause();
    this.current = null;
  },

  setLoop(on) {
    this.loop = on;
    if (this.current) this.current.audio.loop = on;
  },
};

/** One sound: `audio` need not be in the page, `box` gets the class "playing". */
class Track {
  constructor({ audio, box, name, seconds }) {
    Object.assign(this, { audio, box, name, given: seconds, onheard: null, broken: false });
    this.button = make("button", { class: "play", type: "button", click: () => player.toggle(this) });
    this.button.innerHTML = ICONS;
    this.clock = make("span", { class: "clock" });
    this.head = make("div", { class: "head" });
    this.played = make("div", { class: "played" });
    this.line = null;
    for (const kind of ["play", "pause", "ended", "seeked", "timeupdate", "loadedmetadata"])
      audio.addEventListener(kind, () => this.show());
    audio.addEventListener("play", () => this.follow());
    audio.addEventListener("error", () => this.fail(audio.error));
  }

  /** Make an element the line of time: a click goes there, and so do the arrow keys. */
  along(line) {
    this.line = line;
    for (const [name, value] of Object.entries({ role: "slider", tabindex: "0", "aria-valuemin": "0" }))
      line.setAttribute(name, value);
    line.setAttribute("aria-label", `place in ${this.name}`);
    line.append(this.played, this.head);
    line.addEventListener("pointerdown", (event) => this.drag(event));
    line.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.05, ArrowRight: 0.05 }[event.key];
      if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
      this.seek(this.now + step * this.seconds);
      event.preventDefault();
      event.stopPropagation();
    });
    this.show();
  }

  get seconds() {
    return Number.isFinite(this.audio.duration) ? this.audio.duration : this.given;
  }

  get now() {
    return this.audio.currentTime;
  }

  /** Whether enough was heard to judge it: two seconds or, of a shorter one, nearly all. */
  get heard() {
    const spans = this.audio.played;
    let sum = 0;
    for (let i = 0; i < spans.length; i++) sum += spans.end(i) - spans.start(i);
    this.wasHeard = this.wasHeard || sum >= Math.min(2, 0.9 * this.seconds);
    return this.wasHeard;
  }

  seek(seconds) {
    this.audio.currentTime = Math.max(0, Math.min(seconds, this.seconds));
    this.show();
  }

  drag(event) {
    if (event.button) return;
    const goTo = (at) => {
      const { left, width } = this.line.getBoundingClientRect();
      this.seek(((at.clientX - left) / width) * this.seconds);
    };
    const end = () => this.line.removeEventListener("pointermove", goTo);
    goTo(event);
    this.line.setPointerCapture(event.pointerId);
    this.line.addEventListener("pointermove", goTo);
    for (const kind of ["pointerup", "pointercancel"]) this.line.addEventListener(kind, end, { once: true });
  }

  /** Draw the head on every frame while it moves. */
  follow() {
    if (this.audio.paused || this.broken) return;
    this.show();
    requestAnimationFrame(() => this.follow());
  }

  show() {
    const playing = !this.audio.paused && !this.broken;
    const part = `${Math.min(100, (100 * this.now) / this.seconds)}%`;
    this.box.classList.toggle("playing", playing);
    this.box.classList.toggle("begun", playing || this.now > 0);
    this.head.style.left = this.played.style.width = part;
    if (!this.broken) this.clock.textContent = `${this.now.toFixed(1)} / ${this.seconds.toFixed(1)} s`;
    this.button.setAttribute("aria-label", `${playing ? "pause" : "play"} ${this.name}`);
    if (this.line) {
      this.line.setAttribute("aria-valuemax", this.seconds.toFixed(2));
      this.line.setAttribute("aria-valuenow", this.now.toFixed(2));
      this.line.setAttribute("aria-valuetext", `${this.now.toFixed(1)} of ${this.seconds.toFixed(1)} seconds`);
    }
    if (this.onheard && this.heard) {
      const tell = this.onheard;
      this.onheard = null;
      tell();
    }
  }

  fail(error) {
    // Paused before it had begun, or a browser that wants a click first.
    if (error && ["AbortError", "NotAllowedError"].includes(error.name)) return;
    this.broken = true;
    this.clock.textContent = "cannot be played";
    this.box.classList.remove("playing");
    this.clock.title = error ? error.message : "";
    this.clock.setAttribute("role", "alert");
  }
}
