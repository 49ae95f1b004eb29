"use strict";
(() => {
  // Any picture opens larger; Escape and a click beside it close, as <dialog> does by itself or as below.
  const box = document.getElementById("lightbox");
  document.addEventListener("click", (event) => {
    const thumb = event.target.closest("button.thumb");
    if (!thumb) return;
    const image = thumb.querySelector("img");
    box.querySelector("img").src = image.src;
    box.querySelector("img").alt = image.alt;
    box.querySelector("figcaption").textContent = thumb.dataset.caption || image.alt;
    box.showModal();
  });
  document.getElementById("lightbox-close").addEventListener("click", () => box.close());
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });

  // One of a group of buttons is pressed at a time.
  const press = (button) => {
    for (const other of button.parentElement.querySelectorAll("button.chip")) other.setAttribute("aria-pressed", other === button);
  };

  // Arms: one panel is shown.
  for (const group of document.querySelectorAll("[data-panels]")) {
    const panels = [...group.querySelectorAll("button.chip")].map((chip) => document.getElementById(chip.getAttribute("aria-controls")));
    const show = (button) => {
      press(button);
      for (const panel of panels) panel.hidden = panel.id !== button.getAttribute("aria-controls");
    };
    for (const button of group.querySelectorAll("button.chip")) button.addEventListener("click", () => show(button));
    const first = group.querySelector("[aria-pressed=true]");
    if (first) show(first);
  }

  // Classes: by what happened to them, by name, the first few until all are asked for.
  const classes = document.getElementById("class-list");
  if (!classes) return;
  const cards = [...classes.children], first = Number(classes.dataset.first);
  const search = document.getElementById("class-search"), more = document.getElementById("class-more");
  const told = document.getElementById("class-count"), chips = [...document.querySelectorAll("[data-class-filter]")];
  let kind = "all", whole = false;
  const draw = () => {
    const words = search.value.trim().toLowerCase();
    const found = cards.filter((card) => (kind === "all" || card.dataset.change === kind) && card.dataset.name.toLowerCase().includes(words));
    const shown = whole ? found : found.slice(0, first);
    for (const card of cards) card.hidden = !shown.includes(card);
    more.hidden = shown.length === found.length;
    more.textContent = `Show all ${found.length} classes`;
    told.textContent = found.length === 0 ? "No class fits." : `${shown.length} of ${found.length} classes`;
  };
  for (const chip of chips) chip.addEventListener("click", () => { press(chip); kind = chip.dataset.classFilter; whole = false; draw(); });
  search.addEventListener("input", () => { whole = false; draw(); });
  more.addEventListener("click", () => { whole = true; const next = cards.find((card) => card.hidden); draw(); (next?.querySelector("button") || told).focus?.(); });
  document.getElementById("class-controls").hidden = false;
  draw();
})();
