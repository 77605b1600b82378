"use strict";
// The events in words, in step with the picture, and the summary.

const ROW = 20;
const list = document.getElementById("events");
const rows = document.getElementById("rows");
/** The marks that are listed. */
let listed = [];
/** What the rows were made of. */
let shownRows = "";

function listEvents() {
  listed = [];
  for (let index = firstAt(view.from); index < run.marks.length && run.marks[index].at <= view.to; index += 1) {
    if (view.passes[index]) listed.push(index);
  }
  rows.style.height = listed.length * ROW + "px";
  const all = listed.length === run.marks.length;
  document.getElementById("count").textContent = all
    ? `${listed.length} events`
    : `${listed.length} of ${run.marks.length} events: those in the visible time range${view.filtered ? " that match the filter" : ""}`;
  const place = view.selected === null ? -1 : listed.indexOf(view.selected);
  if (place >= 0 && listEvents.selected !== view.selected + ":" + listed[0]) {
    const top = place * ROW;
    if (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
  }
  listEvents.selected = view.selected + ":" + listed[0];
  fillRows();
}

/** Makes the rows that are to be seen. */
function fillRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
  const last = Math.min(listed.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 5);
  const key = [first, last, listed[first], listed[last - 1], listed.length, view.selected, colours.ground].join();
  if (key === shownRows) return;
  shownRows = key;
  rows.replaceChildren(...listed.slice(first, last).map((index, number) => row(index, first + number)));
  if (view.selected !== null && listed.includes(view.selected)) list.setAttribute("aria-activedescendant", "row-" + view.selected);
  else list.removeAttribute("aria-activedescendant");
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function picturedKind(kind, colour, text) {
  const small = document.createElement("canvas");
  small.setAttribute("aria-hidden", "true");
  glyph(prepare(small, 26, 18), kind, colour, 13, 9, 4.5, text);
  return small;
}

function row(index, place) {
  const mark = run.marks[index];
  const made = element("div", violationsOf.has(index) ? "row broken" : "row");
  made.id = "row-" + index;
  made.dataset.mark = index;
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", String(index === view.selected));
  made.setAttribute("aria-posinset", place + 1);
  made.setAttribute("aria-setsize", listed.length);
  made.style.top = place * ROW + "px";
  const small = document.createElement("canvas");
  small.setAttribute("aria-hidden", "true");
  glyph(prepare(small, 20, 20), mark.kind, markColour(mark), 10, 10, 4, epochs.has(index) ? "E" + epochs.get(index) : undefined);
  made.append(element("span", "at", clock(mark.at)), small, element("span", "host", run.lanes[mark.lane].name), element("span", "text", mark.text));
  return made;
}

/** What is selected, in full. */
function tellDetail() {
  const detail = document.getElementById("detail");
  const key = [view.selected, view.violation, view.traced].join();
  if (detail.dataset.key === key) return;
  detail.dataset.key = key;
  if (view.selected === null) {
    detail.textContent = "No event is selected. Click a mark, or move between events with ↑ and ↓.";
    return;
  }
  const mark = run.marks[view.selected];
  detail.replaceChildren(element("code", "at", clock(mark.at)), " ", element("b", "", run.lanes[mark.lane].name), " " + mark.text);
  for (const number of (violationsOf.get(view.selected) || []).slice(0, 3)) {
    detail.append(" ", element("b", "broken", "shows that " + run.violations[number].promise + " is broken"));
  }
  for (const message of (mark.messages || []).slice(0, 3)) {
    const button = element("button", "trace", "Trace " + run.messages[message].body);
    button.type = "button";
    button.addEventListener("click", () => trace(message));
    detail.append(button);
  }
}

/** What the controls say follows from the view. */
function setControls() {
  const untrace = document.getElementById("untrace");
  untrace.hidden = view.traced === null;
  untrace.textContent = view.traced === null ? "" : `Only ${run.messages[view.traced].body} ✕`;
  const find = document.getElementById("find");
  if (find.value !== view.find) find.value = view.find;
  document.getElementById("queue").value = view.queue === null ? "" : String(view.queue);
  document.querySelectorAll(".violations > li").forEach((item, number) => {
    item.setAttribute("aria-current", String(number === view.violation));
  });
}

function choose(tab) {
  for (const name of ["events", "summary"]) {
    const chosen = name === tab;
    document.getElementById(name).classList.toggle("shown", chosen);
    const button = document.getElementById("tab-" + name);
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen ? 0 : -1;
  }
  if (tab === "events") fillRows();
}
