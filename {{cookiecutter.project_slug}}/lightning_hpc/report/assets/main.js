"use strict";
// The page: what is shown stands in `view`, which the address's hash keeps, so that a view can be sent.

const DEFAULT_PICKS = 50;
const VIEWS = { curves: drawCurves, sweep: drawSweep, compare: drawComparison, repeats: drawRepeats, maps: drawMaps };

class Page {
  constructor(data) {
    this.data = data;
    this.view = readHash(location.hash);
    this.runs = data.columns[0].values.map((_, run) => run);
    this.texts = data.columns.filter((column) => ["run", "experiment", "state", "reason"].includes(column.name));
    this.keys = this.column("run").values.map((name) => name.slice(-8)); // of a run's identity: the same in every page
    this.table = new RunTable(document.getElementById("table"), {
      sort: (name) => this.sortBy(name),
      pick: (run, isPicked) => this.pick(run, isPicked),
    });
    this.addControls();
    this.drawSummary();
    this.draw();
    window.addEventListener("hashchange", () => {
      this.view = readHash(location.hash);
      this.draw();
    });
  }

  column(name) {
    return this.data.columns.find((column) => column.name === name);
  }

  /** Columns of one kind: "setting", "metric" or "status". */
  group(kind) {
    return this.data.columns.filter((column) => column.group === kind);
  }

  nameOf(run) {
    const experiment = this.data.several_experiments ? `${this.column("experiment").values[run]}/` : "";
    return `${experiment}${this.column("run").values[run]}`;
  }

  /** Change the view; an empty text takes a part back to its default. */
  set(changes) {
    Object.assign(this.view, changes);
    history.replaceState(null, "", writeHash(this.view));
    this.draw();
  }

  addControls() {
    const filter = document.getElementById("filter");
    filter.addEventListener("input", () => this.set({ q: filter.value }));
    document.getElementById("pick-none").addEventListener("click", () => this.set({ pick: "none" }));
    document.getElementById("pick-best").addEventListener("click", () => this.setPicks(this.shown.slice(0, 10)));
    document.getElementById("theme").addEventListener("click", () => {
      document.documentElement.dataset.theme = isDark() ? "light" : "dark";
      this.draw();
    });
    document.getElementById("skip").addEventListener("click", (event) => {
      event.preventDefault(); // the hash holds the view
      document.getElementById("table").focus();
    });

    const tabs = [...document.querySelectorAll("[role=tab]")];
    for (const tab of tabs) {
      tab.addEventListener("click", () => this.set({ tab: tab.id.replace("tab-", "") }));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
        next.focus();
        next.click();
      });
    }

    const box = document.getElementById("columns");
    for (const column of this.data.columns) {
      const label = tick(column.name, false, (on) => this.showColumn(column.name, on));
      label.querySelector("input").dataset.column = column.name;
      box.append(label);
    }
    window.addEventListener("resize", () => this.drawView());

    // Paper is white.
    const theme = () => document.documentElement.dataset;
    let onScreen = null;
    window.addEventListener("beforeprint", () => {
      onScreen = theme().theme;
      theme().theme = "light";
      this.drawView();
    });
    window.addEventListener("afterprint", () => {
      theme().theme = onScreen;
      this.drawView();
    });
  }

  shownNames() {
    return readNames(this.view.cols) ?? this.data.shown;
  }

  showColumn(name, on) {
    const names = this.shownNames().filter((other) => other !== name);
    this.set({ cols: JSON.stringify(on ? [...names, name] : names) });
  }

  /** The first click sorts upwards, the second downwards, the third not at all. */
  sortBy(name) {
    const next = { [name]: `${name}-`, [`${name}-`]: "" };
    this.set({ sort: Object.hasOwn(next, this.view.sort) ? next[this.view.sort] : name });
  }

  /** The runs that were picked by hand. */
  explicitPicks() {
    const keys = new Set((this.view.pick ?? "").split("."));
    return this.runs.filter((run) => keys.has(this.keys[run]));
  }

  /** The runs that the views show: those picked, or else the first of the table. */
  pickedRuns() {
    if (this.view.pick === "none") return [];
    const picked = new Set(this.explicitPicks());
    if (!picked.size) return this.shown.slice(0, DEFAULT_PICKS);
    return [...this.shown.filter((run) => picked.has(run)), ...[...picked].filter((run) => !this.shown.includes(run))];
  }

  setPicks(runs) {
    this.set({ pick: runs.length ? runs.map((run) => this.keys[run]).join(".") : "none" });
  }

  pick(run, isPicked) {
    const others = this.explicitPicks().filter((other) => other !== run);
    this.setPicks(isPicked ? [...others, run] : others);
  }

  draw() {
    const { terms, problem } = readFilter(this.view.q ?? "", this.data.columns);
    document.getElementById("filter-problem").textContent = problem ?? "";
    const filter = document.getElementById("filter");
    if (filter.value !== (this.view.q ?? "")) filter.value = this.view.q ?? "";

    this.shown = this.runs.filter((run) => terms.every((term) => holds(term, run, this.texts)));
    const sort = this.readSort();
    if (sort) this.shown = sortRuns(this.shown, this.column(sort.name), sort.isDown);

    const names = this.shownNames();
    const columns = names.map((name) => this.column(name)).filter(Boolean);
    const explicit = new Set(this.explicitPicks());
    this.table.update(this.shown, columns, sort, explicit);
    for (const input of document.querySelectorAll("#columns input")) input.checked = names.includes(input.dataset.column);
    document.getElementById("count").textContent = `${this.shown.length} of ${this.runs.length} runs`;

    const picked = this.pickedRuns().length;
    document.getElementById("picked").textContent = explicit.size
      ? `${runs(picked)} picked.`
      : this.view.pick === "none" ? "No run picked." : `None picked: these are the first ${runs(picked)} of the table.`;
    this.drawView();
  }

  readSort() {
    const text = this.view.sort;
    if (!text) return null;
    if (this.column(text)) return { name: text, isDown: false };
    return this.column(text.slice(0, -1)) ? { name: text.slice(0, -1), isDown: true } : null;
  }

  drawView() {
    const chosen = Object.hasOwn(VIEWS, this.view.tab) ? this.view.tab : "curves";
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const isChosen = tab.id === `tab-${chosen}`;
      tab.setAttribute("aria-selected", isChosen);
      tab.tabIndex = isChosen ? 0 : -1;
    }
    const place = document.getElementById("view");
    place.setAttribute("aria-labelledby", `tab-${chosen}`);

    // What is rebuilt would lose the keyboard's place.
    const controls = () => [...place.querySelectorAll("input, select")];
    const focused = controls().indexOf(document.activeElement);
    place.replaceChildren();
    VIEWS[chosen](this, place);
    controls()[focused]?.focus({ preventScroll: true });
  }

  drawSummary() {
    const { data } = this;
    document.title = data.title;
    document.getElementById("title").textContent = data.title;
    document.getElementById("made").textContent = data.made;

    const states = new Map();
    for (const state of this.column("state").values) states.set(state, (states.get(state) ?? 0) + 1);
    const parts = [...states].sort((a, b) => b[1] - a[1]).map(([state, count]) => `${count} ${state}`);
    const summary = this.runs.length ? `${runs(this.runs.length)}: ${parts.join(", ")}. ${data.hours}` : "There are no runs here.";
    document.getElementById("summary").textContent = summary;

    const bar = document.getElementById("states");
    bar.setAttribute("aria-label", parts.join(", "));
    for (const [state, count] of states) {
      const part = element("span", { class: `state-${knownState(state)}`, title: `${count} ${state}` });
      part.style.flex = String(count);
      bar.append(part);
    }
  }
}

/** So many runs, in words. */
function runs(count) {
  return count === 1 ? "1 run" : `${count} runs`;
}

document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
readData().then(
  (data) => (window.page = new Page(data)),
  (error) => (document.getElementById("summary").textContent = `This file is damaged: ${error.message}`),
);
