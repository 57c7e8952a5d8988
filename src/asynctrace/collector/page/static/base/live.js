// One WebSocket for the whole page. It comes back by itself, subscribes again, and tells its listeners that it was away.

const FIRST_WAIT = 200;
const LONGEST_WAIT = 2000;

export class Live {
  constructor(url) {
    this.url = url;
    this.subscriptions = new Map();
    this.watchers = new Set();
    this.state = "connecting";
    this.offset = 0;
    this.wait = FIRST_WAIT;
    this.connected = 0;
    this.connect();
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || this.hurry());
  }

  // Milliseconds since the epoch by the collector's clock, so that spans that are open tick rightly.
  now() {
    return Date.now() + this.offset;
  }

  watch(watcher) {
    this.watchers.add(watcher);
    watcher(this.state);
    return () => this.watchers.delete(watcher);
  }

  // `request()` makes the message anew each time, with the version that was reached; `again()` is called after a gap.
  subscribe(topic, request, { message, again, name = topic }) {
    this.subscriptions.set(topic, { request, message, again });
    if (this.state === "live") this.send(request());
    return () => {
      if (this.subscriptions.get(topic)?.message !== message) return;
      this.subscriptions.delete(topic);
      this.send({ unsubscribe: name });
    };
  }

  connect() {
    clearTimeout(this.timer);
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    socket.onopen = () => this.opened();
    socket.onclose = () => socket === this.socket && this.closed();
  }

  opened() {
    this.wait = FIRST_WAIT;
    this.connected += 1;
    this.become("live");
    for (const [topic, { request, again }] of this.subscriptions) {
      this.send(request());
      if (this.connected > 1 && topic !== "list") again?.();
    }
  }

  closed() {
    this.become("away");
    this.timer = setTimeout(() => this.connect(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(LONGEST_WAIT, this.wait * 1.7);
  }

  hurry() {
    if (this.state !== "away") return;
    this.wait = FIRST_WAIT;
    this.connect();
  }

  become(state) {
    this.state = state;
    for (const watcher of [...this.watchers]) watcher(state);
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  receive(message) {
    if (typeof message.now_ms === "number") this.offset = message.now_ms - Date.now();
    // The list was read before the collector listened for us: what came between is on neither.
    // A query that it did not understand is asked, too: that answer says where it is wrong.
    if (message.type === "subscribed" || message.type === "error") this.subscriptions.get(message.to ?? "list")?.again?.();
    else this.subscriptions.get(message.type)?.message(message);
  }
}

export function liveUrl() {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/live`;
}
