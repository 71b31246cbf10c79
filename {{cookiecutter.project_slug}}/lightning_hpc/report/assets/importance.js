"use strict";
// Which settings matter for a metric? Two answers, since each can be wrong: a trend up or down, and differences of means.

const MOST_GROUPS = 5; // numbers are put into so many groups of about the same size
const FEW_RUNS = 20; // below, neither method says anything that can be relied on

/** Ranks of values, 0 for the smallest; equal ones share the mean of theirs. */
function ranks(values) {
  const order = values.map((_, place) => place).sort((a, b) => values[a] - values[b]);
  const result = new Array(values.length);
  for (let first = 0; first < order.length; ) {
    let last = first;
    while (last + 1 < order.length && values[order[last + 1]] === values[order[first]]) last += 1;
    for (let place = first; place <= last; place += 1) result[order[place]] = (first + last) / 2;
    first = last + 1;
  }
  return result;
}

/** Spearman's rank correlation, between −1 and 1; NaN if one of the two never changes. */
function rankCorrelation(xs, ys) {
  const [left, right] = [ranks(xs), ranks(ys)];
  const middle = (xs.length - 1) / 2;
  let [product, leftSquares, rightSquares] = [0, 0, 0];
  left.forEach((rank, place) => {
    product += (rank - middle) * (right[place] - middle);
    leftSquares += (rank - middle) ** 2;
    rightSquares += (right[place] - middle) ** 2;
  });
  return product / Math.sqrt(leftSquares * rightSquares);
}

/** The group of each setting's value: texts are their own groups, many numbers are cut into MOST_GROUPS. */
function groupsOf(values) {
  const areNumbers = values.every((value) => typeof value === "number");
  if (!areNumbers || new Set(values).size <= MOST_GROUPS) return values.map(String);
  return ranks(values).map((rank) => String(Math.floor((rank / values.length) * MOST_GROUPS)));
}

/**
 * The share of a metric's variance that the groups' means explain: omega squared of a one-way analysis of variance
 * (Hays 1963), which is about 0 for a setting that does nothing, however many groups there are. NaN if it can't be said.
 */
function explainedVariance(groups, ys) {
  const members = new Map();
  groups.forEach((group, place) => {
    if (!members.has(group)) members.set(group, []);
    members.get(group).push(ys[place]);
  });
  const freedom = members.size - 1;
  if (freedom < 1 || ys.length <= members.size) return NaN;

  const mean = ys.reduce((sum, y) => sum + y, 0) / ys.length;
  let [between, within] = [0, 0];
  for (const values of members.values()) {
    const own = values.reduce((sum, y) => sum + y, 0) / values.length;
    between += values.length * (own - mean) ** 2;
    within += values.reduce((sum, y) => sum + (y - own) ** 2, 0);
  }
  const noise = within / (ys.length - members.size);
  if (between + within === 0) return NaN;
  return Math.max(0, (between - freedom * noise) / (between + within + noise));
}

/**
 * How much each setting matters, the most important first.
 * Returns [{column, n, correlation, explained}]; n counts the runs that have both the setting and the metric.
 */
function importance(runs, settings, metric) {
  const rows = [];
  for (const column of settings) {
    const usable = runs.filter((run) => column.values[run] !== null && Number.isFinite(metric.values[run]));
    const xs = usable.map((run) => column.values[run]);
    if (new Set(xs).size < 2) continue;

    const ys = usable.map((run) => metric.values[run]);
    const areNumbers = xs.every((value) => typeof value === "number");
    rows.push({
      column,
      n: usable.length,
      correlation: areNumbers ? rankCorrelation(xs, ys) : NaN,
      explained: explainedVariance(groupsOf(xs), ys),
    });
  }
  const size = (row) => Math.max(Math.abs(row.correlation) || 0, row.explained || 0);
  return rows.sort((a, b) => size(b) - size(a));
}
