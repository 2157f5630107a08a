"use strict";
// The page without a network: a table of episodes to filter, sort and open; every table as CSV, every figure as SVG; light and dark.
const element = (name, text = "", attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const download = (name, text, kind) => {
  const link = element("a", "", { href: URL.createObjectURL(new Blob([text], { type: kind })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
};
const cellOfCsv = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const csvOf = (rows) => rows.map((row) => row.map((cell) => cellOfCsv(String(cell ?? ""))).join(",")).join("\r\n") + "\r\n";

function explore(box) {
  const data = JSON.parse(document.getElementById(box.dataset.explorer).textContent);
  const columns = ["episode", "task", "condition", "outcome", "type", "onset", "steps", "alarm", "lead", ...data.arms];
  const cell = (row, column) => (data.arms.includes(column) ? row.arms[column] ?? "" : row[column] ?? "");
  const state = { by: "episode", down: false };
  const [head, body] = [box.querySelector("thead"), box.querySelector("tbody")];
  const [search, selects, status] = [box.querySelector("input"), [...box.querySelectorAll("select")], box.querySelector("[role=status]")];
  for (const select of selects) {
    const values = new Set(data.episodes.map((row) => cell(row, select.dataset.column)));
    for (const value of [...values].filter(Boolean).sort()) select.append(element("option", value, { value }));
  }
  const wanted = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = data.episodes.filter((row) => {
      const text = columns.map((column) => cell(row, column)).join(" ").toLowerCase() + " " + row.instruction.toLowerCase();
      return words.every((word) => text.includes(word)) && selects.every((s) => !s.value || cell(row, s.dataset.column) === s.value);
    });
    const key = (row) => cell(row, state.by);
    const order = (a, b) => (key(a) === "") - (key(b) === "") || (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (state.down ? -1 : 1);
    return rows.sort(order);
  };
  const heads = element("tr");
  for (const column of columns) {
    const button = element("button", column.replaceAll("_", " "), { type: "button" });
    button.onclick = () => { state.down = state.by === column && !state.down; state.by = column; draw(); };
    const th = element("th", "", { scope: "col", "data-column": column });
    th.append(button);
    heads.append(th);
  }
  head.append(heads);
  const open = (row, tr) => {
    if (tr.nextSibling?.classList?.contains("detail")) { tr.nextSibling.remove(); tr.setAttribute("aria-expanded", "false"); return; }
    const detail = element("tr", "", { class: "detail" });
    const td = element("td", "", { colspan: columns.length });
    const said = row.alarm === null ? "no alarm" : `alarm at step ${row.alarm}`;
    td.append(element("p", `“${row.instruction}” · ${row.condition} · ${row.outcome} ${row.type} · ${said}`), curve(row, data.threshold));
    td.append(element("code", `failsight view test --episode ${row.episode} --bundle bundle`));
    detail.append(td);
    tr.after(detail);
    tr.setAttribute("aria-expanded", "true");
  };
  const draw = () => {
    const rows = wanted();
    for (const th of heads.children) th.setAttribute("aria-sort", th.dataset.column !== state.by ? "none" : state.down ? "descending" : "ascending");
    body.replaceChildren(...rows.map((row) => {
      const tr = element("tr", "", { tabindex: 0, "aria-expanded": "false" });
      for (const column of columns) tr.append(element("td", String(cell(row, column)), { class: `is-${cell(row, column)}` }));
      tr.onclick = () => open(row, tr);
      tr.onkeydown = (event) => { if (event.key === "Enter") open(row, tr); };
      return tr;
    }));
    status.textContent = `${rows.length} of ${data.episodes.length} episodes`;
  };
  search.oninput = draw;
  for (const select of selects) select.onchange = draw;
  box.csv = () => csvOf([columns, ...wanted().map((row) => columns.map((column) => cell(row, column)))]);
  draw();
}

function curve(row, threshold) {
  const [width, height, steps] = [900, 150, Math.max(row.p_fail.length - 1, 1)];
  const [x, y] = [(step) => 36 + ((width - 46) * step) / steps, (value) => 10 + (height - 34) * (1 - value)];
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const add = (name, attributes, text = "") => {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    svg.append(made);
  };
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `p_fail of episode ${row.episode} over ${row.p_fail.length} steps`);
  for (const value of [0, 0.5, 1]) add("text", { x: 2, y: y(value) + 4, class: "tick" }, value);
  for (const step of [0, Math.round(steps / 2), steps]) add("text", { x: x(step) - 8, y: height - 4, class: "tick" }, step);
  if (threshold !== null) add("line", { x1: x(0), x2: x(steps), y1: y(threshold), y2: y(threshold), class: "limit" });
  let path = "", pen = "M";
  row.p_fail.forEach((value, step) => {
    if (value === null) { pen = "M"; return; }
    path += `${pen}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  });
  add("path", { d: path, class: "risk" });
  for (const [name, step] of [["alarm", row.alarm], ["onset", row.onset]]) {
    if (step === null) continue;
    add("line", { x1: x(step), x2: x(step), y1: y(1), y2: y(0), class: name });
    add("text", { x: x(step) + 3, y: name === "alarm" ? 18 : 32, class: "tick" }, name);
  }
  return svg;
}

function offerFiles() {
  const named = (node) => (node.closest(".card")?.querySelector("h3") ?? document.querySelector("h1")).textContent.trim().replace(/\W+/g, "-").toLowerCase();
  for (const table of document.querySelectorAll("main table")) {
    const box = table.closest("[data-explorer]");
    const button = element("button", "CSV", { type: "button", class: "file", title: "this table as CSV" });
    button.onclick = () => {
      const shown = [...table.rows].map((row) => [...row.cells].map((c) => c.innerText.replace(/\s+/g, " ").trim()));
      download(`${box ? "episodes" : named(table)}.csv`, box ? box.csv() : csvOf(shown), "text/csv");
    };
    (table.closest(".scroll") ?? table).before(button);
  }
  for (const svg of document.querySelectorAll("main .card > svg")) {
    const button = element("button", "SVG", { type: "button", class: "file", title: "this figure as SVG" });
    button.onclick = () => download(`${named(svg)}.svg`, new XMLSerializer().serializeToString(svg), "image/svg+xml");
    svg.before(button);
  }
}

function contents() {
  const list = document.querySelector("nav.contents");
  for (const [place, head] of [...document.querySelectorAll("main h2")].entries()) {
    head.id = head.id || `part-${place}`;
    list.append(element("a", head.textContent, { href: `#${head.id}` }));
  }
  const button = element("button", "dark / light", { type: "button", class: "theme" });
  const root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  button.onclick = () => { root.dataset.theme = dark() ? "light" : "dark"; };
  list.append(button);
}

contents();
document.querySelectorAll("[data-explorer]").forEach(explore);
offerFiles();
