// What a person sees as broken: something wider than the window, text over text, a picture that does not show.
() => {
  const faults = [], width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) faults.push(`the page is ${document.documentElement.scrollWidth} wide`);
  const clipped = (one) => one.closest(".scroll, pre, .long, dialog, .skip, svg");
  const seen = (one) => one.checkVisibility({ visibilityProperty: true }) && one.getClientRects().length > 0;
  const words = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.textContent.trim() || ["SCRIPT", "STYLE", "TITLE", "NOSCRIPT"].includes(parent.tagName.toUpperCase()) || !seen(parent)) continue;
    if (parent.closest("details:not([open]) > :not(summary), .skip")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1 && box.height > 1) words.push([box, node.textContent.trim().slice(0, 40), parent]);
  }
  for (const [box, text, parent] of words)
    if (!clipped(parent) && (box.left < -1 || box.right > width + 1)) faults.push(`outside the window: ${text}`);
  words.sort((a, b) => a[0].top - b[0].top);
  for (let i = 0; i < words.length; i++)
    for (let j = i + 1; j < words.length && words[j][0].top < words[i][0].bottom - 2; j++) {
      const [a, b] = [words[i][0], words[j][0]];
      if (clipped(words[i][2]) !== clipped(words[j][2])) continue;
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
        faults.push(`overlap: “${words[i][1]}” and “${words[j][1]}”`);
    }
  for (const image of document.images) {
    if (!seen(image) || image.closest("dialog")) continue;
    if (!image.complete || image.naturalWidth === 0) faults.push(`a picture does not show: ${image.alt}`);
    if (!image.alt) faults.push(`a picture without an alternative text: ${image.outerHTML.slice(0, 80)}`);
  }
  const small = [...document.querySelectorAll("main *")].filter((one) => seen(one) && one.childNodes.length && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) && !one.closest("svg") && parseFloat(getComputedStyle(one).fontSize) < 12);
  for (const one of small) faults.push(`too small: ${one.textContent.trim().slice(0, 40)}`);
  return faults;
}
