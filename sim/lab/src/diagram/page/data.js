"use strict";
// The run, as `sim/lab/src/diagram/model` made it, and what follows from it at once.

const run = JSON.parse(document.getElementById("data").textContent);

/** Nothing is zoomed in further than to this many microseconds. */
const SHORTEST = 2000;

/** How each kind of mark is drawn and called. `often`: many of them are drawn as a heap. */
const KINDS = {
  "push": { shape: "disc", name: "push sent", often: true },
  "ack": { shape: "ring", name: "push acknowledged", often: true },
  "duplicate": { shape: "rings", name: "acknowledged as a duplicate" },
  "failed": { shape: "cross", name: "push failed", colour: "warn" },
  "unknown": { badge: "?", name: "push failed, outcome unknown", colour: "warn" },
  "stored": { shape: "square", name: "batch stored", often: true },
  "refused": { shape: "crossed", name: "append refused", colour: "warn" },
  "delivered": { shape: "diamond", name: "received by an application", often: true },
  "received": { shape: "lozenge", name: "received on a raw stream", often: true },
  "subscribe": { shape: "wedge", name: "subscription requested" },
  "opened": { shape: "arrowhead", name: "stream opened" },
  "turned-away": { shape: "wedge", name: "stream refused", colour: "warn" },
  "ended": { shape: "bar", name: "stream or consumer ended" },
  "registered": { badge: "R", name: "broker registered" },
  "queue-added": { badge: "+Q", name: "queue created" },
  "assigned": { badge: "A", name: "queue assigned to a broker" },
  "claimed": { badge: "E", name: "epoch begins" },
  "trimmed": { badge: "T", name: "expired batches removed" },
  "tombstone": { badge: "†", name: "queue deleted" },
  "clock": { badge: "clk", name: "database's clock set", colour: "fault" },
  "rolled-back": { badge: "back", name: "database was rolled back", colour: "fault" },
  "call": { shape: "dot", name: "operator called" },
  "answer": { shape: "tick", name: "operator was answered" },
  "call-failed": { shape: "cross", name: "operator's call failed", colour: "warn" },
  "missing": { badge: "404", name: "no such channel", colour: "warn" },
  "refusal": { shape: "dot", name: "bad input refused", often: true },
  "wrong": { badge: "!", name: "unexpected answer", colour: "bad" },
  "well": { shape: "dot", name: "reports that it is healthy", often: true },
  "unwell": { badge: "ill", name: "reports that it is unhealthy", colour: "warn" },
  "fault": { shape: "down", name: "fault begins", colour: "fault" },
  "over": { shape: "up", name: "fault ends", colour: "fault" },
  "phase": { shape: "bar", name: "phase begins" },
  "converged": { badge: "✓", name: "the cluster has recovered", colour: "good" },
  "time-up": { badge: "!", name: "time limit reached", colour: "bad" },
  "audit": { badge: "=", name: "audit" },
  "note": { badge: "i", name: "note" },
};

/** What each mark's arrows are, by their index. */
const arrowsOf = run.marks.map(() => []);
run.arrows.forEach((arrow, index) => {
  arrowsOf[arrow.from].push(index);
  arrowsOf[arrow.to].push(index);
});

/** The marks that speak of each message. */
const lives = run.messages.map(() => []);
run.marks.forEach((mark, index) => (mark.messages || []).forEach((message) => lives[message].push(index)));

/** The violations that each mark shows, and all marks that show any. */
const violationsOf = new Map();
run.violations.forEach((violation, number) => violation.marks.forEach((mark) => {
  if (!violationsOf.has(mark)) violationsOf.set(mark, []);
  violationsOf.get(mark).push(number);
}));
const evidence = [...violationsOf.keys()].sort((a, b) => a - b);

/** The epochs that begin with a mark. */
const epochs = new Map(run.tenures.map((tenure) => [tenure.mark, tenure.epoch]));

/** What the finder looks at. */
const haystack = run.marks.map((mark) => {
  const messages = (mark.messages || []).map((index) => {
    const message = run.messages[index];
    return message.body + " " + (message.producer || "");
  });
  const kind = KINDS[mark.kind].name;
  return [run.lanes[mark.lane].name, kind, mark.text, ...messages].join(" ").toLowerCase();
});

/** `mm:ss.mmm`, or with fewer digits. */
function clock(micros, digits = 3) {
  const seconds = Math.max(0, micros) / 1e6;
  const minutes = Math.floor(seconds / 60);
  return String(minutes).padStart(2, "0") + ":" + (seconds - 60 * minutes).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
}

/** A time in words: how long something took. */
function lasting(micros) {
  return micros < 1e6 ? Math.round(micros / 100) / 10 + " ms" : Math.round(micros / 1e3) / 1e3 + " s";
}

/** The first mark at a time or later. */
function firstAt(micros) {
  let low = 0;
  let high = run.marks.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (run.marks[middle].at < micros) low = middle + 1;
    else high = middle;
  }
  return low;
}
