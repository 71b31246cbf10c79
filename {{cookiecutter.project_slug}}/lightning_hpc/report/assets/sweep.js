"use strict";
// Settings against results: parallel coordinates, one setting against a metric, and which settings matter.

const MOST_AXES = 8;
const MOST_PATHS = 3000;

/** Draw the view for the runs that the filter leaves. */
function drawSweep(page, place) {
  const settings = differences(page.shown, page.group("setting"));
  const metrics = page.group("metric").filter((column) => column.values.some(Number.isFinite));
  if (!settings.length || !metrics.length) {
    place.append(element("p", {}, "There is nothing to compare: no setting differs, or no run has a metric yet."));
    return;
  }

  const metric = named(metrics, page.view.result) ?? named(metrics, page.data.monitor) ?? metrics[0];
  const setting = named(settings, page.view.setting) ?? settings[0];
  const controls = element("div", { class: "controls" });
  controls.append(
    choice("Metric", metrics.map((column) => column.name), metric.name, (value) => page.set({ result: value })),
    choice("Setting", settings.map((column) => column.name), setting.name, (value) => page.set({ setting: value })),
  );
  place.append(controls);

  const runs = page.shown.filter((run) => Number.isFinite(metric.values[run]));
  place.append(element("h3", {}, `${metric.name} against ${setting.name}`));
  const points = element("div");
  place.append(points);
  drawPoints(page, points, runs, setting, metric);

  place.append(element("h3", {}, "Which settings matter"));
  drawImportance(place, runs, settings, metric);

  place.append(element("h3", {}, "All settings at once"));
  place.append(element("p", { class: "hint" }, `One line a run, coloured by ${metric.name}: dark is low, yellow is high.`));
  const paths = element("div");
  place.append(paths);
  drawPaths(page, paths, runs.slice(0, MOST_PATHS), [...settings.slice(0, MOST_AXES), metric], metric);
}

function named(columns, name) {
  return columns.find((column) => column.name === name);
}

/** A setting's values as numbers: texts get places in the order of the alphabet. */
function asNumbers(column, runs) {
  const values = runs.map((run) => column.values[run]);
  if (values.every((value) => value === null || typeof value === "number")) {
    return { numbers: values.map((value) => value ?? NaN), texts: null };
  }
  const texts = [...new Set(values.map((value) => show(value)))].sort();
  return { numbers: values.map((value) => texts.indexOf(show(value))), texts };
}

function drawPoints(page, place, runs, setting, metric) {
  const { numbers, texts } = asNumbers(setting, runs);
  const picked = new Set(page.explicitPicks());
  const points = runs.map((run, number) => ({
    x: numbers[number],
    y: metric.values[run],
    run,
    isPicked: picked.has(run),
    colour: picked.has(run) ? themeColour("--failed") : themeColour("--accent"),
    text: `${page.nameOf(run)}: ${setting.name} ${show(setting.values[run])}, ${metric.name} ${show(metric.values[run])}`,
  }));
  pointChart(place, points, {
    names: { x: texts ? `${setting.name}: ${texts.map((text, number) => `${number} = ${text}`).join(", ")}` : setting.name, y: metric.name },
    logX: !texts && wantsLog(numbers),
    logY: false,
    onClick: (run) => run !== undefined && page.pick(run, !picked.has(run)),
  });
  place.append(element("p", { class: "hint" }, "Click a point to pick its run."));
}

function drawImportance(place, runs, settings, metric) {
  const rows = importance(runs, settings, metric);
  if (runs.length < FEW_RUNS) {
    place.append(element("p", { class: "problem" }, `Only ${runs.length} runs have a ${metric.name}: below ${FEW_RUNS}, chance looks like importance.`));
  }

  const table = element("table");
  const head = element("tr");
  for (const name of ["setting", "runs", "rank correlation", "variance explained", "share"]) head.append(element("th", { scope: "col" }, name));
  const header = element("thead");
  header.append(head);
  const body = element("tbody");
  for (const row of rows) {
    const bar = element("div", { class: "bar" });
    bar.style.width = `${(row.explained || 0) * 10}rem`;
    const last = element("td");
    last.append(bar);
    const line = element("tr");
    line.append(
      element("th", { scope: "row" }, row.column.name),
      element("td", { class: "number" }, show(row.n)),
      element("td", { class: "number" }, Number.isNaN(row.correlation) ? "" : row.correlation.toFixed(2)),
      element("td", { class: "number" }, Number.isNaN(row.explained) ? "" : `${(100 * row.explained).toFixed(0)} %`),
      last,
    );
    body.append(line);
  }
  table.append(header, body);
  const box = element("div", { class: "plain" });
  box.append(table);
  place.append(box);
  place.append(element("p", { class: "hint" }, "Rank correlation (Spearman) sees trends up or down. Variance explained (ω² of the means of up to five groups) sees any shape, also of words. Neither sees two settings that matter only together."));
}

function drawPaths(page, place, runs, columns, metric) {
  const { context, width, height } = makeCanvas(place, 320, `parallel coordinates of ${columns.length} axes, ${runs.length} runs`);
  const [left, right, top, bottom] = [40, 60, 30, 24];
  const axes = columns.map((column, number) => {
    const { numbers, texts } = asNumbers(column, runs);
    const isLog = !texts && column !== metric && wantsLog(numbers);
    const axis = makeAxis(numbers, height - bottom, top, isLog);
    const at = left + ((width - left - right) * number) / Math.max(1, columns.length - 1);
    return { column, numbers, texts, axis, at };
  });

  const values = runs.map((run) => metric.values[run]);
  const low = values.reduce((a, b) => Math.min(a, b), Infinity);
  const high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  context.lineWidth = 1;
  context.globalAlpha = Math.max(0.15, Math.min(0.8, 60 / runs.length));
  runs.forEach((run, number) => {
    context.strokeStyle = shade((values[number] - low) / (high - low || 1));
    context.beginPath();
    for (const { numbers, axis, at } of axes) {
      const y = axis.at(numbers[number]);
      if (Number.isFinite(y)) context.lineTo(at, y);
    }
    context.stroke();
  });
  context.globalAlpha = 1;

  context.fillStyle = context.strokeStyle = themeColour("--text");
  for (const { column, texts, axis, at } of axes) {
    context.beginPath();
    context.moveTo(at, top);
    context.lineTo(at, height - bottom);
    context.stroke();
    const short = column.name.length > 18 ? `…${column.name.slice(-17)}` : column.name;
    context.textAlign = at > width / 2 ? "right" : "left";
    context.fillText(short, at, top - 16);
    context.textAlign = "left";
    const marks = texts ? texts.map((_, place) => place).slice(0, 12) : axis.ticks;
    for (const mark of marks) context.fillText(texts ? texts[mark].slice(0, 12) : show(mark), at + 4, axis.at(mark) - 2);
  }
}
