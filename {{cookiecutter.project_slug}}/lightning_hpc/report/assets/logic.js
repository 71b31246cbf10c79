"use strict";
// What can be worked out without drawing: filters, orders, smoothing, axes. No function here touches the page.

const COMPARISON = /^(-?)([^<>=!~]+)(<=|>=|!=|<|>|=|~)(.*)$/;

/** The column that a name means: the whole name, or its end after a dot or slash; upper and lower case are the same. */
function findColumn(name, columns) {
  const low = name.toLowerCase();
  const whole = columns.filter((column) => column.name.toLowerCase() === low);
  if (whole.length) return { column: whole[0] };

  const ends = columns.filter((column) => /[./]/.test(column.name) && column.name.toLowerCase().split(/[./]/).pop() === low);
  if (ends.length === 1) return { column: ends[0] };
  if (ends.length > 1) return { problem: `${name} may be ${ends.map((column) => column.name).join(" or ")}` };
  return { problem: `there is no column ${name}` };
}

/** Split at spaces, except inside double quotes: a "b c" → ["a", "b c"]. */
function splitWords(text) {
  return (text.match(/(?:"[^"]*"|[^\s"])+/g) || []).map((word) => word.replaceAll('"', ""));
}

/**
 * Read what was typed into the filter.
 * Returns {terms, problem}: a run is shown if all terms hold for it; problem is null if all could be read.
 */
function readFilter(text, columns) {
  const terms = [];
  let problem = null;

  for (const word of splitWords(text)) {
    const match = COMPARISON.exec(word);
    if (!match) {
      const negated = word.startsWith("-") && word.length > 1;
      terms.push({ word: word.slice(negated ? 1 : 0).toLowerCase(), negated });
      continue;
    }

    const [, minus, name, operator, value] = match;
    const found = findColumn(name, columns);
    if (found.problem) {
      problem = found.problem;
      continue;
    }
    if (value === "") continue; // still being typed
    terms.push({ column: found.column, operator, value, negated: minus === "-" });
  }
  return { terms, problem };
}

/** True if a term of the filter holds for a run. `texts` are the columns in which plain words are looked for. */
function holds(term, run, texts) {
  const result = term.column
    ? compareWith(term.column.values[run], term.operator, term.value)
    : texts.some((column) => String(column.values[run] ?? "").toLowerCase().includes(term.word));
  return result !== term.negated;
}

/** True if `cell OPERATOR text` holds. A missing cell is not equal to anything, and neither smaller nor larger. */
function compareWith(cell, operator, text) {
  if (cell === null) return operator === "!=";
  if (operator === "~") return String(cell).toLowerCase().includes(text.toLowerCase());

  const number = readNumber(text);
  const asNumbers = typeof cell === "number" && number !== null;
  const [left, right] = asNumbers ? [cell, number] : [String(cell).toLowerCase(), text.toLowerCase()];
  const same = left === right || (Number.isNaN(left) && Number.isNaN(right));

  if (operator === "=") return same;
  if (operator === "!=") return !same;
  if (!asNumbers) return false;
  return { "<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right }[operator];
}

/** The number in a text, or null. */
function readNumber(text) {
  if (/^[+-]?inf(inity)?$/i.test(text)) return text.startsWith("-") ? -Infinity : Infinity;
  if (/^nan$/i.test(text)) return NaN;
  const number = Number(text);
  return text.trim() === "" || Number.isNaN(number) ? null : number;
}

/** Runs in the order of a column. Missing cells and NaN come last, whichever way the order goes. */
function sortRuns(runs, column, isDown) {
  const sign = isDown ? -1 : 1;
  const isEmpty = (value) => value === null || Number.isNaN(value);

  return [...runs].sort((a, b) => {
    const [left, right] = [column.values[a], column.values[b]];
    if (isEmpty(left) || isEmpty(right)) return isEmpty(left) - isEmpty(right) || a - b;
    if (typeof left === "number" && typeof right === "number") return sign * (left - right) || a - b;
    const [first, second] = [String(left), String(right)];
    return first === second ? a - b : sign * (first < second ? -1 : 1);
  });
}

/** A value as text: numbers with four digits that count. */
function show(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value);
  return String(Number(value.toPrecision(4)));
}

/** Exponential moving average, corrected for its start: weight 0 leaves the values as they are. NaN is passed over. */
function smooth(values, weight) {
  if (!weight) return values;
  let [mean, norm] = [0, 0];
  return values.map((value) => {
    if (!Number.isFinite(value)) return value;
    mean = weight * mean + (1 - weight) * value;
    norm = weight * norm + (1 - weight);
    return mean / norm;
  });
}

/** Mean and sample standard deviation of numbers; the deviation of a single one is NaN. */
function meanAndDeviation(numbers) {
  const mean = numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
  const squares = numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, deviation: numbers.length > 1 ? Math.sqrt(squares / (numbers.length - 1)) : NaN };
}

/** Several curves as one: at each x that at least half of them have, the mean and the band of ± one deviation. */
function average(curves) {
  const at = new Map();
  for (const curve of curves) {
    curve.x.forEach((x, place) => {
      if (!Number.isFinite(curve.y[place])) return;
      if (!at.has(x)) at.set(x, []);
      at.get(x).push(curve.y[place]);
    });
  }

  const result = { x: [], y: [], low: [], high: [] };
  for (const x of [...at.keys()].sort((a, b) => a - b)) {
    const values = at.get(x);
    if (values.length * 2 < curves.length) continue;
    const { mean, deviation } = meanAndDeviation(values);
    const width = Number.isNaN(deviation) ? 0 : deviation;
    result.x.push(x);
    result.y.push(mean);
    result.low.push(mean - width);
    result.high.push(mean + width);
  }
  return result;
}

/** About `count` round numbers between two limits: steps of 1, 2 or 5 times a power of ten. */
function linearTicks(low, high, count) {
  if (!(high > low)) return [low];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);

  const ticks = [];
  for (let place = Math.ceil(low / step); place * step <= high * (1 + 1e-9) && ticks.length < 50; place += 1) {
    ticks.push(Number((place * step).toPrecision(12)));
  }
  return ticks;
}

/** Powers of ten between two positive limits; where there are fewer than two, also 2 and 5 times them. */
function logTicks(low, high) {
  const between = (factors) => {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
      for (const factor of factors) ticks.push(Number((factor * 10 ** power).toPrecision(6)));
    }
    return ticks.filter((tick) => tick >= low && tick <= high);
  };
  const powers = between([1]);
  return powers.length >= 2 ? powers : between([1, 2, 5]);
}

/** True if positive numbers span so many powers of ten that only a logarithmic axis shows them. */
function wantsLog(numbers) {
  const finite = numbers.filter(Number.isFinite);
  const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  return finite.length > 1 && low > 0 && high / low >= 50;
}

/** Settings that are not the same in all of these runs. */
function differences(runs, columns) {
  return columns.filter((column) => {
    const first = column.values[runs[0]];
    return runs.some((run) => column.values[run] !== first && !(Number.isNaN(first) && Number.isNaN(column.values[run])));
  });
}

/** The view that the hash of an address describes: names and values, all texts. */
function readHash(hash) {
  return Object.fromEntries(new URLSearchParams(hash.replace(/^#/, "")));
}

/** The number that a part of the view stands for, within limits; `otherwise` where it is none. */
function readWithin(text, low, high, otherwise) {
  const number = readNumber(text ?? "");
  return Number.isFinite(number) ? Math.min(high, Math.max(low, number)) : otherwise;
}

/** The limits that a part of the view stands for, as in 0.5_20, or null. */
function readRange(text) {
  const limits = (text ?? "").split("_").map(readNumber);
  return limits.length === 2 && limits.every(Number.isFinite) && limits[0] < limits[1] ? limits : null;
}

/** The names that a part of the view lists, or null. Whoever sends an address may have broken it. */
function readNames(text) {
  try {
    const names = JSON.parse(text || "null");
    return Array.isArray(names) ? names : null;
  } catch {
    return null;
  }
}

/** The view as the address's hash, without what is empty. */
function writeHash(view) {
  const parts = Object.entries(view).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return `#${new URLSearchParams(parts)}`;
}
