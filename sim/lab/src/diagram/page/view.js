"use strict";
// What is shown: the time, the selection, the filter. The address keeps it.

const view = {
  from: 0,
  to: run.end,
  /** A mark, or null. */
  selected: null,
  /** What the pointer is over: a mark, or null. */
  hovered: null,
  /** The message whose life is shown, or null. */
  traced: null,
  /** The violation that is looked at, or null. */
  violation: null,
  queue: null,
  find: "",
  /** Which marks the filter lets through. */
  passes: new Uint8Array(run.marks.length).fill(1),
  filtered: false,
};

/** Whoever wants to know that the view has changed. */
const watchers = [];
let changing = false;

function changed() {
  if (changing) return;
  changing = true;
  requestAnimationFrame(() => {
    changing = false;
    watchers.forEach((watcher) => watcher());
  });
}

/** The run's ends have some air. */
const margin = Math.max(run.end * 0.01, 1000);

function show(from, to) {
  const longest = run.end + 2 * margin;
  const span = Math.min(Math.max(to - from, SHORTEST), longest);
  const middle = (from + to) / 2;
  view.from = Math.min(Math.max(middle - span / 2, -margin), run.end + margin - span);
  view.to = view.from + span;
  changed();
}

const showAll = () => show(-margin, run.end + margin);
const move = (share) => show(view.from + share * (view.to - view.from), view.to + share * (view.to - view.from));

function zoom(factor, around = (view.from + view.to) / 2) {
  const span = Math.min(Math.max((view.to - view.from) * factor, SHORTEST), run.end + 2 * margin);
  const share = (around - view.from) / (view.to - view.from);
  show(around - share * span, around + (1 - share) * span);
}

/** Shows some marks and what is around them. */
function showMarks(marks) {
  if (!marks.length) return;
  const times = marks.map((mark) => run.marks[mark].at);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const air = Math.max((last - first) * 0.12, 25000);
  show(first - air, last + air);
}

function select(mark) {
  view.selected = mark;
  const at = mark === null ? null : run.marks[mark].at;
  if (at !== null && (at < view.from || at > view.to)) {
    const half = (view.to - view.from) / 2;
    show(at - half, at + half);
  }
  if (mark !== null) scrollToMarks([mark]);
  changed();
}

/** Selects the next mark that passes the filter, or the one before. */
function step(by) {
  let mark = view.selected === null ? firstAt(view.from) - (by > 0 ? 1 : 0) : view.selected;
  do mark += by; while (mark >= 0 && mark < run.marks.length && !view.passes[mark]);
  if (mark >= 0 && mark < run.marks.length) select(mark);
}

/** Selects the next mark that shows a broken promise, and zooms there. */
function nextEvidence() {
  if (!evidence.length) return;
  const next = evidence.find((mark) => view.selected === null || mark > view.selected);
  const mark = next === undefined ? evidence[0] : next;
  view.violation = violationsOf.get(mark)[0];
  goTo(mark, [mark]);
}

function showViolation(number) {
  const { marks } = run.violations[number];
  view.violation = number;
  if (marks.length) goTo(marks[marks.length - 1], marks);
  else changed();
}

/** Selects a mark and shows it among others. A filter that would hide it goes. */
function goTo(mark, among) {
  if (!view.passes[mark]) {
    Object.assign(view, { traced: null, queue: null, find: "" });
    filter();
  }
  view.selected = mark;
  scrollToMarks(among);
  showMarks(among);
}

function trace(message) {
  view.traced = message;
  filter();
  if (message !== null) showMarks(lives[message].filter((mark) => run.marks[mark].kind !== "audit"));
}

/** Applies the filter anew. */
function filter() {
  const words = view.find.toLowerCase().split(/\s+/).filter(Boolean);
  view.filtered = words.length > 0 || view.queue !== null || view.traced !== null;
  run.marks.forEach((mark, index) => {
    const passes = (view.queue === null || mark.queue === view.queue)
      && (view.traced === null || (mark.messages || []).includes(view.traced))
      && words.every((word) => haystack[index].includes(word));
    view.passes[index] = passes ? 1 : 0;
  });
  changed();
}

// ---- the address ----

/** What a link such as `#t=8.0-9.0&event=12` asks for. */
function follow(hash) {
  const wanted = new URLSearchParams(hash.replace(/^#/, ""));
  const number = (name, below) => {
    const value = Number.parseInt(wanted.get(name) ?? "", 10);
    return value >= 0 && value < below ? value : null;
  };
  if (wanted.has("find")) view.find = wanted.get("find");
  if (wanted.has("queue")) view.queue = number("queue", run.queues.length);
  const message = number("message", run.messages.length);
  if (message !== null) trace(message);
  filter();
  const violation = number("violation", run.violations.length);
  if (violation !== null) showViolation(violation);
  const event = number("event", run.marks.length);
  if (event !== null) goTo(event, [event]);
  const time = /^([\d.]+)-([\d.]+)$/.exec(wanted.get("t") ?? "");
  if (time) show(time[1] * 1e6, time[2] * 1e6);
}

let keeping = 0;

/** Writes into the address what is shown, once it has come to rest. */
function keepAddress() {
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    const parts = new URLSearchParams();
    const seconds = (micros) => (Math.max(0, micros) / 1e6).toFixed(4);
    if (view.to - view.from < run.end) parts.set("t", seconds(view.from) + "-" + seconds(view.to));
    if (view.violation !== null) parts.set("violation", view.violation);
    if (view.selected !== null) parts.set("event", view.selected);
    if (view.traced !== null) parts.set("message", view.traced);
    if (view.queue !== null) parts.set("queue", view.queue);
    if (view.find) parts.set("find", view.find);
    const text = parts.toString();
    // Some browsers forbid it for files: then the address stays as it is.
    try {
      history.replaceState(null, "", text ? "#" + text : "#");
    } catch { /* see above */ }
  }, 300);
}
