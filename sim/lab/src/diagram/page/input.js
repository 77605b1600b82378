"use strict";
// Mouse, touch and keyboard.

const tip = document.getElementById("tip");
/** Pointers that are down, with where they are. */
const pointers = new Map();
/** How far the pointer has gone since it came down: less is a click. */
let gone = 0;
const CLICK = 5;
const NEAR = 10;

/** What is at a point of the picture. */
function whatIsAt(x, y) {
  let [best, least] = [null, NEAR];
  for (const spot of picture.spots) {
    const distance = Math.hypot(spot.x - x, (spot.y - y) / (spot.heap ? 2 : 1));
    if (distance <= least) [best, least] = [spot, distance];
  }
  if (best) return best;
  return picture.boxes.findLast((box) => x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height) || null;
}

function tipOf(thing) {
  if (thing.tip) return thing.tip;
  if (thing.marks.length === 1) {
    const mark = run.marks[thing.marks[0]];
    return `${clock(mark.at)}  ${run.lanes[mark.lane].name}\n${mark.text}`;
  }
  const kinds = new Map();
  thing.marks.forEach((index) => {
    const { name } = KINDS[run.marks[index].kind];
    kinds.set(name, (kinds.get(name) || 0) + 1);
  });
  const [first, last] = [run.marks[thing.marks[0]], run.marks[thing.marks[thing.marks.length - 1]]];
  const counts = [...kinds].map(([name, count]) => `${count} × ${name}`);
  return `${run.lanes[first.lane].name}, ${clock(first.at)} – ${clock(last.at)}\n${counts.join("\n")}`;
}

function hover(thing, event) {
  const hovered = thing && thing.marks && thing.marks.length === 1 ? thing.marks[0] : null;
  canvas.classList.toggle("on", Boolean(thing));
  if (hovered !== view.hovered) {
    view.hovered = hovered;
    changed();
  }
  tip.hidden = !thing;
  if (!thing) return;
  tip.textContent = tipOf(thing);
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 6)) + "px";
  tip.style.top = (event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18) + "px";
}

function click(thing) {
  if (!thing) {
    view.violation = null;
    return select(null);
  }
  if (thing.marks && thing.marks.length > 1) {
    const times = thing.marks.map((index) => run.marks[index].at);
    const middle = (times[0] + times[times.length - 1]) / 2;
    return zoom(0.15, middle);
  }
  return select(thing.marks ? thing.marks[0] : thing.mark);
}

function listenToPointers() {
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    if (pointers.size === 1) gone = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return hover(whatIsAt(event.offsetX, event.offsetY), event);
    tip.hidden = true;
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    const [dx, dy] = [event.offsetX - before.x, event.offsetY - before.y];
    gone += Math.hypot(dx, dy);
    if (gone > CLICK) canvas.classList.add("moving");
    if (others.length) {
      const [width, now] = [Math.abs(before.x - others[0].x), Math.abs(event.offsetX - others[0].x)];
      const middle = (event.offsetX + others[0].x) / 2;
      if (width > 8 && now > 8) zoom(width / now, timeAt(middle));
      move(-dx / 2 / (picture.width - GUTTER));
    } else if (gone > CLICK) {
      move(-dx / (picture.width - GUTTER));
      scroller.scrollTop -= dy;
      // The picture has moved under the pointer.
      pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY - dy });
      return undefined;
    }
    pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    return undefined;
  });
  const up = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    canvas.classList.remove("moving");
    if (event.type === "pointerup" && gone <= CLICK) click(whatIsAt(event.offsetX, event.offsetY));
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", (event) => hover(null, event));
  canvas.addEventListener("dblclick", (event) => zoom(0.4, timeAt(event.offsetX)));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      move((event.deltaX || event.deltaY) / (picture.width - GUTTER));
    } else {
      zoom(Math.exp(event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), timeAt(event.offsetX));
    }
  }, { passive: false });
  const jump = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    if (event.type === "pointerdown") overview.setPointerCapture(event.pointerId);
    const at = ((event.offsetX - GUTTER) / (picture.width - GUTTER - 8)) * run.end;
    const half = (view.to - view.from) / 2;
    show(at - half, at + half);
  };
  overview.addEventListener("pointerdown", jump);
  overview.addEventListener("pointermove", jump);
}

/** What each key does in the picture and in the list. */
const KEYS = {
  "ArrowLeft": () => move(-0.15),
  "ArrowRight": () => move(0.15),
  "PageUp": () => move(-0.9),
  "PageDown": () => move(0.9),
  "+": () => zoom(0.6, around()),
  "=": () => zoom(0.6, around()),
  "-": () => zoom(1 / 0.6, around()),
  "0": showAll,
  "Home": showAll,
  "ArrowUp": () => step(-1),
  "ArrowDown": () => step(1),
  "v": nextEvidence,
  "Enter": () => {
    const [message] = view.selected === null ? [] : run.marks[view.selected].messages || [];
    if (message !== undefined) trace(message);
  },
};

/** One zooms around what is selected, if that is to be seen. */
function around() {
  const at = view.selected === null ? NaN : run.marks[view.selected].at;
  return at >= view.from && at <= view.to ? at : undefined;
}

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select");
    if (event.key === "Escape") return letGo();
    if (typing) return;
    if (event.key === "/") {
      event.preventDefault();
      return document.getElementById("find").focus();
    }
    const inPicture = event.target === document.body || event.target.closest("#scroller, #events");
    const key = inPicture ? KEYS[event.key] : event.key === "v" ? nextEvidence : undefined;
    if (!key) return;
    event.preventDefault();
    key();
  });
}

/** Nothing is selected, traced or filtered any more. */
function letGo() {
  Object.assign(view, { selected: null, violation: null, traced: null, queue: null, find: "" });
  tip.hidden = true;
  filter();
}
