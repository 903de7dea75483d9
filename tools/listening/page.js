"use strict";
// What the address asks for is shown; keys go to what is shown.

const page = {
  design: JSON.parse(document.getElementById("data").textContent),
  modes: [],

  begin() {
    document.documentElement.classList.add("js");
    const { design } = this;
    this.modes = design.modes.filter((mode) => mode === "browse" || trialsOf(mode, design, 0).length);
    const links = this.modes.map((mode) => make("a", { href: `#${mode}` }, TITLES[mode]));
    document.getElementById("modes").append(...links);
    document.getElementById("modes").hidden = this.modes.length < 2;
    browse.begin();
    judging.begin(design, document.getElementById("test"));
    addEventListener("hashchange", () => this.show());
    document.addEventListener("keydown", (event) => this.key(event));
    this.show();
  },

  /** The mode that the address names; an anchor of a sound is a place in the first one. */
  get mode() {
    const asked = location.hash.slice(1);
    return this.modes.includes(asked) ? asked : this.modes[0];
  },

  show() {
    const { mode } = this;
    player.stop();
    for (const link of document.querySelectorAll("#modes a")) {
      if (link.hash === `#${mode}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    for (const part of document.querySelectorAll("#browse, #summary, footer")) part.hidden = mode !== "browse";
    document.body.classList.toggle("testing", mode !== "browse");
    document.getElementById("test").hidden = mode === "browse";
    if (mode === "browse") judging.place.replaceChildren();
    else if (mode) judging.open(mode);
    if (mode === "browse" && location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  },

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.defaultPrevented) return;
    const { target, key } = event;
    if (target.matches("input:not([type=checkbox]), textarea, select")) return;
    if (key === " " && target.matches("button, summary, a, input")) return; // these have a use for it themselves
    const box = document.querySelector(`main:not([hidden]) input[data-key="${CSS.escape(key.toLowerCase())}"]`);
    if (box) box.click();
    else if (!(this.mode === "browse" ? browse : judging).key(key)) return;
    event.preventDefault();
  },
};

page.begin();
