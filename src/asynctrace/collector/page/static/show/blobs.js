// Long texts in pieces: what a person reads, and what nobody does (base64) as a note of its size. Pure.

const SHORTEST = 4096; // base64 up to "a few kB" may be a token or a key that somebody wants to see
const CODED = /(?:data:([\w.+-]+\/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,)?[A-Za-z0-9+/_-]{4096,}={0,2}/g;
const PATTERNED = /^(.)\1+$/;

// [{text} | {blob, mime, bytes}]
export function pieces(text) {
  if (text.length < SHORTEST) return [{ text }];
  const found = [];
  let after = 0;
  for (const match of text.matchAll(CODED)) {
    if (PATTERNED.test(match[0].slice(0, 256))) continue; // a long line of one letter is no base64
    if (match.index > after) found.push({ text: text.slice(after, match.index) });
    const comma = match[0].startsWith("data:") ? match[0].indexOf(",") + 1 : 0;
    found.push({ blob: match[0], mime: match[1] ?? sniffed(match[0].slice(comma, comma + 16)), bytes: Math.floor(((match[0].length - comma) * 3) / 4) });
    after = match.index + match[0].length;
  }
  if (after < text.length) found.push({ text: text.slice(after) });
  return found;
}

const BEGINNINGS = { iVBOR: "image/png", "/9j/": "image/jpeg", R0lGOD: "image/gif", UklGR: "image/webp", JVBERi0: "application/pdf", UEsDB: "application/zip", T2dnUw: "audio/ogg", SUQz: "audio/mpeg" };

function sniffed(start) {
  const found = Object.keys(BEGINNINGS).find((beginning) => start.startsWith(beginning));
  return found ? BEGINNINGS[found] : "base64";
}
