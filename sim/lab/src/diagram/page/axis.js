"use strict";
// Above the lanes: the whole run with what is shown of it, and the time.

const overview = document.getElementById("overview");
const axis = document.getElementById("axis");

function paintOverview() {
  const width = picture.width;
  const pen = prepare(overview, width, 34);
  const at = (time) => GUTTER + (time / run.end) * (width - GUTTER - 8);
  pen.font = LETTERS;
  pen.textBaseline = "middle";
  pen.fillStyle = colours.faint;
  pen.fillText("whole run", 12, 17);
  pen.fillStyle = colours.raised;
  pen.fillRect(GUTTER, 2, width - GUTTER - 8, 30);
  for (const fault of run.faults) {
    pen.globalAlpha = 0.25;
    pen.fillStyle = colours.fault;
    pen.fillRect(at(fault.from), 2, Math.max(at(fault.to) - at(fault.from), 1), 5);
  }
  pen.globalAlpha = 1;
  const heights = new Map();
  run.marks.forEach((mark, index) => {
    if (!view.passes[index]) return;
    const x = Math.floor(at(mark.at) / 2) * 2;
    heights.set(x, (heights.get(x) || 0) + 1);
  });
  const highest = Math.max(1, ...heights.values());
  pen.fillStyle = colours.faint;
  for (const [x, count] of heights) {
    const height = 2 + 20 * Math.sqrt(count / highest);
    pen.fillRect(x, 31 - height, 1.5, height);
  }
  pen.fillStyle = colours.bad;
  const tall = evidence.length > MANY_RINGS ? 6 : 30;
  for (const mark of evidence) pen.fillRect(at(run.marks[mark].at) - 1, 2, 2, tall);
  pen.strokeStyle = colours.link;
  pen.fillStyle = colours.link;
  pen.lineWidth = 2;
  const [from, to] = [Math.max(at(view.from), GUTTER), Math.min(at(view.to), width - 8)];
  pen.globalAlpha = 0.12;
  pen.fillRect(from, 1, to - from, 32);
  pen.globalAlpha = 1;
  pen.strokeRect(from, 1, Math.max(to - from, 3), 32);
}

function paintAxis() {
  const pen = prepare(axis, picture.width, 40);
  pen.font = LETTERS;
  pen.textBaseline = "middle";
  run.phases.forEach((phase, index) => {
    const next = run.phases[index + 1];
    const from = Math.max(xOf(phase.from), GUTTER);
    const to = next ? xOf(next.from) : picture.width;
    if (to <= GUTTER || from > picture.width) return;
    pen.fillStyle = colours.phase;
    if (index % 2 === 0) pen.fillRect(from, 0, to - from, 40);
    pen.fillStyle = colours.line;
    pen.fillRect(from, 0, 1, 40);
    pen.fillStyle = colours.faint;
    fitted(pen, phase.name, from + 4, 9, to - from - 6);
  });
  const { apart, digits } = ticks();
  for (let time = Math.ceil(view.from / apart) * apart; time <= view.to; time += apart) {
    const x = xOf(time);
    if (time < 0 || x < GUTTER) continue;
    pen.fillStyle = colours.faint;
    pen.fillRect(x, 34, 1, 6);
    pen.fillStyle = colours.ink;
    pen.textAlign = "center";
    if (x > GUTTER + 20) pen.fillText(clock(time, digits), x, 27);
    pen.textAlign = "left";
  }
  flags(pen);
  pen.clearRect(0, 0, GUTTER, 40);
  pen.font = LETTERS;
  pen.fillStyle = colours.faint;
  pen.fillText("simulated time", 12, 27);
}

/** How far apart the times are that are written down. */
function ticks() {
  const least = ((view.to - view.from) * 90) / (picture.width - GUTTER);
  const power = 10 ** Math.floor(Math.log10(least));
  const apart = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= least);
  return { apart, digits: Math.min(Math.max(0, 6 - Math.floor(Math.log10(apart) + 1e-9)), 6) };
}

/** The name of one that is broken again is not repeated within so many pixels. */
const AGAIN = 300;

/** The promises that were broken, where that became visible. */
function flags(pen) {
  let taken = -Infinity;
  let told = "";
  const last = (violation) => violation.marks[violation.marks.length - 1];
  const flagged = run.violations.filter((violation) => violation.marks.length).sort((a, b) => last(a) - last(b));
  for (const violation of flagged) {
    const x = xOf(run.marks[last(violation)].at);
    if (x < GUTTER || x > picture.width) continue;
    const text = violation.promise;
    pen.fillStyle = colours.bad;
    if (x < taken || (text === told && x < taken + AGAIN)) {
      pen.fillRect(x - 0.75, 34, 1.5, 6);
      continue;
    }
    told = text;
    pen.font = "bold 10px system-ui, sans-serif";
    const width = pen.measureText(text).width + 8;
    const left = Math.min(x, picture.width - width - 2);
    pen.fillRect(left, 1, width, 15);
    pen.fillRect(x - 0.75, 1, 1.5, 39);
    pen.fillStyle = colours.ground;
    pen.fillText(text, left + 4, 9);
    taken = left + width + 4;
  }
}
