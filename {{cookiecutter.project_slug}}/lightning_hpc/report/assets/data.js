"use strict";
// The runs, as report/content.py has packed them: JSON, compressed, as text.

/** Unpack the data inside the page. Returns what content.py describes, with columns as plain arrays. */
async function readData() {
  const text = atob(document.getElementById("data").textContent);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place += 1) bytes[place] = text.charCodeAt(place);

  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const data = await new Response(stream).json();
  for (const column of data.columns) column.values = readColumn(column);
  return data;
}

/** A column's cells: texts that repeat are kept once; NaN and infinity, which JSON does not know, as places. */
function readColumn(column) {
  const values = column.texts ? column.values.map((code) => (code === null ? null : column.texts[code])) : column.values;
  for (const [name, places] of Object.entries(column.special ?? {})) {
    for (const place of places) values[place] = { nan: NaN, inf: Infinity, "-inf": -Infinity }[name];
  }
  return values;
}

/** All curves of a metric: run → {step, epoch, seconds, y}, arrays of numbers. */
function curvesOf(data, metric) {
  const curves = new Map();
  for (const curve of data.curves[metric] ?? []) {
    const axis = (name) => data.axes[curve[name]].map((value) => value ?? NaN);
    const y = curve.y.map((value) => value ?? NaN);
    curves.set(curve.run, { step: axis("step"), epoch: axis("epoch"), seconds: axis("seconds"), y });
  }
  return curves;
}
