"use strict";
// The shapes of marks, and the colours.

/** The colours of the style sheet, by name; read anew when it turns light or dark. */
const colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "raised", "line", "ink", "faint", "link", "bad", "bad-ground", "good", "warn", "select", "fault", "fault-ground",
    "down", "down-ground", "frozen", "frozen-ground", "demand", "demand-ground", "phase"];
  for (const name of names) colours[name] = style.getPropertyValue("--" + name).trim();
  colours.queues = [0, 1, 2, 3, 4, 5].map((number) => style.getPropertyValue("--queue-" + number).trim());
}

const queueColour = (queue) => (queue === undefined || queue === null ? colours.faint : colours.queues[queue % colours.queues.length]);

function markColour(mark) {
  const { colour } = KINDS[mark.kind];
  return colour ? colours[colour] : queueColour(mark.queue);
}

const LETTERS = "10px system-ui, sans-serif";

/** Prepares a canvas for its size on this screen; the context draws in CSS pixels. */
function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

const SHAPES = {
  disc: (pen, x, y, r) => { pen.beginPath(); pen.arc(x, y, r, 0, 7); pen.fill(); },
  ring: (pen, x, y, r) => { pen.beginPath(); pen.arc(x, y, r - 0.5, 0, 7); hollow(pen); },
  rings: (pen, x, y, r) => {
    SHAPES.ring(pen, x, y, r + 1);
    pen.beginPath(); pen.arc(x, y, r * 0.4, 0, 7); pen.stroke();
  },
  dot: (pen, x, y, r) => { pen.beginPath(); pen.arc(x, y, r * 0.55, 0, 7); pen.fill(); },
  square: (pen, x, y, r) => pen.fillRect(x - r, y - r, 2 * r, 2 * r),
  crossed: (pen, x, y, r) => {
    pen.beginPath(); pen.rect(x - r, y - r, 2 * r, 2 * r); hollow(pen);
    lines(pen, [x - r, y - r, x + r, y + r], [x + r, y - r, x - r, y + r]);
  },
  cross: (pen, x, y, r) => lines(pen, [x - r, y - r, x + r, y + r], [x + r, y - r, x - r, y + r]),
  tick: (pen, x, y, r) => lines(pen, [x - r, y, x - r / 4, y + r], [x - r / 4, y + r, x + r, y - r]),
  bar: (pen, x, y, r) => pen.fillRect(x - 1, y - r - 1, 2.5, 2 * r + 2),
  diamond: (pen, x, y, r) => { path(pen, x, y - r - 1, x + r, y, x, y + r + 1, x - r, y); pen.fill(); },
  lozenge: (pen, x, y, r) => { path(pen, x, y - r - 1, x + r, y, x, y + r + 1, x - r, y); hollow(pen); },
  arrowhead: (pen, x, y, r) => { path(pen, x - r, y - r, x + r, y, x - r, y + r); pen.fill(); },
  wedge: (pen, x, y, r) => { path(pen, x - r, y - r, x + r, y, x - r, y + r); hollow(pen); },
  down: (pen, x, y, r) => { path(pen, x - r, y - r, x + r, y - r, x, y + r); pen.fill(); },
  up: (pen, x, y, r) => { path(pen, x - r, y + r, x + r, y + r, x, y - r); hollow(pen); },
};

function path(pen, x, y, ...more) {
  pen.beginPath();
  pen.moveTo(x, y);
  for (let i = 0; i < more.length; i += 2) pen.lineTo(more[i], more[i + 1]);
  pen.closePath();
}

function lines(pen, ...all) {
  pen.beginPath();
  for (const [x, y, toX, toY] of all) { pen.moveTo(x, y); pen.lineTo(toX, toY); }
  pen.stroke();
}

function hollow(pen) {
  const colour = pen.fillStyle;
  pen.fillStyle = colours.ground;
  pen.fill();
  pen.stroke();
  pen.fillStyle = colour;
}

/** Draws a mark of a kind; `text` stands in its badge. */
function glyph(pen, kind, colour, x, y, r, text) {
  const { shape, badge } = KINDS[kind];
  pen.fillStyle = colour;
  pen.strokeStyle = colour;
  pen.lineWidth = 1.5;
  if (shape) {
    SHAPES[shape](pen, x, y, r);
    return 2 * r;
  }
  return letters(pen, text || badge, colour, x, y);
}

/** A badge: letters on a colour. */
function letters(pen, text, colour, x, y) {
  pen.font = "bold 9px system-ui, sans-serif";
  const width = Math.max(pen.measureText(text).width + 5, 12);
  pen.fillStyle = colour;
  pen.beginPath();
  pen.roundRect(x - width / 2, y - 6, width, 12, 3);
  pen.fill();
  pen.fillStyle = colours.ground;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(text, x, y + 0.5);
  pen.textAlign = "left";
  return width;
}

/** Text that is cut to fit; nothing if there is hardly any room. */
function fitted(pen, text, x, y, room) {
  if (room < 14) return;
  let short = text;
  let kept = text.length;
  while (kept > 1 && pen.measureText(short).width > room) {
    kept = Math.min(kept - 1, Math.floor((kept * room) / pen.measureText(short).width));
    short = text.slice(0, Math.max(kept, 1)) + "…";
  }
  pen.fillText(short, x, y);
}

/** How a fault's ground looks, so that no colour has to tell it. */
function ground(pen, kind) {
  const [ink, paper] = {
    "down": ["down", "down-ground"], "frozen": ["frozen", "frozen-ground"], "demand": ["demand", "demand-ground"],
  }[kind] || ["fault", "fault-ground"];
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const brush = tile.getContext("2d");
  brush.fillStyle = colours[paper];
  brush.fillRect(0, 0, 8, 8);
  brush.globalAlpha = 0.3;
  brush.strokeStyle = brush.fillStyle = colours[ink];
  if (kind === "down" || kind === "cut") lines(brush, [-2, 10, 10, -2], [-2, 2, 2, -2], [6, 10, 10, 6]);
  if (kind === "frozen") lines(brush, [0, 2.5, 8, 2.5], [0, 6.5, 8, 6.5]);
  if (kind === "slow") brush.fillRect(1, 3, 4, 1.5);
  if (kind === "database" || kind === "unknown") brush.fillRect(2, 2, 2, 2);
  return { ink: colours[ink], plain: colours[paper], paper: pen.createPattern(tile, "repeat") };
}
