"use strict";
// What tells the picked runs apart, how to start each again, and means over trials and folds.

const MOST_COMPARED = 12;

/** The settings that differ between the picked runs, their metrics, and their commands. */
function drawComparison(page, place) {
  const all = page.pickedRuns();
  const runs = all.slice(0, MOST_COMPARED);
  if (!runs.length) {
    place.append(element("p", {}, "Pick runs in the table to compare them."));
    return;
  }
  if (all.length > runs.length) place.append(element("p", { class: "hint" }, `The first ${runs.length} of ${all.length} picked runs.`));

  const settings = differences(runs, page.group("setting"));
  const metrics = page.group("metric").filter((column) => runs.some((run) => column.values[run] !== null));
  const names = runs.map((run) => page.nameOf(run));
  place.append(element("h3", {}, settings.length ? "Settings that differ" : "No setting differs between these runs"));
  if (settings.length) place.append(smallTable(["setting", ...names], settings.map((column) => rowOf(column, runs))));
  place.append(element("h3", {}, "Metrics"));
  place.append(smallTable(["metric", ...names], metrics.map((column) => rowOf(column, runs))));

  const command = page.column("command");
  if (command) {
    place.append(element("h3", {}, "To start each again"));
    const lines = runs.map((run) => command.values[run]).filter(Boolean);
    place.append(element("pre", { tabindex: "0" }, lines.join("\n")));
  }

  const same = Object.entries(page.data.same);
  if (same.length) {
    const more = element("details");
    more.append(element("summary", {}, `${same.length} settings are the same in all runs`));
    more.append(smallTable(["setting", "value"], same.map(([key, value]) => [key, show(value)])));
    place.append(more);
  }
}

function rowOf(column, runs) {
  return [column.name, ...runs.map((run) => show(column.values[run]))];
}

/** A small table; the first cell of each row is its name. */
function smallTable(head, rows) {
  const header = element("thead");
  const top = element("tr");
  for (const name of head) top.append(element("th", { scope: "col" }, name));
  header.append(top);

  const body = element("tbody");
  for (const [name, ...cells] of rows) {
    const row = element("tr");
    row.append(element("th", { scope: "row" }, name));
    for (const cell of cells) row.append(element("td", {}, cell));
    body.append(row);
  }
  const table = element("table");
  table.append(header, body);
  const box = element("div", { class: "plain", tabindex: "0", role: "region", "aria-label": head[0] });
  box.append(table);
  return box;
}

/** Mean ± standard deviation over the runs that differ only in trial, fold or seed. */
function drawRepeats(page, place) {
  const state = page.column("state");
  const groups = new Map();
  for (const run of page.shown) {
    if (state.values[run] !== "done") continue;
    const group = page.data.groups[run];
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(run);
  }
  const repeated = [...groups.values()].filter((members) => members.length > 1);
  if (!repeated.length) {
    place.append(element("p", {}, "No two runs that are done differ only in their trial or fold."));
    return;
  }

  const metrics = page.group("metric").filter((column) => repeated.some((runs) => runs.some((run) => Number.isFinite(column.values[run]))));
  const rows = repeated.map((runs) => {
    const cells = metrics.map((column) => {
      const numbers = runs.map((run) => column.values[run]).filter((value) => value !== null);
      if (numbers.length < runs.length) return ""; // a mean over fewer runs would not compare with its neighbours
      const { mean, deviation } = meanAndDeviation(numbers);
      return `${show(mean)} ± ${Number(deviation.toPrecision(2))}`;
    });
    return [page.data.group_names[page.data.groups[runs[0]]], show(runs.length), ...cells];
  });
  place.append(element("p", { class: "hint" }, "Mean ± standard deviation (of n − 1) over the runs that are done and differ only in trial, fold or seed."));
  place.append(smallTable(["settings", "n", ...metrics.map((column) => column.name)], rows));
}
