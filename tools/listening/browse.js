"use strict";
// All sounds side by side, named: the figures of the page get buttons and heads; without scripts they play by themselves.

const browse = {
  tracks: [],

  begin() {
    for (const figure of document.querySelectorAll("figure.sound")) {
      const audio = figure.querySelector("audio");
      audio.removeAttribute("controls");
      const { name, seconds } = figure.dataset;
      const track = new Track({ audio, box: figure, name, seconds: Number(seconds) });
      figure.querySelector(".top").prepend(track.button);
      figure.querySelector(".top").append(track.clock);
      track.along(figure.querySelector(".timeline"));
      this.tracks.push(track);
    }
    const box = document.getElementById("switches");
    box.append(...switches(), keysHint([["space"], "plays"], [["←", "→"], "the sound before, the next"]));
    box.hidden = !this.tracks.length;
  },

  /** Play the sound before or after the one that was played last. */
  move(step) {
    const at = this.tracks.indexOf(player.current);
    const track = this.tracks[at < 0 ? 0 : Math.max(0, Math.min(this.tracks.length - 1, at + step))];
    if (!track) return;
    player.play(track);
    track.button.focus({ preventScroll: true });
    track.box.scrollIntoView({ block: "nearest" });
  },

  key(name) {
    if (name === " ") player.toggle(player.current || this.tracks[0]);
    else if (name === "ArrowLeft") this.move(-1);
    else if (name === "ArrowRight") this.move(1);
    else return false;
    return true;
  },
};

/** Boxes to tick: how a sound ends and, where there are several, how the next one begins. */
function switches(several = true) {
  const box = (title, key, on, set) => {
    const input = make("input", { type: "checkbox", "data-key": key, "aria-keyshortcuts": key, change: () => set(input.checked) });
    input.checked = on;
    return make("label", {}, input, make("span", {}, title, " ", make("kbd", { class: "keys" }, key.toUpperCase())));
  };
  const repeat = box("repeat", "l", player.loop, (on) => player.setLoop(on));
  if (!several) return [repeat];
  const title = "go on at the same place in the next sound";
  return [repeat, box(title, "k", player.samePlace, (on) => (player.samePlace = on))];
}

/** What keys do: [[keys], meaning] one after the other. */
function keysHint(...hints) {
  const parts = hints.flatMap(([keys, meaning], place) => [
    ...(place ? [" · "] : []),
    ...keys.flatMap((key) => [make("kbd", {}, key), " "]),
    meaning,
  ]);
  return make("span", { class: "hint keys" }, ...parts);
}
