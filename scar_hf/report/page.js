"use strict";
const report = JSON.parse(document.getElementById("data").textContent);
const { counts, style, groups, lengths, examples } = report;
const at = (id) => document.getElementById(id);
const whole = (n) => n.toLocaleString("en-US");
const percent = (x, digits = 1) => (x === null ? "–" : `${(100 * x).toFixed(digits)} %`);
function signed(x) {
  if (x === null) return "–";
  const shown = Number((100 * x).toFixed(1)) || 0; // no "-0.0"
  return `${shown > 0 ? "+" : ""}${shown.toFixed(1)}\u00a0%`; // no line break before the sign
}

function short(x) {
  if (x === null || x === undefined) return "–";
  const size = Math.abs(x);
  return size >= 100 || (Number.isInteger(x) && x) ? whole(Math.round(x)) : x.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

// Text of the data reaches the page here alone, and as text.
function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (name) element.className = name;
  return element;
}

function put(id, text) {
  at(id).textContent = text;
}

// A table whose columns are {title, value(row)} and, where wanted, num, head, name, sort and cell(row).
function table(place, columns, rows) {
  const element = make("table");
  const head = element.createTHead().insertRow();
  const body = element.createTBody();
  let shown = rows, order = null;
  for (const column of columns) {
    const th = make("th", column.sort ? undefined : column.title, column.num ? "num" : "");
    th.scope = "col";
    if (column.sort) {
      const button = make("button", column.title);
      button.type = "button";
      button.addEventListener("click", () => {
        const down = th.getAttribute("aria-sort") === "ascending";
        for (const other of head.cells) other.removeAttribute("aria-sort");
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        order = { value: column.value, direction: down ? -1 : 1 };
        fill(shown);
      });
      th.append(button);
    }
    head.append(th);
  }
  function fill(next) {
    shown = next;
    const rows = order === null ? next : sorted(next, order.value, order.direction);
    body.replaceChildren(...rows.map((row) => {
      const tr = make("tr");
      for (const column of columns) {
        const cell = make(column.head ? "th" : "td", undefined, column.name || (column.num ? "num" : ""));
        if (column.head) cell.scope = "row";
        cell.dataset.title = column.title;
        cell.append(column.cell ? column.cell(row) : String(column.value(row) ?? "–"));
        tr.append(cell);
      }
      return tr;
    }));
  }
  fill(rows);
  place.append(element);
  return { fill };
}

// Rows without a value come last, whichever way the others go.
function sorted(rows, value, direction) {
  return rows.slice().sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === null || x === undefined) return y === null || y === undefined ? 0 : 1;
    if (y === null || y === undefined) return -1;
    return direction * (typeof x === "number" ? x - y : String(x).localeCompare(String(y)));
  });
}

const measures = Object.entries(style.measures).map(([name, m]) => ({ name, ...m }));
const known = measures.filter((m) => m.spread_change !== null);
const narrower = measures.filter((m) => m.verdict === "narrower").length;
const isBeyond = (m) => m.same_lengths !== null && m.verdict === "narrower" && m.spread_change < m.same_lengths.low;
const beyond = measures.filter(isBeyond).length;
const byLength = measures.some((m) => m.same_lengths);
const wider = measures.filter((m) => m.verdict === "wider").length;

put("title", counts.rows
  ? `${whole(counts.kept)} of ${whole(counts.rows)} rows kept`
  : "No rows to select from");
put("lead", report.lead);
put("intro", report.intro.join(" "));
document.title = `${at("title").textContent} · ${report.name}`;

for (const [label, value, detail] of [
  ["Rows", whole(counts.rows), counts.skipped ? `${whole(counts.skipped)} without a score` : "all of them scored"],
  ["Kept", whole(counts.kept), counts.share === null ? "" : `${percent(counts.share)} of the rows`],
  ["Threshold", counts.threshold === null ? "–" : counts.threshold.toFixed(3), "lowest score kept"],
  ["Narrower style", known.length ? `${narrower} of ${known.length}` : "–",
    !known.length ? "nothing to compare" : byLength ? `measures; ${beyond} beyond what length explains`
      : `measures; ${wider} wider, ${known.length - narrower - wider} unclear`],
]) {
  const box = make("div");
  box.append(make("dt", label), make("dd", value), make("dd", detail));
  at("headline").append(box);
}

for (const [name, label, rows] of [
  ["kept", "kept", counts.kept],
  ["below", counts.by_score ? "scored below the threshold" : "not chosen", counts.below],
  ["curated", "left out by curation", counts.curated],
  ["skipped", "without a score", counts.skipped],
]) {
  if (!rows) continue;
  const segment = make("i", undefined, `is-${name}`);
  segment.style.flexGrow = rows;
  at("flow").append(segment);
  const item = make("li");
  item.append(make("i", undefined, `is-${name}`), make("b", whole(rows)), make("span", `${label} (${percent(rows / counts.rows)})`));
  at("flow-legend").append(item);
}
if (report.reasons.length) {
  table(at("reasons"), [
    { title: "Rows", num: true, value: (r) => whole(r.rows) },
    { title: "Outcome", value: (r) => (r.what === "skipped" ? "without a score" : "left out by curation") },
    { title: "Reason", value: (r) => r.reason },
  ], report.reasons);
  at("reasons").className = "box";
}
at("notes").append(...report.notes.map((note) => make("li", note)));

for (const [name, caption] of Object.entries(report.captions)) {
  put(`c-${name}`, caption);
  if (!at(`c-${name}`).parentElement.querySelector("svg") && at(`c-${name}`).tagName === "FIGCAPTION") {
    at(`c-${name}`).className = "empty";
  }
}

// Each change with its interval below.
function change(value, low, high, name) {
  const both = make("div");
  both.append(make("span", signed(value), name));
  if (low !== null) both.append(make("small", `${signed(low)} to ${signed(high)}`));
  return both;
}
const drawn = (title, name) => ({
  title, num: true, cell: (m) => (m[name] ? change(m[name].change, m[name].low, m[name].high) : "–"),
});
const isThere = (m) => m.mean_before !== null && (m.mean_before !== 0 || m.mean_after !== 0);
table(at("spreads"), [
  { title: "Measure", head: true, cell: (m) => {
    const title = make("span", m.title);
    title.append(make("small", m.unit));
    return title;
  } },
  { title: "Change of spread", num: true, cell: (m) => change(m.spread_change, m.low, m.high, m.verdict) },
  { title: "Verdict", cell: (m) => make("span", m.spread_change === null ? "–" : m.verdict, m.verdict) },
  ...(measures.some((m) => m.random) ? [drawn("Random draw", "random")] : []),
  ...(byLength ? [drawn("Same lengths", "same_lengths")] : []),
  { title: "Spread before → after", num: true, value: (m) => `${short(m.spread_before)} → ${short(m.spread_after)}` },
  { title: "Mean before → after", num: true, value: (m) => `${short(m.mean_before)} → ${short(m.mean_after)}` },
], measures.filter(isThere));
const absent = measures.filter((m) => !isThere(m)).map((m) => m.title);
if (absent.length) put("absent", `Not found in these rows: ${absent.join(", ")}.`);

function pair(row) {
  const details = make("details");
  const summary = make("summary");
  summary.dir = "auto";
  summary.append(make("b", row.instruction.slice(0, 90) + (row.instruction.length > 90 ? "…" : "")));
  summary.append(make("br"), row.response.slice(0, 150) + (row.response.length > 150 ? "…" : ""));
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    for (const text of [row.instruction, row.response]) {
      const p = make("p", text);
      p.dir = "auto";
      details.append(p);
    }
    if (row.truncated) details.append(make("p", "(shortened for this page)", "caption"));
  });
  return details;
}

function decision(row) {
  const both = make("div");
  both.append(make("span", row.decision, `tag tag-${row.decision}`), make("p", row.reason));
  return both;
}

const shownMeasures = report.example_measures;
const examplesTable = table(at("examples"), [
  { title: "Rank", num: true, sort: true, value: (r) => r.rank, cell: (r) => (r.rank === null ? "–" : whole(r.rank)) },
  { title: "Score", num: true, sort: true, value: (r) => r.score, cell: (r) => (r.score === null ? "–" : r.score.toFixed(3)) },
  { title: "Instruction and response", name: "text", cell: pair },
  { title: "Decision and reason", name: "reason", sort: true, value: (r) => r.decision, cell: decision },
  ...(report.group_by === null ? [] : [{ title: report.group_by, name: "group", sort: true, value: (r) => r.group }]),
  ...shownMeasures.map((m) => ({
    title: m.title, num: true, sort: true, value: (r) => r.measures[m.name], cell: (r) => short(r.measures[m.name]),
  })),
  { title: "Row", num: true, sort: true, value: (r) => r.row, cell: (r) => whole(r.row) },
], examples);

const haystack = new Map(examples.map((r) => [r, [r.instruction, r.response, r.group, r.decision, r.reason].join("\n").toLowerCase()]));
for (const decision of new Set(examples.map((r) => r.decision))) {
  const option = make("option", decision);
  option.value = decision;
  at("filter").append(option);
}
function search() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const decision = at("filter").value;
  const rows = examples.filter((r) => (!decision || r.decision === decision) && words.every((w) => haystack.get(r).includes(w)));
  examplesTable.fill(rows);
  put("found", `${whole(rows.length)} of ${whole(examples.length)} examples`);
}
at("search").addEventListener("input", search);
at("filter").addEventListener("change", search);
search();

for (const command of report.commands) {
  const block = make("pre", command, "code");
  block.tabIndex = 0;
  at("commands").append(block);
}
put("manifest", JSON.stringify(report.manifest, null, 2));
put("foot", report.foot);

const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  const isDark = (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  at("theme").textContent = isDark ? "Light" : "Dark";
  at("theme").setAttribute("aria-label", isDark ? "Switch to light colours" : "Switch to dark colours");
  return isDark;
}
at("theme").addEventListener("click", () => theme(theme() ? "light" : "dark"));
dark.addEventListener("change", () => theme());
theme();
