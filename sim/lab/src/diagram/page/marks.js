"use strict";
// Arrows, marks, and what shows a broken promise.

/** With more evidence than this, it is underlined. */
const MANY_RINGS = 60;
/** The records of a violation that is looked at say what they are, if there are no more of them. */
const FEW_WORDS = 6;

function paintArrows(pen, shining) {
  const dull = [];
  const shiny = [];
  for (const arrow of run.arrows) {
    const [from, to] = [run.marks[arrow.from], run.marks[arrow.to]];
    if (to.at < view.from || from.at > view.to) continue;
    if (shining.has(arrow.from) && shining.has(arrow.to)) shiny.push(arrow);
    else if (view.passes[arrow.from] && view.passes[arrow.to]
      && !(arrow.kind === "delivery" && to.at - from.at > LATE)) dull.push(arrow);
  }
  const many = dull.length > (picture.width - GUTTER) / SPARSE;
  const bundles = new Map();
  const bundle = (HEAP * (view.to - view.from)) / (picture.width - GUTTER);
  for (const arrow of dull) {
    const [from, to] = [run.marks[arrow.from], run.marks[arrow.to]];
    if (!many || to.at - from.at > 2 * bundle) {
      const opacity = many ? 0.18 : arrow.kind === "outcome" ? 0.35 : 0.5;
      paintArrow(pen, arrow, { opacity, head: dull.length < 200, width: 1 });
      continue;
    }
    if (arrow.kind === "outcome") continue;
    const key = [Math.floor(to.at / bundle), from.lane, arrow.via, to.lane, to.queue].join();
    const alike = bundles.get(key);
    if (alike) alike.count += 1;
    else bundles.set(key, { arrow, at: (Math.floor(to.at / bundle) + 0.5) * bundle, count: 1 });
  }
  for (const { arrow, at, count } of bundles.values()) {
    paintArrow(pen, arrow, { opacity: Math.min(0.08 + 0.03 * count, 0.4), width: 1, at });
  }
  for (const arrow of shiny) paintArrow(pen, arrow, { opacity: 1, head: true, width: 2 });
}

/** Draws an arrow, or what stands for a bundle of them, at one time. */
function paintArrow(pen, arrow, { opacity, head, width, at }) {
  const [from, to] = [run.marks[arrow.from], run.marks[arrow.to]];
  const unfounded = arrow.kind === "unfounded";
  const [x, y] = [xOf(at ?? from.at), places[from.lane].y];
  const [toX, toY] = [xOf(at ?? to.at), places[to.lane].y];
  const failed = arrow.kind === "outcome" && KINDS[to.kind].colour;
  pen.globalAlpha = opacity;
  pen.strokeStyle = pen.fillStyle = unfounded ? colours.bad : failed ? colours.warn : queueColour(to.queue ?? from.queue);
  pen.lineWidth = arrow.kind === "outcome" ? 3 : width;
  pen.setLineDash(unfounded ? [4, 3] : []);
  const points = [[x, y]];
  if (arrow.via !== undefined) points.push([(x + toX) / 2, places[arrow.via].y]);
  points.push([toX, toY]);
  pen.beginPath();
  points.forEach(([px, py]) => pen.lineTo(px, py));
  pen.stroke();
  pen.setLineDash([]);
  if (arrow.via !== undefined && at === undefined) pen.fillRect(points[1][0] - 1.5, points[1][1] - 1.5, 3, 3);
  if (head && arrow.kind !== "outcome") {
    const [beforeX, beforeY] = points[points.length - 2];
    const angle = Math.atan2(toY - beforeY, toX - beforeX);
    const tip = [toX - 5 * Math.cos(angle), toY - 5 * Math.sin(angle)];
    const wing = (turn) => [tip[0] - 6 * Math.cos(angle + turn), tip[1] - 6 * Math.sin(angle + turn)];
    path(pen, ...tip, ...wing(0.45), ...wing(-0.45));
    pen.fill();
  }
  pen.globalAlpha = 1;
}

function paintMarks(pen, shining) {
  const pixel = (view.to - view.from) / (picture.width - GUTTER);
  const [often, rare, faded] = [new Map(), new Map(), new Map()];
  const put = (heaps, size, index, mark) => {
    const key = mark.lane + ":" + Math.floor(mark.at / (size * pixel));
    if (heaps.has(key)) heaps.get(key).push(index);
    else heaps.set(key, [index]);
  };
  for (let index = firstAt(view.from - 20 * pixel); index < run.marks.length; index += 1) {
    const mark = run.marks[index];
    if (mark.at > view.to + 20 * pixel) break;
    if (!view.passes[index] && !shining.has(index)) put(faded, HEAP, index, mark);
    else if (KINDS[mark.kind].often) put(often, HEAP, index, mark);
    else put(rare, WIDE, index, mark);
  }
  pen.globalAlpha = 0.35;
  for (const [index] of faded.values()) glyph(pen, "well", colours.faint, xOf(run.marks[index].at), places[run.marks[index].lane].y, 3);
  pen.globalAlpha = 1;
  for (const marks of often.values()) {
    const alone = marks.length === 1 || (marks.length <= FEW && view.to - view.from < LITTLE);
    if (alone) paintFan(pen, marks, 7);
    else paintHeap(pen, marks);
  }
  for (const marks of rare.values()) paintFan(pen, marks, marks.length > 2 ? 9 : 12);
  for (const index of shining) {
    if (!KINDS[run.marks[index].kind].often || index === view.selected) continue;
    paintFan(pen, [index], 0);
  }
  if (view.selected !== null) halo(pen, view.selected, colours.link, 9);
  if (view.hovered !== null) halo(pen, view.hovered, colours.ink, 8);
}

/** Marks at nearly the same time, one below the other. */
function paintFan(pen, marks, apart) {
  const shown = marks.slice(0, FEW);
  shown.forEach((index, number) => {
    const mark = run.marks[index];
    const x = xOf(mark.at);
    const y = places[mark.lane].y + (number - (shown.length - 1) / 2) * apart;
    const { with: other } = mark;
    if (other !== undefined && !KINDS[mark.kind].often) {
      pen.strokeStyle = pen.fillStyle = markColour(mark);
      // Who is asked after their health is no cause of anything.
      if (mark.kind !== "unwell") {
        pen.globalAlpha = 0.6;
        pen.lineWidth = 1;
        pen.setLineDash([2, 2]);
        lines(pen, [x, y, x, places[other].y]);
        pen.setLineDash([]);
        pen.globalAlpha = 1;
      }
      pen.beginPath();
      pen.arc(x, places[other].y, 2.5, 0, 7);
      pen.fill();
    }
    const text = epochs.has(index) ? "E" + epochs.get(index) : undefined;
    glyph(pen, mark.kind, markColour(mark), x, y, shown.length > 1 ? 3.5 : 4.5, text);
    picture.spots.push({ x, y, marks: [index] });
  });
  if (marks.length > shown.length) {
    const [x, y] = [xOf(run.marks[marks[0]].at) + 8, places[run.marks[marks[0]].lane].y + 8];
    pen.font = LETTERS;
    pen.textBaseline = "middle";
    pen.fillStyle = colours.faint;
    pen.fillText("+" + (marks.length - shown.length), x, y);
    picture.spots.push({ x, y, marks });
  }
}

/** Many marks: a column that is the higher, the more there are. */
function paintHeap(pen, marks) {
  const lane = places[run.marks[marks[0]].lane];
  const x = xOf((run.marks[marks[0]].at + run.marks[marks[marks.length - 1]].at) / 2);
  const height = Math.min(4 + 4 * Math.log2(marks.length), MARKS - 3);
  const byColour = new Map();
  for (const index of marks) {
    const colour = markColour(run.marks[index]);
    byColour.set(colour, (byColour.get(colour) || 0) + 1);
  }
  let y = lane.y + height / 2;
  for (const [colour, count] of byColour) {
    const part = (height * count) / marks.length;
    pen.fillStyle = colour;
    pen.fillRect(x - HEAP / 2 + 0.5, y - part, HEAP - 1, part);
    y -= part;
  }
  picture.spots.push({ x, y: lane.y, marks, heap: true });
}

function halo(pen, index, colour, r) {
  const { x, y } = positionOf(index);
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(x, y, r, 0, 7);
  pen.stroke();
}

/** Where a mark is drawn, or would be. */
function positionOf(index) {
  const spot = picture.spots.findLast((some) => !some.heap && some.marks.length === 1 && some.marks[0] === index);
  return spot || { x: xOf(run.marks[index].at), y: places[run.marks[index].lane].y };
}

function paintEvidence(pen) {
  const rings = new Set();
  const shown = evidence.filter((index) => run.marks[index].at >= view.from && run.marks[index].at <= view.to);
  for (const index of shown) {
    const mark = run.marks[index];
    if (shown.length > MANY_RINGS) {
      pen.fillStyle = colours.bad;
      pen.fillRect(xOf(mark.at) - 2, places[mark.lane].y + MARKS / 2 - 3, 4, 3);
      continue;
    }
    const key = mark.lane + ":" + Math.round(xOf(mark.at) / HEAP);
    if (rings.has(key)) continue;
    rings.add(key);
    if (KINDS[mark.kind].often) paintFan(pen, [index], 0);
    halo(pen, index, colours.bad, 7);
  }
  if (view.violation === null) return;
  const { marks } = run.violations[view.violation];
  if (marks.length > 60) return;
  pen.strokeStyle = colours.bad;
  pen.lineWidth = 2;
  pen.setLineDash([1.5, 4]);
  pen.beginPath();
  for (const index of marks) {
    const { x, y } = positionOf(index);
    pen.lineTo(x, y);
  }
  pen.stroke();
  pen.setLineDash([]);
  for (const index of marks) halo(pen, index, colours.bad, 9);
  if (marks.length <= FEW_WORDS) marks.forEach((index, number) => caption(pen, index, number % 2 === 0 ? -19 : 19));
}

/** What a mark says, above or below it. */
function caption(pen, index, offset) {
  const { x, y } = positionOf(index);
  if (x < GUTTER || x > picture.width) return;
  const { text } = run.marks[index];
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const width = Math.min(pen.measureText(text).width + 10, picture.width - GUTTER - 8);
  const left = Math.max(GUTTER + 4, Math.min(x - 12, picture.width - width - 4));
  const middle = Math.min(Math.max(y + offset, 9), picture.height - 9);
  pen.fillStyle = colours["bad-ground"];
  pen.fillRect(left, middle - 8, width, 16);
  pen.strokeStyle = colours.bad;
  pen.lineWidth = 1;
  pen.strokeRect(left + 0.5, middle - 7.5, width - 1, 15);
  pen.fillStyle = colours.ink;
  fitted(pen, text, left + 5, middle, width - 8);
}
