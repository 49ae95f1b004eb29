// Contrast of some texts with the page's ground, as WCAG 2 counts it.
() => {
  const light = (text) => { const [r, g, b] = text.match(/[\d.]+/g).map(Number).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return ["h1", "p.lead", "section > h2 + p, .told, figcaption", "nav.contents a", "summary, .tag, .chip[aria-pressed=false]"].map((which) => document.querySelector(which)).filter(Boolean).map((one) => {
    const text = light(getComputedStyle(one).color);
    return [one.className || one.tagName, (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05)];
  });
}
