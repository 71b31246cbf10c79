"use strict";
// The table of runs: only the rows in sight are in the page, so that ten thousand of them scroll at once.

const ROW_HEIGHT = 28; // pixels, as in page.css
const MARGIN = 15; // rows kept above and below those in sight
const MOST_PRINTED = 500; // rows on paper

class RunTable {
  /**
   * @param box the element that scrolls, with a table in it
   * @param on {sort(name), pick(run, isPicked)}: what to do when a person sorts or picks
   */
  constructor(box, on) {
    this.box = box;
    this.head = box.querySelector("thead");
    this.body = box.querySelector("tbody");
    this.on = on;
    this.all = false;

    box.addEventListener("scroll", () => this.drawRows());
    window.addEventListener("resize", () => this.drawRows());
    window.addEventListener("beforeprint", () => this.drawAll(true));
    window.addEventListener("afterprint", () => this.drawAll(false));
  }

  /** Show these runs and columns; `sort` is {name, isDown} or null, `picked` a Set of runs. */
  update(runs, columns, sort, picked) {
    Object.assign(this, { runs, columns, picked });
    this.drawHead(sort);
    this.drawRows();
  }

  drawHead(sort) {
    const row = element("tr");
    row.append(element("th", { scope: "col" }, "pick"));
    for (const column of this.columns) {
      const isSorted = sort && sort.name === column.name;
      const arrow = isSorted ? (sort.isDown ? " ↓" : " ↑") : "";
      const button = element("button", { type: "button", title: `sort by ${column.name}` }, column.name + arrow);
      button.addEventListener("click", () => this.on.sort(column.name));

      const order = isSorted ? (sort.isDown ? "descending" : "ascending") : "none";
      const cell = element("th", { scope: "col", "aria-sort": order });
      cell.append(button);
      row.append(cell);
    }
    // A rebuilt button would lose the keyboard's place.
    const focused = [...this.head.querySelectorAll("button")].indexOf(document.activeElement);
    this.head.replaceChildren(row);
    this.head.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
  }

  drawRows() {
    if (!this.runs) return;
    const inSight = Math.ceil(this.box.clientHeight / ROW_HEIGHT);
    let first = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - MARGIN);
    let last = Math.min(this.runs.length, first + inSight + 2 * MARGIN);
    if (this.all) [first, last] = [0, Math.min(this.runs.length, MOST_PRINTED)];

    const rows = this.runs.slice(first, last).map((run, place) => this.row(run, first + place));
    const above = this.space(first);
    const below = this.space(this.all ? 0 : this.runs.length - last);

    const focused = document.activeElement?.dataset?.run;
    this.body.replaceChildren(above, ...rows, below);
    this.box.querySelector("table").setAttribute("aria-rowcount", this.runs.length + 1);
    if (focused !== undefined) this.body.querySelector(`[data-run="${focused}"]`)?.focus({ preventScroll: true });
  }

  drawAll(all) {
    this.all = all;
    this.drawRows();
  }

  row(run, place) {
    const name = this.columns.find((column) => column.name === "run")?.values[run] ?? run;
    const box = element("input", { type: "checkbox", "aria-label": `pick ${name}` });
    box.dataset.run = run;
    box.checked = this.picked.has(run);
    box.addEventListener("change", () => this.on.pick(run, box.checked));
    const pick = element("td");
    pick.append(box);

    const row = element("tr", { "aria-rowindex": place + 2, class: box.checked ? "picked" : "" });
    row.append(pick);
    for (const column of this.columns) {
      const value = column.values[run];
      const text = show(value);
      const cell = element("td", { class: typeof value === "number" ? "number" : "" }, text);
      if (text.length > 25) cell.title = text;
      if (column.name === "state") cell.className = `state-${knownState(text)}`;
      row.append(cell);
    }
    return row;
  }

  /** An empty row as high as all the rows that are not in the page. */
  space(rows) {
    const cell = element("td", { colspan: this.columns.length + 1 });
    cell.style.height = `${rows * ROW_HEIGHT}px`;
    const row = element("tr", { class: "space", "aria-hidden": "true" });
    row.append(cell);
    return row;
  }
}

/** The class of a state's colour. */
function knownState(state) {
  return ["done", "running", "failed"].includes(state) ? state : "other";
}

/** A new element. Its text is text, whatever a run is called: nothing in this page is read as HTML. */
function element(tag, attributes = {}, text = null) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== "") made.setAttribute(name, value);
  }
  if (text !== null) made.textContent = text;
  return made;
}
