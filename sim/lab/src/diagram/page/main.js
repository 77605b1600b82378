"use strict";
// Puts it together.

function listenToControls() {
  const by = (id) => document.getElementById(id);
  run.queues.forEach((label, index) => by("queue").append(new Option(label, String(index))));
  by("queue").addEventListener("change", (event) => {
    view.queue = event.target.value === "" ? null : Number(event.target.value);
    filter();
  });
  by("find").addEventListener("input", (event) => {
    view.find = event.target.value;
    filter();
  });
  by("untrace").addEventListener("click", () => trace(null));
  by("in").addEventListener("click", () => zoom(0.5, around()));
  by("out").addEventListener("click", () => zoom(2, around()));
  by("fit").addEventListener("click", showAll);
  by("walk").hidden = !evidence.length;
  by("worse").addEventListener("click", nextEvidence);
  for (const name of ["events", "summary"]) {
    by("tab-" + name).addEventListener("click", () => choose(name));
    by("tab-" + name).addEventListener("keydown", (event) => {
      if (!event.key.startsWith("Arrow")) return;
      const other = name === "events" ? "summary" : "events";
      choose(other);
      by("tab-" + other).focus();
    });
  }
  list.addEventListener("scroll", fillRows);
  list.addEventListener("click", (event) => {
    const clicked = event.target.closest(".row");
    if (clicked) select(Number(clicked.dataset.mark));
  });
  list.addEventListener("dblclick", (event) => {
    const clicked = event.target.closest(".row");
    if (clicked) showMarks([Number(clicked.dataset.mark)]);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link) return;
    event.preventDefault();
    follow(link.getAttribute("href"));
  });
  addEventListener("hashchange", () => follow(location.hash));
}

function drawLegend() {
  const used = new Set(run.marks.map((mark) => mark.kind));
  const legend = document.getElementById("legend");
  const entry = (small, text) => {
    const span = element("span");
    span.append(small, text);
    return span;
  };
  const entries = Object.entries(KINDS).filter(([kind]) => used.has(kind)).map(([kind, { name, colour }]) =>
    entry(picturedKind(kind, colour ? colours[colour] : colours.faint), name));
  const grounds = { down: "host is down", frozen: "host is frozen", cut: "messages are lost", slow: "messages are late",
    database: "database has a fault", demand: "requested: drain, churn, stall", unknown: "fault" };
  const kinds = new Set(run.faults.map((fault) => fault.kind));
  for (const kind of Object.keys(grounds).filter((kind) => kinds.has(kind))) {
    const small = document.createElement("canvas");
    const pen = prepare(small, 26, 18);
    pen.fillStyle = ground(pen, kind).paper;
    pen.fillRect(1, 3, 24, 12);
    entries.push(entry(small, grounds[kind]));
  }
  const notes = element("p", "", "Filled bands on a broker's lane: it owns the queue under that epoch; hollow from when its process ended. "
    + "Lines go from cause to effect; where they bend, they go through a broker (at an unknown time). Columns stand for many events: "
    + "a higher column has more; zoom in or click to see them. Red rings show a broken promise.");
  legend.replaceChildren(...entries, notes);
}

function paint() {
  paintLanes();
  paintOverview();
  paintAxis();
  listEvents();
  tellDetail();
  setControls();
  keepAddress();
}

function begin() {
  document.body.classList.remove("static");
  readColours();
  place();
  choose("events");
  listenToControls();
  listenToPointers();
  listenToKeys();
  drawLegend();
  watchers.push(paint);
  view.from = -margin;
  view.to = run.end + margin;
  if (location.hash) follow(location.hash);
  new ResizeObserver(changed).observe(scroller);
  new ResizeObserver(changed).observe(list);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    drawLegend();
    changed();
  });
  changed();
}

// An empty history has no picture.
if (run.lanes.length) begin();
