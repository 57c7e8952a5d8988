// What changed between two texts, by words. Pure.

const MOST = 4000; // words of each side; longer texts are compared by lines

export function wordDiff(before, after) {
  let [a, b] = [split(before), split(after)];
  if (a.length > MOST || b.length > MOST) [a, b] = [before.split(/(?<=\n)/), after.split(/(?<=\n)/)];
  if (a.length > MOST || b.length > MOST) return [{ kind: "gone", text: before }, { kind: "new", text: after }];
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const middle = shortest(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  return joined([...a.slice(0, head).map(same), ...middle, ...a.slice(a.length - tail).map(same)]);
}

const split = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
const same = (text) => ({ kind: "same", text });

// Myers' greedy algorithm (1986), with the trace of its furthest points to walk back on.
function shortest(a, b) {
  const most = a.length + b.length;
  if (!most) return [];
  const furthest = new Map([[1, 0]]);
  const steps = [];
  for (let edits = 0; edits <= most; edits++) {
    if (edits > 1200) return [...a.map((text) => ({ kind: "gone", text })), ...b.map((text) => ({ kind: "new", text }))];
    steps.push(new Map(furthest));
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
      let x = down ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      furthest.set(k, x);
      if (x >= a.length && x - k >= b.length) return back(steps, a, b, edits);
    }
  }
  return [];
}

function back(steps, a, b, edits) {
  const found = [];
  let [x, y] = [a.length, b.length];
  for (let d = edits; d >= 0; d--) {
    const furthest = steps[d];
    const k = x - y;
    const down = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
    const from = down ? k + 1 : k - 1;
    const px = d ? furthest.get(from) : 0;
    const py = d ? px - from : 0;
    while (x > px && y > py && (d || x > 0)) {
      found.push(same(a[--x]));
      y--;
    }
    if (!d) break;
    if (down) found.push({ kind: "new", text: b[--y] });
    else found.push({ kind: "gone", text: a[--x] });
  }
  return found.reverse();
}

function joined(parts) {
  const found = [];
  for (const part of parts) {
    const last = found.at(-1);
    if (last?.kind === part.kind) last.text += part.text;
    else found.push({ ...part });
  }
  return found;
}
