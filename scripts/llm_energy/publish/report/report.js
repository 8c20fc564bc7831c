"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const CHUNK = 60; // rows that a table shows at first, and adds each time its end is scrolled into view

  // Text only ever enters the page as text nodes and attributes: nothing is parsed as HTML.
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }
  const badge = (word) => make("span", { class: `badge ${word}` }, word);
  // So many significant digits, zeros at the end included and never with an exponent.
  const digits = (value, count = 3) => {
    if (!value) return value === null ? "–" : "0";
    const [, power] = value.toExponential(count - 1).split("e");
    return Number(value.toPrecision(count)).toFixed(Math.max(0, count - 1 - power));
  };
  const unique = (values) => [...new Set(values)];
  const clamped = (text) => make("span", { class: "clamped", title: text.length > 120 ? text : null }, text);
  const link = (cell, text) => make("a", { href: `#cell=${encodeURIComponent(cell)}` }, text);

  // tables

  function compare(one, other) {
    if (one === other) return 0;
    if (one === null || one === undefined || one === "") return 2; // what is absent stands last
    if (other === null || other === undefined || other === "") return -2;
    return typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one).localeCompare(String(other), "en", { numeric: true });
  }

  // A column has `head`, `value` (what is sorted by) and may have `show` (what is seen) and `number`.
  function table(host, { label, columns, rows, sortBy = null, long = false }) {
    const body = make("tbody");
    const heads = columns.map((column, index) =>
      make("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": "none" },
        make("button", { type: "button", onclick: () => sort(index) }, column.head)));
    const more = make("button", { type: "button", class: "more", onclick: () => grow(Infinity) });
    let shown = [], ascending = true, sorted = null, drawn = 0, current = rows;

    function row(record) {
      return make("tr", {}, ...columns.map((column, index) => {
        const seen = column.show ? column.show(record) : (column.value(record) ?? "–");
        const attributes = { class: column.number ? "number" : column.words ? "words" : null };
        return index === 0 ? make("th", { scope: "row", ...attributes }, seen) : make("td", attributes, seen);
      }));
    }
    function grow(count) {
      const end = Math.min(shown.length, drawn + count);
      body.append(...shown.slice(drawn, end).map(row));
      drawn = end;
      more.hidden = drawn === shown.length;
      more.textContent = `Show all ${shown.length} rows`;
    }
    function draw() {
      shown = [...current];
      if (sorted !== null) {
        const { value } = columns[sorted];
        shown.sort((one, other) => {
          const order = compare(value(one), value(other));
          return Math.abs(order) === 2 || ascending ? order : -order;
        });
      }
      body.replaceChildren();
      drawn = 0;
      grow(CHUNK);
    }
    function sort(index) {
      ascending = sorted === index ? !ascending : true;
      sorted = index;
      heads.forEach((head, k) =>
        head.setAttribute("aria-sort", k !== index ? "none" : ascending ? "ascending" : "descending"));
      draw();
    }
    const scroll = make("div", { class: long ? "scroll long" : "scroll", tabindex: "0", role: "region", "aria-label": label },
      make("table", { "aria-label": label }, make("thead", {}, make("tr", {}, ...heads)), body));
    host.replaceChildren(scroll, more);
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && drawn && grow(CHUNK * 3))
      .observe(more);
    if (long) {
      scroll.addEventListener("scroll", () => {
        if (scroll.scrollTop + scroll.clientHeight > scroll.scrollHeight - 200 && drawn < shown.length) grow(CHUNK);
      });
    }
    addEventListener("beforeprint", () => grow(1000));
    if (sortBy !== null) sort(sortBy); else draw();
    return { show(rows) { current = rows; draw(); } };
  }

  // A filter is a text field for words and a list for each field of several values.
  function filters(host, { records, fields, text, noun, changed }) {
    const words = make("input", { type: "search", placeholder: "words", oninput: () => apply() });
    const lists = fields
      .map(([name, title]) => [name, title, unique(records.map((r) => r[name])).filter((v) => v !== null && v !== "")])
      .filter(([, , values]) => values.length > 1)
      .map(([name, title, values]) => {
        const list = make("select", { onchange: () => apply() }, make("option", { value: "" }, "all"),
          ...values.map((value) => make("option", { value }, String(value))));
        host.append(make("label", {}, title, list));
        return [name, list];
      });
    host.prepend(make("label", {}, "Find", words));
    const count = make("output", { "aria-live": "polite" });
    host.append(count);
    function apply() {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const left = records.filter((record) =>
        lists.every(([name, list]) => !list.value || String(record[name]) === list.value) &&
        (!wanted.length || ((all) => wanted.every((word) => all.includes(word)))(text(record).toLowerCase())));
      count.textContent = left.length === records.length
        ? `${records.length} ${noun}` : `${left.length} of ${records.length} ${noun}`;
      changed(left);
    }
    apply();
  }

  // results

  const several = (name) => unique(data.rows.map((r) => r[name])).length > 1;
  const parts = (row) => (row.n ? badge(row.status) : badge(row.outcome));
  const resultColumns = [
    { head: "Cell", value: (r) => r.cell, show: (r) => link(r.cell, shortName(r)) },
    { head: "Workload", value: (r) => r.workload },
    { head: "Batch", number: true, value: (r) => r.batch },
    { head: data.heads.energy_per_output_token_j, number: true, value: (r) => r.e, show: (r) => (r.n ? r.gross : r.outcome) },
    { head: data.heads.net_energy_per_output_token_j, number: true, value: (r) => r.net_j, show: (r) => r.net },
    { head: data.heads.energy_per_request_j, number: true, value: (r) => r.request_j, show: (r) => r.request },
    { head: data.heads.output_tokens_per_s, number: true, value: (r) => r.tps, show: (r) => r.rate },
    { head: data.heads.service_ttft_s, number: true, value: (r) => r.ttft, show: (r) => r.ttft_text },
    { head: data.heads.e2e_latency_s, number: true, value: (r) => r.e2e, show: (r) => r.e2e_text },
    { head: "n", number: true, value: (r) => r.n },
    { head: "Energy", value: (r) => r.status, show: parts },
    { head: "Of", value: (r) => r.components },
    { head: "Remarks", words: true, value: remarks, show: (r) => clamped(remarks(r)) },
  ];
  function shortName(row) {
    const names = ["model", "backend"].filter(several).map((name) => row[name]);
    return [...names, row.precision].join(" ");
  }
  function remarks(row) {
    const told = [];
    if (row.reason) told.push(row.reason);
    if (row.degraded) told.push(row.degraded);
    if (row.excluded) told.push(`${row.excluded} left out`);
    told.push(...row.outliers);
    if (row.flags.length) told.push(row.flags.join(" "));
    return told.join("; ");
  }

  // windows

  const { names, columns } = data.windows;
  const windows = columns.cell.map((_, k) => ({
    cell: names[columns.cell[k]],
    workload: names[columns.workload[k]],
    repeat: columns.repeat[k],
    verdict: names[columns.verdict[k]],
    outcome: names[columns.outcome[k]],
    status: names[columns.status[k]],
    e: columns.e[k],
    power: columns.power_w[k],
    duration: columns.duration_s[k],
    tps: columns.tps[k],
    hash: columns.hash[k],
    flags: columns.flags[k],
  }));
  const means = new Map(data.rows.filter((r) => r.n).map((r) => [`${r.cell} ${r.workload} ${r.status}`, r.e]));
  const scatter = windows
    .filter((w) => w.e !== null && means.has(`${w.cell} ${w.workload} ${w.status}`))
    .map((w, k) => ({
      ...w,
      off: 100 * (w.e / means.get(`${w.cell} ${w.workload} ${w.status}`) - 1),
      jitter: (k * 7) % 20, // spreads the points of one repeat, the same way each time
    }));
  const windowColumns = [
    { head: "Cell", value: (w) => w.cell, show: (w) => link(w.cell, w.cell.replaceAll("--", " ")) },
    { head: "Workload", value: (w) => w.workload },
    { head: "Repeat", number: true, value: (w) => w.repeat },
    { head: "Verdict", value: (w) => w.verdict, show: (w) => badge(w.verdict) },
    { head: data.heads.energy_per_output_token_j, number: true, value: (w) => w.e, show: (w) => digits(w.e) },
    { head: data.heads.mean_power_w, number: true, value: (w) => w.power, show: (w) => digits(w.power) },
    { head: data.heads.duration_s, number: true, value: (w) => w.duration, show: (w) => digits(w.duration) },
    { head: data.heads.output_tokens_per_s, number: true, value: (w) => w.tps, show: (w) => digits(w.tps) },
    { head: "Energy", value: (w) => w.status },
    { head: "Found", words: true, value: found, show: (w) => clamped(found(w)) },
  ];
  function found(window) {
    const told = unique(window.flags.map((k) => data.flags[k].id)).join(" ");
    return window.outcome.startsWith("ok") ? told : `${window.outcome} ${told}`.trim();
  }

  // plots

  const views = new Map();
  const MOST_PLOTTED = 500; // of more, those of lowest energy: thousands of marks hide each other and take seconds
  const plotted = (rows) => rows.filter((r) => r.e !== null).sort((a, b) => a.e - b.e).slice(0, MOST_PLOTTED);
  let drawnRows = plotted(data.rows);
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const config = () => ({
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { labelColor: colour("--soft"), titleColor: colour("--ink"), gridColor: colour("--line"),
            domainColor: colour("--soft"), tickColor: colour("--soft"), titleFontWeight: 500 },
    legend: { labelColor: colour("--ink"), titleColor: colour("--soft"), orient: "top", titleFontWeight: 500 },
    text: { color: colour("--ink") },
    rule: { color: colour("--ink") },
  });
  function plotData(name) {
    const left = new Set(drawnRows.map((r) => `${r.cell} ${r.workload}`));
    const inside = (one) => left.has(`${one.cell} ${one.workload}`);
    return name === "components" ? { parts: data.parts.filter(inside) }
      : ["requests", "lengths"].includes(name) ? { [name]: data[name].filter(inside) }
      : name === "repeats" ? { windows: scatter.filter(inside) }
      : { rows: drawnRows };
  }
  async function embed(host, spec, datasets, onclick) {
    const many = Object.values(datasets).some((rows) => rows.length > 1500);
    const coloured = root.dataset.theme === "dark" ? JSON.parse(JSON.stringify(spec).replaceAll("#0072B2", "#3E97DA")) : spec;
    const result = await window.vegaEmbed(host, { ...coloured, datasets, config: config() }, {
      actions: false, ast: true, renderer: many ? "canvas" : "svg", tooltip: { theme: root.dataset.theme },
    });
    if (onclick) result.view.addEventListener("click", onclick);
    return result;
  }
  async function drawPlot(figure) {
    const name = figure.dataset.plot;
    figure.dataset.drawn = "begun";
    views.get(name)?.finalize();
    views.set(name, await embed(figure.querySelector(".plot"), data.specs[name], plotData(name),
      (event, item) => item?.datum?.cell && (location.hash = `#cell=${encodeURIComponent(item.datum.cell)}`)));
    figure.dataset.drawn = "yes";
  }
  const figures = [...document.querySelectorAll("figure[data-plot]")];
  async function drawPlots() {
    // Of a large sweep each plot takes a while, so it is drawn when it comes into view.
    for (const figure of figures) if (!data.large || figure.dataset.drawn === "yes") await drawPlot(figure);
    for (const figure of figures) if (!figure.dataset.drawn) coming.observe(figure);
  }
  const coming = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) {
      if (isIntersecting && !target.dataset.drawn) { coming.unobserve(target); drawPlot(target); }
    }
  }, { rootMargin: "200px" });
  async function refreshPlots() {
    for (const [name, { view }] of views) {
      for (const [set, rows] of Object.entries(plotData(name))) view.data(set, rows);
      await view.resize().runAsync();
    }
  }

  // the page of a cell

  const page = document.getElementById("cell"), main = document.getElementById("main");
  let cellView = null;
  function section(title, ...children) {
    return make("section", {}, make("h2", {}, title), ...children);
  }
  function pairs(rows) {
    return make("table", { class: "plain" }, make("tbody", {}, ...rows.map(([title, text]) =>
      make("tr", {}, make("th", { scope: "row" }, title),
        make("td", {}, text.length > 300 ? make("details", {}, make("summary", {}, `${text.slice(0, 80)}…`), text) : text)))));
  }
  function findings(own) {
    const checks = new Map(); // by check and severity: its flags, each with the windows that carry it
    for (const window of own) {
      for (const k of window.flags) {
        const { id, severity } = data.flags[k], key = `${severity} ${id}`;
        if (!checks.has(key)) checks.set(key, new Map());
        const places = checks.get(key);
        places.set(k, [...(places.get(k) ?? []), `${window.workload} repeat ${window.repeat}`]);
      }
    }
    if (!checks.size) return [make("p", {}, "No check found anything.")];
    const first = (texts, most) =>
      texts.slice(0, most).join(", ") + (texts.length > most ? ` and ${texts.length - most} more` : "");
    return [...checks.values()].map((places) => {
      const flag = data.flags[places.keys().next().value];
      return make("div", { class: `finding ${flag.severity}` },
        make("p", {}, badge(flag.severity), ` ${flag.id}: ${data.checks[flag.id] ?? ""}`),
        make("p", {}, `What to do: ${flag.advice}`),
        make("details", {}, make("summary", {}, `Evidence in ${unique([...places.values()].flat()).length} windows`),
          make("ul", {}, ...[...places].map(([k, at]) =>
            make("li", {}, `${first(unique(at), 8)}: ${data.flags[k].evidence || "none recorded"}`)))));
    });
  }
  async function showCell(id) {
    const cell = data.cells[id];
    page.replaceChildren();
    if (!cell) {
      page.append(make("p", {}, make("a", { href: "#results" }, "All results")), make("h1", {}, `There is no cell ${id}`));
      return;
    }
    const own = windows.filter((w) => w.cell === id);
    const results = make("div"), repeats = make("div"), plot = make("div", { class: "plot" });
    const what = [cell.model_name, `${cell.precision} on ${cell.backend}`].filter(Boolean).join(", ");
    page.append(
      make("p", {}, make("a", { href: "#results" }, "All results")),
      make("h1", {}, id.replaceAll("--", " · ")),
      make("p", {}, what),
      ...(cell.reason ? [make("p", { class: "banner" }, `${cell.planned}: ${cell.reason}`)] : []),
      section("Results", results));
    table(results, { label: `Results of ${id}`, columns: resultColumns.slice(1), rows: data.rows.filter((r) => r.cell === id) });
    if (cell.stretches) {
      page.append(section("Timeline",
        make("figure", { id: "timeline" },
          make("figcaption", {}, `Repeat ${cell.shown_repeat}: the mean power of all that was metered, by stretch` +
            (cell.trace.length ? ", and the sampled power of the GPUs" + (cell.trace_step_s ? ` (means over ${digits(cell.trace_step_s, 2)} s).` : ".")
              : `. No sampled power: ${cell.trace_reason}.`)),
          plot)));
    }
    page.append(section("Checks", ...findings(own)), section("Repeats", repeats));
    table(repeats, { label: `Repeats of ${id}`, columns: windowColumns.slice(1), rows: own });
    if (cell.workloads) {
      const requests = make("div");
      page.append(section("What was asked",
        ...(cell.notes.length ? [make("ul", {}, ...cell.notes.map((note) => make("li", {}, note)))] : []),
        ...cell.workloads.map((w) => make("details", {}, make("summary", {}, `${w.id}: ${w.requests} requests`),
          make("pre", {}, JSON.stringify(w.parameters, null, 1)))),
        make("h3", {}, "The first requests of each workload"), requests));
      table(requests, { label: "First requests", rows: cell.requests, columns: [
        { head: "Workload", value: (r) => r[0] },
        { head: "Prompt", value: (r) => r[1] },
        { head: "Prompt tokens", number: true, value: (r) => r[2] },
        { head: "Output tokens", number: true, value: (r) => r[3] },
        { head: "Ended by", value: (r) => r[4] },
      ] });
    }
    const hashes = new Map(own.map((w) => [w.repeat, w.hash]));
    page.append(section("Provenance",
      ...(cell.provenance ? [make("p", { class: "aside" }, `Of repeat ${cell.shown_repeat}.`), pairs(cell.provenance)] : []),
      make("h3", {}, "Measurements"),
      pairs(Object.entries(cell.files).map(([repeat, path]) =>
        [repeat, `${path}  SHA-256 ${hashes.get(Number(repeat.slice(1))) || "–"}…`]))));
    if (cell.stretches && window.vegaEmbed) {
      const layer = data.timeline.layer.filter((one) => cell.trace.length || one.data.name !== "trace");
      cellView = await embed(plot, { ...data.timeline, layer }, {
        stretches: cell.stretches, trace: cell.trace.map(([t, w]) => ({ t, w })),
      });
      page.dataset.drawn = id;
    }
  }
  async function route() {
    const wanted = new URLSearchParams(location.hash.slice(1)).get("cell");
    cellView?.finalize();
    cellView = null;
    main.hidden = wanted !== null;
    page.hidden = wanted === null;
    document.title = `${wanted ?? data.sweep}: what inference costs`;
    if (wanted === null) {
      const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
      if (target) target.scrollIntoView();
      return;
    }
    scrollTo(0, 0);
    await showCell(wanted);
    page.focus({ preventScroll: true });
  }

  // the theme

  const button = document.getElementById("theme"), system = matchMedia("(prefers-color-scheme: dark)");
  function remembered() {
    try { return localStorage.getItem("theme"); } catch { return null; } // refused to some local files
  }
  function setTheme(theme) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
  }
  async function redraw() {
    await drawPlots();
    if (cellView) await route();
  }
  setTheme(remembered() ?? (system.matches ? "dark" : "light"));
  button.addEventListener("click", () => {
    setTheme(root.dataset.theme === "dark" ? "light" : "dark");
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* then it is not remembered */ }
    redraw();
  });
  system.addEventListener("change", () => { if (!remembered()) { setTheme(system.matches ? "dark" : "light"); redraw(); } });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

  // put it together

  const hidden = new Set(["Batch"].filter(() => !several("batch")).concat(several("components") ? [] : ["Of"]));
  const results = table(document.getElementById("result-table"), {
    label: "Results by cell and workload", sortBy: 3, rows: [],
    columns: resultColumns.filter((column) => !hidden.has(column.head)),
  });
  filters(document.getElementById("result-filters"), {
    records: data.rows, noun: "rows",
    fields: [["model", "Model"], ["backend", "Backend"], ["precision", "Precision"], ["workload", "Workload"], ["status", "Energy"]],
    text: (r) => [r.cell, r.model, r.workload, r.batching, r.outcome, r.status, r.components, remarks(r)].join(" "),
    changed(left) {
      results.show(left);
      drawnRows = plotted(left);
      refreshPlots();
    },
  });
  if (data.comparisons.length) {
    const compared = table(document.getElementById("comparison-table"), {
      label: "Every pair", rows: [], long: true,
      columns: [
        { head: "Between", value: (c) => c.contrast },
        { head: "In words", words: true, value: (c) => c.verdict, show: (c) => make("span", {}, c.verdict,
          ...c.differs.map((text) => make("span", { class: "detail" }, make("br"), text)),
          c.notes.length ? make("details", {}, make("summary", {}, "notes"), ...c.notes.map((text) => make("p", {}, text))) : null) },
        { head: "Of", value: (c) => c.metric },
        { head: "Outcome", value: (c) => c.outcome },
        { head: "Pairs", number: true, value: (c) => c.n },
        { head: "Ratio", number: true, value: (c) => c.ratio, show: (c) => c.ratio_text },
        { head: "p (Holm)", number: true, value: (c) => c.p, show: (c) => (c.p === null ? "–" : c.p < 0.001 ? "< 0.001" : digits(c.p, 2)) },
        { head: "Would be seen (%)", number: true, value: (c) => c.seen, show: (c) => c.seen_text },
      ],
    });
    filters(document.getElementById("comparison-filters"), {
      records: data.comparisons, noun: "comparisons", changed: compared.show,
      fields: [["contrast", "Between"], ["metric", "Of"], ["outcome", "Outcome"]],
      text: (c) => [c.reference, c.other, c.verdict, ...c.differs, ...c.notes].join(" "),
    });
  }
  if (document.getElementById("limit-table")) {
    const percent = (share) => (share === null ? "–" : `${digits(100 * share, 2)} %`);
    table(document.getElementById("limit-table"), {
      label: "Distance from the limit", rows: data.limits, long: true,
      columns: [
        { head: "Cell", value: (l) => l.cell, show: (l) => link(l.cell, l.cell.replaceAll("--", " ")) },
        { head: "Workload", value: (l) => l.workload },
        { head: data.heads.gpu_energy_per_output_token_j, number: true, value: (l) => l.e, show: (l) => digits(l.e) },
        { head: data.heads.floor_energy_per_output_token_j, number: true, value: (l) => l.floor, show: (l) => digits(l.floor) },
        { head: "× floor", number: true, value: (l) => l.times_floor, show: (l) => digits(l.times_floor, 2) },
        { head: data.heads.roofline_energy_per_output_token_j, number: true, value: (l) => l.roofline, show: (l) => digits(l.roofline) },
        { head: "× roofline", number: true, value: (l) => l.times_roofline, show: (l) => digits(l.times_roofline, 2) },
        { head: data.heads.mbu, number: true, value: (l) => l.mbu, show: (l) => percent(l.mbu) },
        { head: data.heads.mfu, number: true, value: (l) => l.mfu, show: (l) => percent(l.mfu) },
        { head: "Remark", words: true, value: (l) => l.remark, show: (l) => clamped(l.remark ?? "") },
      ],
    });
  }
  const repeats = table(document.getElementById("window-table"), {
    label: "Every window", columns: windowColumns, rows: [], long: true,
  });
  filters(document.getElementById("window-filters"), {
    records: windows, noun: "windows", changed: repeats.show,
    fields: [["workload", "Workload"], ["repeat", "Repeat"], ["verdict", "Verdict"], ["status", "Energy"]],
    text: (w) => [w.cell, w.workload, w.outcome, found(w), w.hash].join(" "),
  });
  addEventListener("hashchange", route);
  route().then(drawPlots).then(() => { root.dataset.ready = "yes"; });
})();
