// The colors of the style sheet for what is drawn on a canvas, which knows no variables.

export function colors(...names) {
  const probe = document.createElement("i");
  probe.hidden = true;
  document.body.append(probe);
  const found = names.map((name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  });
  probe.remove();
  return found;
}
