"use strict";
// The picture: lanes from top to bottom, time to the right.

/** The hosts' names are on the left. */
const GUTTER = 104;
const AIR = 3;
const FAULT_ROW = 13;
const MARKS = 22;
const TENURE_ROW = 14;
const STRETCH_ROW = 12;
/** Marks that are closer together than this are drawn as a heap, unless they are few and little time is shown. */
const HEAP = 6;
const FEW = 3;
const LITTLE = 2.5e6;
/** Rare marks are larger. */
const WIDE = 15;
/** A delivery that took longer came out of the store: its arrow would cross everything, and is drawn when asked for. */
const LATE = 1e6;
/** With more broken promises than this, none is to drown all else. */
const CROWD = 12;
/** With more arrows than one in so many pixels, those that are alike are drawn as one. */
const SPARSE = 3;

const scroller = document.getElementById("scroller");
const canvas = document.getElementById("lanes");

/** Where each lane's parts are, from the top. */
const places = [];

function place() {
  const rows = (bands, lane, filling = () => false) =>
    Math.max(0, ...bands.filter((band) => band.lane === lane && !filling(band)).map((band) => band.row + 1));
  let top = 0;
  run.lanes.forEach((_, lane) => {
    const faults = top + AIR;
    const marks = faults + FAULT_ROW * rows(run.faults, lane, fills);
    const tenures = marks + MARKS;
    const stretches = tenures + TENURE_ROW * rows(run.tenures, lane);
    const bottom = stretches + STRETCH_ROW * rows(run.stretches, lane) + AIR;
    places.push({ top, faults, marks, y: marks + MARKS / 2, tenures, stretches, bottom });
    top = bottom;
  });
}

/** Some faults leave nothing of their lane. */
const fills = (fault) => fault.kind === "down" || fault.kind === "frozen";

const picture = { width: 0, height: 0, /** Marks and heaps, where they are. */ spots: [], /** Bands, likewise. */ boxes: [] };

const xOf = (at) => GUTTER + ((at - view.from) / (view.to - view.from)) * (picture.width - GUTTER);
const timeAt = (x) => view.from + ((x - GUTTER) / (picture.width - GUTTER)) * (view.to - view.from);

/** The marks that are to stand out: the selected or the traced message's life. */
function bright() {
  const marks = new Set();
  for (const mark of [view.selected, view.hovered]) {
    if (mark === null) continue;
    marks.add(mark);
    const messages = run.marks[mark].messages || [];
    if (messages.length <= 5) messages.forEach((message) => lives[message].forEach((other) => marks.add(other)));
    arrowsOf[mark].forEach((arrow) => marks.add(run.arrows[arrow].from).add(run.arrows[arrow].to));
  }
  if (view.traced !== null) lives[view.traced].forEach((mark) => marks.add(mark));
  return marks;
}

/** Scrolls to the lanes of some marks; if they do not fit, to that of the last. */
function scrollToMarks(marks) {
  const [top, bottom] = [scroller.scrollTop, scroller.scrollTop + scroller.clientHeight];
  const all = marks.map((mark) => places[run.marks[mark].lane]);
  const [first, last] = [Math.min(...all.map((place) => place.top)), Math.max(...all.map((place) => place.bottom))];
  const fit = last - first <= bottom - top;
  const from = fit ? first : all[all.length - 1].top;
  const to = fit ? last : all[all.length - 1].bottom;
  if (from < top) scroller.scrollTop = from;
  else if (to > bottom) scroller.scrollTop = to + AIR - scroller.clientHeight;
}

function paintLanes() {
  picture.width = scroller.clientWidth;
  picture.height = places[places.length - 1].bottom;
  canvas.style.height = picture.height + "px";
  const pen = prepare(canvas, picture.width, picture.height);
  picture.spots = [];
  picture.boxes = [];
  const shining = bright();
  paintGround(pen);
  paintBands(pen);
  paintGuides(pen);
  paintArrows(pen, shining);
  paintMarks(pen, shining);
  paintEvidence(pen);
  paintNames(pen);
}

function paintGround(pen) {
  run.phases.forEach((phase, index) => {
    const next = run.phases[index + 1];
    const [from, to] = [xOf(phase.from), next ? xOf(next.from) : picture.width];
    pen.fillStyle = colours.phase;
    if (index % 2 === 0) pen.fillRect(from, 0, to - from, picture.height);
  });
  run.lanes.forEach((lane, index) => {
    const { top, y } = places[index];
    const group = index > 0 && run.lanes[index - 1].sort !== lane.sort;
    pen.fillStyle = colours.line;
    pen.globalAlpha = group ? 1 : 0.5;
    pen.fillRect(0, top, picture.width, group ? 1.5 : 1);
    pen.globalAlpha = 1;
    pen.fillRect(GUTTER, y, picture.width, 1);
  });
}

/** The part of a band that is to be seen; null if there is none. A band is never too thin to see. */
function seen(from, to) {
  const [x, end] = [Math.max(xOf(from), GUTTER), Math.min(xOf(to), picture.width)];
  if (xOf(to) < GUTTER || xOf(from) > picture.width) return null;
  return { x, width: Math.max(end - x, 2) };
}

function paintBands(pen) {
  const looks = {};
  for (const fault of [...run.faults.filter(fills), ...run.faults.filter((fault) => !fills(fault))]) {
    const part = seen(fault.from, fault.to);
    if (!part) continue;
    const place = places[fault.lane];
    const look = (looks[fault.kind] ||= ground(pen, fault.kind));
    const [y, height] = fills(fault) ? [place.top + 1, place.bottom - place.top - 1] : [place.faults + FAULT_ROW * fault.row, FAULT_ROW - 1];
    pen.fillStyle = look.paper;
    pen.fillRect(part.x, y, part.width, height);
    pen.fillStyle = look.ink;
    pen.fillRect(part.x, y, 2, height);
    if (!fills(fault)) pen.fillRect(part.x, y + height - 1, part.width, 1);
    if (!fills(fault)) band(pen, fault.text, part, y, look.ink, look.plain);
    box(part, y, height, fault, fault.text);
  }
  for (const fault of run.faults.filter(fills)) paintFilling(pen, fault, looks[fault.kind]);
  for (const tenure of run.tenures) {
    const part = seen(tenure.from, tenure.to);
    if (!part) continue;
    const y = places[tenure.lane].tenures + TENURE_ROW * tenure.row;
    const [alive, colour] = [Math.min(Math.max(xOf(tenure.alive), part.x), part.x + part.width), queueColour(tenure.queue)];
    pen.fillStyle = colours.ground;
    pen.fillRect(part.x, y, part.width, TENURE_ROW - 2);
    pen.globalAlpha = 0.3;
    pen.fillStyle = colour;
    pen.fillRect(part.x, y, alive - part.x, TENURE_ROW - 2);
    pen.globalAlpha = 1;
    pen.fillRect(part.x, y, 3, TENURE_ROW - 2);
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.setLineDash(tenure.alive < tenure.to ? [3, 3] : []);
    pen.strokeRect(part.x + 0.5, y + 0.5, part.width - 1, TENURE_ROW - 3);
    pen.setLineDash([]);
    const text = `${run.queues[tenure.queue]} · epoch ${tenure.epoch}`;
    band(pen, text, part, y + 1, colours.ink);
    const orphaned = tenure.alive < tenure.to ? `\nits process ended after ${lasting(tenure.alive - tenure.from)}; no other broker took over until then` : "";
    box(part, y, TENURE_ROW - 2, tenure, text + orphaned);
  }
  for (const stretch of run.stretches) {
    const part = seen(stretch.from, stretch.to);
    if (!part) continue;
    const y = places[stretch.lane].stretches + STRETCH_ROW * stretch.row;
    const colour = queueColour(stretch.queue);
    pen.fillStyle = colour;
    pen.fillRect(part.x, y + STRETCH_ROW - 2, part.width, 1.5);
    pen.fillRect(part.x, y + STRETCH_ROW - 5, 1.5, 4);
    pen.fillRect(part.x + part.width - 1.5, y + STRETCH_ROW - 5, 1.5, 4);
    band(pen, stretch.text, part, y - 2, colours.faint);
    box(part, y, STRETCH_ROW, stretch, stretch.text);
  }
}

/** What a fault says that fills its lane: up to where the next one says something. */
function paintFilling(pen, fault, look) {
  const part = seen(fault.from, fault.to);
  if (!part) return;
  const next = run.faults.find((other) => fills(other) && other.lane === fault.lane && other.from > fault.from);
  const width = next ? Math.min(part.width, xOf(next.from) - part.x) : part.width;
  band(pen, fault.text, { x: part.x, width }, places[fault.lane].y - 6, look.ink, look.plain);
}

/** What a band says; on a pattern it needs a plain ground. */
function band(pen, text, part, y, colour, plain) {
  pen.font = LETTERS;
  pen.textBaseline = "top";
  const room = part.width - 8;
  if (plain && room >= 14) {
    pen.fillStyle = plain;
    pen.fillRect(part.x + 2, y, Math.min(pen.measureText(text).width + 6, room), 11);
  }
  pen.fillStyle = colour;
  fitted(pen, text, part.x + 5, y + 1, room);
}

function box(part, y, height, { from, to, mark, lane }, text) {
  const tip = `${run.lanes[lane].name}: ${text}\n${clock(from)} – ${clock(to)}, ${lasting(to - from)}`;
  picture.boxes.push({ x: part.x, y, width: part.width, height, mark, tip });
}

/** Where promises were seen to be broken, and where the selected mark is. */
function paintGuides(pen) {
  pen.setLineDash([5, 3]);
  pen.lineWidth = 1.5;
  pen.strokeStyle = colours.bad;
  const moments = new Set();
  for (const { marks } of run.violations) {
    const x = marks.length ? Math.round(xOf(run.marks[marks[marks.length - 1]].at)) : -1;
    if (x >= GUTTER && x <= picture.width) moments.add(x);
  }
  pen.globalAlpha = moments.size > CROWD ? 0.15 : 1;
  for (const x of moments) lines(pen, [x, 0, x, picture.height]);
  pen.globalAlpha = 1;
  pen.setLineDash([]);
  if (view.selected === null) return;
  const x = xOf(run.marks[view.selected].at);
  pen.strokeStyle = colours.link;
  pen.lineWidth = 1;
  lines(pen, [x, 0, x, picture.height]);
}

function paintNames(pen) {
  pen.fillStyle = colours.ground;
  pen.fillRect(0, 0, GUTTER - 1, picture.height);
  run.lanes.forEach((lane, index) => {
    const { top, y } = places[index];
    const group = index > 0 && run.lanes[index - 1].sort !== lane.sort;
    pen.fillStyle = colours.line;
    pen.fillRect(0, top, GUTTER, group ? 1.5 : 0.5);
    pen.font = "600 12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.fillStyle = colours.ink;
    fitted(pen, lane.name, 12, y, GUTTER - 16);
  });
  pen.fillStyle = colours.line;
  pen.fillRect(GUTTER - 1, 0, 1, picture.height);
}
