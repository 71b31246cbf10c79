"use strict";
// CKA maps of the picked runs side by side, from epoch to epoch.

const MAP_SIZE = 260; // pixels of the longer side
const MOST_NAMED = 12; // layers below a map

/** Draw the view. */
function drawMaps(page, place) {
  const picked = new Set(page.pickedRuns());
  const runs = page.data.maps.filter((entry) => picked.has(entry.run));
  if (!runs.length) {
    place.append(element("p", {}, "None of the picked runs has a CKA map in this file."));
    return;
  }

  const most = Math.max(...runs.map((entry) => entry.maps.length));
  const chosen = Math.round(readWithin(page.view.map, 0, most - 1, most - 1));
  const controls = element("div", { class: "controls" });
  controls.append(slider("First map to last", chosen, 0, most - 1, 1, (value) => page.set({ map: value })));
  place.append(controls);

  const row = element("div", { class: "side-by-side" });
  place.append(row);
  for (const entry of runs.slice(0, 12)) {
    const map = entry.maps[Math.min(chosen, entry.maps.length - 1)];
    const box = element("div", { class: "one-map" });
    row.append(box);
    box.append(element("h3", {}, page.nameOf(entry.run)));
    box.append(element("p", { class: "hint" }, `${map.name}: ${map.row_label} (up) and ${map.column_label} (across), ${map.samples} samples`));
    drawMap(box, map);
  }
  place.append(element("p", { class: "hint" }, "Dark is 0, unrelated; yellow is 1, the same up to rotation and scale. First layers at the lower left."));
}

function drawMap(box, map) {
  const size = Math.max(1, Math.floor(MAP_SIZE / Math.max(map.rows.length, map.columns.length)));
  const diagonal = map.rows.length === map.columns.length ? map.rows.map((name, place) => `${name} ${show(map.values[place][place])}`) : [];
  const canvas = element("canvas", { role: "img", class: "map", "aria-label": `CKA: ${diagonal.join(", ")}` });
  canvas.width = size * map.columns.length;
  canvas.height = size * map.rows.length;
  const chart = element("div", { class: "chart" });
  chart.append(canvas);
  box.append(chart);

  const context = canvas.getContext("2d");
  const points = [];
  map.values.forEach((row, up) => {
    row.forEach((value, across) => {
      const [left, top] = [across * size, (map.rows.length - 1 - up) * size];
      context.fillStyle = value === null ? "#888" : shade(value);
      context.fillRect(left, top, size, size);
      const text = `${map.rows[up]} and ${map.columns[across]}: ${value === null ? "nan" : value.toFixed(2)}`;
      points.push({ left: left + size / 2, top: top + size / 2, text });
    });
  });
  addTip(chart, canvas, points);

  const layers = map.rows.slice(0, MOST_NAMED).join(", ");
  const more = map.rows.length > MOST_NAMED ? ` and ${map.rows.length - MOST_NAMED} more` : "";
  box.append(element("p", { class: "hint" }, `Upwards: ${layers}${more}`));
}
