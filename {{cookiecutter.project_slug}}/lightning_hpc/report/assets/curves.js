"use strict";
// The learning curves of the picked runs.

const MOST_LINES = 200;
const MOST_SMOOTHING = 0.98;

/** Draw the view. `page` is the Page of main.js. */
function drawCurves(page, place) {
  const metrics = Object.keys(page.data.curves);
  if (!metrics.length) {
    place.append(element("p", {}, "No run has logged a curve yet."));
    return;
  }

  const view = page.view;
  const metric = metrics.includes(view.metric) ? view.metric : metrics[0];
  const weight = readWithin(view.smooth, 0, MOST_SMOOTHING, 0);
  const axis = ["step", "epoch", "seconds"].includes(view.x) ? view.x : "step";

  const controls = element("div", { class: "controls" });
  controls.append(
    choice("Metric", metrics, metric, (value) => page.set({ metric: value, range: "" })),
    choice("Over", ["step", "epoch", "seconds"], axis, (value) => page.set({ x: value, range: "" })),
    slider("Smoothing", weight, 0, MOST_SMOOTHING, 0.02, (value) => page.set({ smooth: value === "0" ? "" : value })),
    tick("log scale", view.log === "1", (on) => page.set({ log: on ? "1" : "" })),
    tick("mean and band over trials and folds", view.mean === "1", (on) => page.set({ mean: on ? "1" : "" })),
  );
  place.append(controls);

  const curves = curvesOf(page.data, metric);
  const picked = page.pickedRuns();
  const runs = picked.filter((run) => curves.has(run)).slice(0, MOST_LINES);
  const lines = view.mean === "1" ? meanLines(page, runs, curves, axis, weight) : ownLines(page, runs, curves, axis, weight);

  const range = readRange(view.range);
  const chart = element("div");
  place.append(chart);
  lineChart(chart, lines, {
    names: { x: axis, y: metric },
    logX: false,
    logY: view.log === "1",
    range,
    onRange: (limits) => page.set({ range: limits ? limits.map((value) => value.toPrecision(6)).join("_") : "" }),
  });
  place.append(element("p", { class: "hint" }, hintOf(page, picked, runs, curves, metric)));
  place.append(legend(lines));
}

/** One line a run. */
function ownLines(page, runs, curves, axis, weight) {
  return runs.map((run, number) => {
    const curve = curves.get(run);
    return { x: curve[axis], y: smooth(curve.y, weight), colour: colour(number), name: page.nameOf(run) };
  });
}

/** One line for all runs that differ only in trial or fold, with a band of ± one standard deviation. */
function meanLines(page, runs, curves, axis, weight) {
  const groups = new Map();
  for (const run of runs) {
    const group = page.data.groups[run];
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(run);
  }
  return [...groups].map(([group, members], number) => {
    const curve = average(members.map((run) => ({ x: curves.get(run)[axis], y: smooth(curves.get(run).y, weight) })));
    const common = page.data.group_names[group];
    const name = members.length > 1 ? `${common}, mean of ${members.length}` : page.nameOf(members[0]);
    return { ...curve, colour: colour(number), name };
  });
}

/** What is not in the chart, and how to use it. */
function hintOf(page, picked, runs, curves, metric) {
  const parts = ["Drag to look closer, double-click to see all."];
  const without = picked.filter((run) => !curves.has(run)).length;
  if (without) parts.push(`${without} picked runs have no curve of ${metric} in this file.`);
  if (picked.length - without > runs.length) parts.push(`The first ${MOST_LINES} are drawn.`);
  if (page.data.curves_note) parts.push(page.data.curves_note);
  return parts.join(" ");
}

/** Colours and names, with the last value of each line: what the picture shows, as text. */
function legend(lines) {
  const list = element("ul", { class: "legend" });
  for (const line of lines) {
    const item = element("li");
    const key = element("span", { class: "key", "aria-hidden": "true" });
    key.style.background = line.colour;
    const last = line.y.filter((value) => !Number.isNaN(value)).pop();
    item.append(key, `${line.name}: ${show(last ?? null)}`);
    list.append(item);
  }
  return list;
}

/** A labelled choice between names. */
function choice(label, names, chosen, onChange) {
  const select = element("select");
  for (const name of names) select.append(element("option", { value: name }, name));
  select.value = chosen;
  select.addEventListener("change", () => onChange(select.value));
  const box = element("label", {}, label);
  box.append(select);
  return box;
}

/** A labelled slider. */
function slider(label, value, low, high, step, onChange) {
  const input = element("input", { type: "range", min: low, max: high, step });
  input.value = value;
  input.addEventListener("change", () => onChange(input.value));
  const box = element("label", {}, label);
  box.append(input);
  return box;
}

/** A labelled tick box. */
function tick(label, on, onChange) {
  const input = element("input", { type: "checkbox" });
  input.checked = on;
  input.addEventListener("change", () => onChange(input.checked));
  const box = element("label", { class: "inline" });
  box.append(input, label);
  return box;
}
