// A trace that lies in the page itself: what an exported file shows. Answers like `LiveTrace`, without a network.

export class EmbeddedTrace {
  constructor({ skeleton, spans, critical }) {
    this.whole = skeleton;
    this.spans = spans;
    this.path = critical?.path ?? [];
    this.byId = new Map(spans.map((span, index) => [span?.span_id, index]));
  }

  async skeleton() {
    return this.whole;
  }

  async span(key) {
    const index = key.startsWith("@") ? Number(key.slice(1)) : (this.byId.get(key) ?? -1);
    const span = this.spans[index];
    if (!span) throw Object.assign(new Error("this span is not in the file"), { status: 404 });
    return { ...span, index };
  }

  // Words that all have to be somewhere in the span; `status:error`, `name:x` and `type:x` as in the collector; `-` excludes.
  async find(query) {
    const terms = [...query.matchAll(/(-?)(?:(name|type|status|service|ending):)?(?:"([^"]*)"|(\S+))/g)].map(([, minus, key, quoted, word]) => ({ isNot: minus === "-", key, word: (quoted ?? word ?? "").toLowerCase().replace(/^\*|\*$/g, "") }));
    this.texts ??= this.spans.map((span) => JSON.stringify(span ?? "").toLowerCase());
    const matches = [];
    for (let index = 0; index < this.spans.length; index++) if (terms.every((term) => this.holds(term, index) !== term.isNot)) matches.push(index);
    return { matches, scanned: this.spans.length };
  }

  holds({ key, word }, index) {
    if (!key) return this.texts[index].includes(word);
    const span = this.spans[index] ?? {};
    if (key === "status") return span.status === word;
    return String(span[key] ?? "").toLowerCase().includes(word);
  }

  async criticalPath() {
    return { path: this.path };
  }
}
