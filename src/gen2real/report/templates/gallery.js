"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byRow = new Map(data.rows.map((one) => [String(one.row), one]));
  for (const image of document.querySelectorAll("img[data-row]")) {
    const found = byRow.get(image.dataset.row);
    if (found) image.src = found.uri;
    else image.closest("button").replaceWith(Object.assign(document.createElement("div"), { className: "absent", textContent: "not shown" }));
  }

  const list = document.getElementById("extreme-list"), all = document.getElementById("extreme-more");
  const classes = [...list.children], first = Number(list.dataset.first);
  classes.forEach((one, place) => { one.hidden = place >= first; });
  all.hidden = classes.length <= first;
  all.textContent = `Show all ${classes.length} classes`;
  all.addEventListener("click", () => { for (const one of classes) one.hidden = false; all.hidden = true; classes[first].querySelector("button")?.focus(); });

  const grid = document.getElementById("grid"), more = document.getElementById("grid-more");
  const count = document.getElementById("count"), clear = document.getElementById("clear");
  const chips = [...document.querySelectorAll("[data-filter]")], bars = [...document.querySelectorAll("[data-score]")];
  const page = 60;
  let wanted = { kept: "", rule: "", class: "", order: "" }, range = null, shown = page;

  const fits = (one) =>
    (wanted.kept === "" || one.kept === (wanted.kept === "kept")) &&
    (wanted.rule === "" || one.rules.includes(wanted.rule)) &&
    (wanted.class === "" || one.class === Number(wanted.class)) &&
    (range === null || (one.scores[range.score] !== null && one.scores[range.score] >= range.low - 5e-6 &&
      (one.scores[range.score] < range.high - 5e-6 || (range.last && one.scores[range.score] <= range.high + 5e-6))));
  const ordered = (rows) => {
    if (wanted.order === "") return rows;
    const score = Math.abs(Number(wanted.order)) - 1, sign = Number(wanted.order) > 0 ? -1 : 1;
    const known = rows.filter((one) => one.scores[score] !== null);
    return known.sort((a, b) => sign * (a.scores[score] - b.scores[score]) || a.row - b.row);
  };
  const element = (tag, name, text) => Object.assign(document.createElement(tag), { className: name, textContent: text || "" });
  const card = (one) => {
    const box = element("div", one.kept ? "shot" : "shot dropped"), button = element("button", "thumb"), image = new Image();
    const name = data.classes[one.class], scores = data.scores.map((score, place) => one.scores[place] === null ? null : `${score.replaceAll("_", " ")} ${one.scores[place].toFixed(3)}`).filter(Boolean);
    button.type = "button";
    image.src = one.uri; image.alt = `${name}, ${one.id}`; image.width = image.height = 128;
    button.setAttribute("aria-label", `Enlarge: ${image.alt}`);
    button.dataset.caption = [one.id, name, one.text, ...scores, one.kept ? "kept" : `dropped: ${one.reason}`].filter(Boolean).join(" · ");
    button.append(image);
    box.dataset.id = one.id;
    box.append(button, element("p", "told name", name));
    if (scores.length) box.append(element("p", "told", scores[wanted.order === "" ? 0 : Math.abs(Number(wanted.order)) - 1] || scores[0]));
    if (!one.kept) box.append(element("p", "told", `dropped: ${one.reason}`));
    return box;
  };
  const draw = () => {
    const found = ordered(data.rows.filter(fits));
    grid.replaceChildren(...found.slice(0, shown).map(card));
    more.hidden = found.length <= shown;
    const filtered = wanted.kept + wanted.rule + wanted.class !== "" || range !== null;
    clear.hidden = !filtered;
    const where = range === null ? "" : `, ${data.scores[range.score].replaceAll("_", " ")} from ${range.low.toPrecision(3)} to ${range.high.toPrecision(3)}`;
    count.textContent = `${Math.min(shown, found.length)} of ${found.length} ${found.length === 1 ? "picture" : "pictures"}${where}`;
  };
  const press = () => {
    for (const chip of chips) chip.setAttribute("aria-pressed", wanted[chip.dataset.filter] === chip.dataset.value);
    for (const bar of bars) bar.setAttribute("aria-pressed", range !== null && range.bar === bar);
    shown = page;
    draw();
  };
  for (const chip of chips) chip.addEventListener("click", () => { wanted[chip.dataset.filter] = chip.dataset.value; press(); });
  for (const bar of bars) bar.addEventListener("click", () => {
    range = range !== null && range.bar === bar ? null : { bar, score: Number(bar.dataset.score), low: Number(bar.dataset.low), high: Number(bar.dataset.high), last: "last" in bar.dataset };
    press();
  });
  clear.addEventListener("click", () => { wanted = { ...wanted, kept: "", rule: "", class: "" }; range = null; press(); chips[0].focus(); });
  more.addEventListener("click", () => { const next = shown; shown += page; draw(); grid.children[next]?.querySelector("button").focus(); });
  draw();
})();
