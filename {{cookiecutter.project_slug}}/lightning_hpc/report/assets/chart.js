"use strict";
// Lines, points and heat maps on a canvas.

const LEFT = 64, RIGHT = 12, TOP = 10, BOTTOM = 40; // pixels around a chart, for its numbers and names

/** The colour of the n-th line: neighbours are far apart, and none is too pale or too dark for either theme. */
function colour(number) {
  const hue = (210 + number * 137.508) % 360;
  return `hsl(${hue.toFixed(0)} 65% ${isDark() ? 65 : 42}%)`;
}

// Viridis at five places: even steps of a value look even, in print and to the colour-blind too.
const SHADES = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

/** The colour of a share between 0 and 1: dark violet, green, yellow. */
function shade(share) {
  const place = Math.min(1, Math.max(0, share)) * (SHADES.length - 1);
  const first = Math.min(Math.floor(place), SHADES.length - 2);
  const mix = SHADES[first].map((part, index) => Math.round(part + (place - first) * (SHADES[first + 1][index] - part)));
  return `rgb(${mix.join(" ")})`;
}

function isDark() {
  return document.documentElement.dataset.theme === "dark";
}

function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A canvas as wide as its place and sharp on any screen; returns it with its context and size in CSS pixels. */
function makeCanvas(place, height, label) {
  const canvas = element("canvas", { role: "img", "aria-label": label });
  place.append(canvas);
  const width = Math.max(240, place.clientWidth);
  const scale = window.devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = `${height}px`;

  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  context.font = "12px system-ui, sans-serif";
  return { canvas, context, width, height };
}

/** An axis from values to pixels, logarithmic or not, with so much room at its ends: {at(value), back(pixel), ticks}. */
function makeAxis(values, from, to, isLog, room = 0) {
  const usable = values.filter((value) => Number.isFinite(value) && (!isLog || value > 0));
  let low = usable.reduce((a, b) => Math.min(a, b), Infinity);
  let high = usable.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!usable.length) [low, high] = isLog ? [1, 10] : [0, 1];
  if (low === high) [low, high] = isLog ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];

  const turn = isLog ? Math.log10 : (value) => value;
  const margin = room * (turn(high) - turn(low));
  const [first, last] = [turn(low) - margin, turn(high) + margin];
  return {
    at: (value) => from + ((turn(value) - first) / (last - first)) * (to - from),
    back: (pixel) => {
      const value = first + ((pixel - from) / (to - from)) * (last - first);
      return isLog ? 10 ** value : value;
    },
    ticks: isLog ? logTicks(low, high) : linearTicks(low, high, 5),
  };
}

/** Lines and numbers of both axes. */
function drawAxes(context, x, y, width, height, names) {
  context.strokeStyle = themeColour("--line");
  context.fillStyle = themeColour("--quiet");
  context.lineWidth = 1;

  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const tick of y.ticks) {
    context.beginPath();
    context.moveTo(LEFT, y.at(tick));
    context.lineTo(width - RIGHT, y.at(tick));
    context.stroke();
    context.fillText(show(tick), LEFT - 6, y.at(tick));
  }

  context.textAlign = "center";
  context.textBaseline = "top";
  for (const tick of x.ticks) context.fillText(show(tick), x.at(tick), height - BOTTOM + 6);
  context.fillText(names.x, (LEFT + width - RIGHT) / 2, height - 16);
}

/**
 * A chart of lines. Drag over it to look closer at a part, double-click to see all again.
 * @param place element to draw into
 * @param lines [{x, y, low, high, colour, name}]: low and high are a band around the line, or missing
 * @param options {names: {x, y}, logX, logY, range: [from, to] or null, onRange(range)}
 */
function lineChart(place, lines, options) {
  place.replaceChildren();
  place.className = "chart";
  const label = `${options.names.y} over ${options.names.x}, ${lines.length} lines`;
  const { canvas, context, width, height } = makeCanvas(place, 340, label);

  const inRange = (value) => !options.range || (value >= options.range[0] && value <= options.range[1]);
  const [xs, ys] = [[], []];
  for (const line of lines) {
    line.x.forEach((value, place) => {
      if (!inRange(value)) return;
      xs.push(value);
      ys.push(line.y[place]);
      if (line.low) ys.push(line.low[place], line.high[place]);
    });
  }
  const x = makeAxis(options.range ?? xs, LEFT, width - RIGHT, options.logX);
  const y = makeAxis(ys, height - BOTTOM, TOP, options.logY, 0.03);
  drawAxes(context, x, y, width, height, options.names);

  context.save();
  context.beginPath();
  context.rect(LEFT, TOP, width - LEFT - RIGHT, height - TOP - BOTTOM);
  context.clip();
  for (const line of lines) drawBand(context, line, x, y);
  for (const line of lines) drawLine(context, line, x, y);
  context.restore();

  const points = [];
  for (const line of lines) {
    line.x.forEach((value, place) => {
      if (!inRange(value) || !Number.isFinite(line.y[place])) return;
      const text = `${line.name}: ${show(line.y[place])} at ${options.names.x} ${show(value)}`;
      points.push({ left: x.at(value), top: y.at(line.y[place]), text });
    });
  }
  addTip(place, canvas, points);
  addZoom(canvas, x, options.onRange);
}

function drawBand(context, line, x, y) {
  if (!line.low) return;
  context.fillStyle = line.colour;
  context.globalAlpha = 0.2;
  context.beginPath();
  line.x.forEach((value, place) => context.lineTo(x.at(value), y.at(line.high[place])));
  for (let place = line.x.length - 1; place >= 0; place -= 1) context.lineTo(x.at(line.x[place]), y.at(line.low[place]));
  context.fill();
  context.globalAlpha = 1;
}

function drawLine(context, line, x, y) {
  context.strokeStyle = context.fillStyle = line.colour;
  context.lineWidth = 1.6;
  context.beginPath();
  let isDrawing = false;
  line.x.forEach((value, place) => {
    const [left, top] = [x.at(value), y.at(line.y[place])];
    if (!Number.isFinite(left) || !Number.isFinite(top)) {
      isDrawing = false; // a gap where a value is NaN
      return;
    }
    if (isDrawing) context.lineTo(left, top);
    else context.moveTo(left, top);
    isDrawing = true;
    if (line.x.length < 2) context.fillRect(left - 2, top - 2, 4, 4);
  });
  context.stroke();
}

/** Points of two columns: {x, y, colour, text, run}; a click calls onClick(run). */
function pointChart(place, points, options) {
  place.replaceChildren();
  place.className = "chart";
  const label = `${options.names.y} against ${options.names.x}, ${points.length} runs`;
  const { canvas, context, width, height } = makeCanvas(place, 340, label);

  const x = makeAxis(points.map((point) => point.x), LEFT, width - RIGHT, options.logX, 0.05);
  const y = makeAxis(points.map((point) => point.y), height - BOTTOM, TOP, options.logY, 0.05);
  drawAxes(context, x, y, width, height, options.names);

  const drawn = [];
  for (const point of points) {
    const [left, top] = [x.at(point.x), y.at(point.y)];
    if (!Number.isFinite(left) || !Number.isFinite(top)) continue;
    context.fillStyle = point.colour;
    context.beginPath();
    context.arc(left, top, point.isPicked ? 5 : 3, 0, 7);
    context.fill();
    drawn.push({ left, top, text: point.text, run: point.run });
  }
  addTip(place, canvas, drawn, options.onClick);
}

/** Say what is nearest to the mouse. */
function addTip(place, canvas, points, onClick) {
  const tip = element("div", { class: "tip", hidden: "hidden" });
  place.append(tip);
  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    let [best, smallest] = [null, 20 ** 2];
    for (const point of points) {
      const distance = (point.left - left) ** 2 + (point.top - top) ** 2;
      if (distance < smallest) [best, smallest] = [point, distance];
    }
    return best;
  };

  canvas.addEventListener("mousemove", (event) => {
    const point = nearest(event);
    tip.hidden = !point;
    if (!point) return;
    tip.textContent = point.text;
    tip.style.left = `${Math.min(point.left + 12, place.clientWidth - tip.offsetWidth)}px`;
    tip.style.top = `${point.top + 12}px`;
  });
  canvas.addEventListener("mouseleave", () => (tip.hidden = true));
  if (onClick) canvas.addEventListener("click", (event) => onClick(nearest(event)?.run));
}

/** Dragging from one x to another shows what is between them. */
function addZoom(canvas, x, onRange) {
  const at = (event) => x.back(event.clientX - canvas.getBoundingClientRect().left);
  let start = null;
  canvas.addEventListener("mousedown", (event) => (start = event));
  canvas.addEventListener("mouseup", (event) => {
    if (start && Math.abs(event.clientX - start.clientX) > 8) onRange([at(start), at(event)].sort((a, b) => a - b));
    start = null;
  });
  canvas.addEventListener("dblclick", () => onRange(null));
}
