// Any number of rows of one height in a scrolling element, with as many elements as fit on the screen.
//
// `host` scrolls; inside it `sizer` has the height of all rows. Row i lies in slot i modulo the number of slots, so a row that
// stays visible keeps its element, and one frame touches only what came into view or changed.

const SPARE = 4;

export class RowPool {
  constructor({ host, sizer, height, make, fill, changed }) {
    Object.assign(this, { host, sizer, height, make, fill, changed });
    this.slots = [];
    this.shown = [];
    this.count = 0;
    this.first = 0;
    this.last = 0;
    this.frame = 0;
    this.onScroll = () => this.soon();
    host.addEventListener("scroll", this.onScroll, { passive: true });
    this.observer = new ResizeObserver(() => this.refresh());
    this.observer.observe(host);
  }

  resize(count) {
    this.count = count;
    this.sizer.style.height = `${count * this.height}px`;
  }

  soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  // Fill every visible row anew: its content changed, not only its place.
  refresh() {
    this.shown.fill(-1);
    this.soon();
  }

  now() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.shown.fill(-1);
    this.render();
  }

  render() {
    const height = this.host.clientHeight || 600;
    this.first = Math.max(0, Math.floor((this.host.scrollTop - this.top()) / this.height) - 2);
    this.last = Math.min(this.count, this.first + Math.ceil(height / this.height) + SPARE);
    const wanted = Math.min(this.count, Math.ceil(height / this.height) + SPARE);
    this.hold(wanted);
    const slots = this.slots.length;
    for (let row = this.first; row < this.first + slots; row++) {
      const slot = row % slots;
      const element = this.slots[slot];
      if (row >= this.last) {
        if (this.shown[slot] !== -2) element.hidden = true;
        this.shown[slot] = -2;
      } else if (this.shown[slot] !== row) {
        element.hidden = false;
        element.style.transform = `translateY(${row * this.height}px)`;
        this.fill(element, row);
        this.shown[slot] = row;
      }
    }
    this.changed?.();
  }

  // What stands above the rows inside the scrolling element.
  top() {
    return this.sizer.offsetTop - this.host.offsetTop > 0 && this.sizer.offsetParent === this.host ? this.sizer.offsetTop : 0;
  }

  hold(wanted) {
    if (wanted === this.slots.length) return;
    while (this.slots.length > wanted) this.slots.pop().remove();
    while (this.slots.length < wanted) {
      const element = this.make();
      this.sizer.append(element);
      this.slots.push(element);
    }
    this.shown = new Array(wanted).fill(-1);
  }

  element(row) {
    const slot = row % this.slots.length;
    return this.shown[slot] === row ? this.slots[slot] : null;
  }

  each(act) {
    for (let row = this.first; row < this.last; row++) {
      const element = this.element(row);
      if (element) act(element, row);
    }
  }

  reveal(row, margin = 1) {
    const top = row * this.height;
    const view = this.host.clientHeight;
    const above = margin * this.height;
    if (top - above < this.host.scrollTop) this.host.scrollTop = Math.max(0, top - above);
    else if (top + this.height + above > this.host.scrollTop + view) this.host.scrollTop = top + this.height + above - view;
    this.render();
  }

  center(row) {
    const top = row * this.height - this.host.scrollTop;
    if (top < 0 || top + this.height > this.host.clientHeight)
      this.host.scrollTop = row * this.height - (this.host.clientHeight - this.height) / 2;
    this.render();
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.observer.disconnect();
    this.host.removeEventListener("scroll", this.onScroll);
  }
}
