// The dashboard. Everything it shows is an answer of /query, so every view can be asked again in SQL.
"use strict";

const TEXT_CHARS = 20000;
const COLOURS = ["var(--bar)", "var(--bar2)", "#7a5fb0", "#3d8b56", "#b03a5b", "#8a7a1f"];
const $ = (id) => document.getElementById(id);

function h(tag, attributes, ...children) {
  const svg = ["svg", "rect", "path", "text", "line", "circle", "title", "g"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

// ---- Questions

let stopping = new AbortController();

async function ask(sql) {
  $("status").textContent = "asking…";
  const began = performance.now();
  try {
    const response = await fetch("query", {
      method: "POST", signal: stopping.signal,
      headers: { "content-type": "application/json" }, body: JSON.stringify({ sql }),
    });
    const answer = await response.json();
    if (response.status === 401) location.reload();
    if (!response.ok) throw new Error(answer.error.message + (answer.error.hint ? "\n" + answer.error.hint : ""));
    $("status").textContent = `${number(answer.n_rows)} rows in ${((performance.now() - began) / 1000).toFixed(2)} s`;
    return answer;
  } catch (error) {
    $("status").textContent = "";
    throw error;
  }
}

const rows = async (sql) => (await ask(sql)).rows;
const literal = (text) => `'${String(text).replaceAll("'", "''")}'`;
const name = (text) => `"${String(text).replaceAll('"', '""')}"`;
const isId = (text) => /^[0-9a-f]{32}$/.test(text);
const number = (n) => (typeof n === "number" ? n.toLocaleString("en", { maximumFractionDigits: 4 }) : n ?? "");
const megabytes = (n) => (n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`);
const link = (view, parameters) => `#/${view}?${new URLSearchParams(parameters)}`;
const percent = (n, of) => (of ? `${((100 * n) / of).toFixed(1)} %` : "");

// ---- Pieces of pages

function table(caption, columns, rows) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, h("table", {}, h("caption", {}, caption),
    h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.n && "n" }, c.title)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((c) => h("td", { class: c.n ? "n" : c.class }, c.show(row))))))));
}

function bar(n, of) {
  return h("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    h("rect", { width: Math.max((100 * n) / (of || 1), n ? 0.5 : 0), height: 8 }));
}

function bars(caption, rows, label = (row) => row.name) {
  const total = rows.reduce((sum, row) => sum + row.n, 0);
  const most = Math.max(...rows.map((row) => row.n), 1);
  return table(caption, [
    { title: "value", show: label }, { title: "rows", n: true, show: (row) => number(row.n) },
    { title: "share", n: true, show: (row) => percent(row.n, total) }, { title: "plot", show: (row) => bar(row.n, most) },
  ], rows);
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return number(value);
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  if (isId(text)) return h("a", { href: link("documents", { id: text }) }, text.slice(0, 12) + "…");
  return h("div", {}, text.length > 2000 ? text.slice(0, 2000) + "…" : text);
}

function answerTable(answer, caption) {
  return table(caption, answer.columns.map((column) => ({
    title: column.name, n: /^(U?Int|Float)/.test(column.type), class: "cell", show: (row) => cell(row[column.name]),
  })), answer.rows);
}

// Lines of points [x, y] by series.
function lines(title, series, mark) {
  const [W, H, L, B] = [720, 260, 56, 26];
  const points = series.flatMap((s) => s.points).filter((p) => p.every(Number.isFinite));
  if (!points.length) return h("p", {}, "No values yet.");
  const range = (i) => { const v = points.map((p) => p[i]); const [a, b] = [Math.min(...v), Math.max(...v)]; return a === b ? [a - 1, b + 1] : [a, b]; };
  const [[x0, x1], [y0, y1]] = [range(0), range(1)];
  const px = (x) => L + ((W - L - 8) * (x - x0)) / (x1 - x0);
  const py = (y) => H - B - ((H - B - 10) * (y - y0)) / (y1 - y0);
  const ticks = (a, b) => Array.from({ length: 5 }, (_, i) => a + ((b - a) * i) / 4);
  const short = (v) => (Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : +v.toPrecision(3));
  return h("figure", { style: undefined }, h("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: ${series.map((s) => s.name).join(", ")}` },
    ticks(y0, y1).map((y) => [h("line", { class: "axis", x1: L, x2: W - 8, y1: py(y), y2: py(y) }), h("text", { x: L - 6, y: py(y) + 4, "text-anchor": "end" }, String(short(y)))]),
    ticks(x0, x1).map((x) => h("text", { x: px(x), y: H - 8, "text-anchor": "middle" }, String(short(x)))),
    mark === undefined ? null : h("line", { x1: px(mark), x2: px(mark), y1: 10, y2: H - B, stroke: "var(--bad)", "stroke-width": 2 }),
    series.map((s, i) => h("path", { fill: "none", stroke: COLOURS[i % COLOURS.length], "stroke-width": 1.8,
      d: s.points.filter((p) => p.every(Number.isFinite)).map(([x, y], j) => `${j ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("") }))),
  h("figcaption", {}, title, series.map((s, i) => { const key = h("span", { class: "key" }); key.style.background = COLOURS[i % COLOURS.length]; return [" · ", key, s.name]; })));
}

const fact = (label, value) => h("li", {}, h("b", {}, value), h("span", {}, label));

function sqlNote(sql) {
  return h("p", {}, h("a", { href: link("sql", { q: sql }) }, "Open as SQL"));
}

// Text with every occurrence of `needles` marked.
function marked(text, needles) {
  const found = needles.filter((needle) => needle && needle.length > 1).map((needle) => needle.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!found.length) return [text];
  return text.split(new RegExp(`(${found.join("|")})`, "gi")).map((part, i) => (i % 2 ? h("mark", {}, part) : part));
}

// Words of both texts: kept, cut or added, by longest common subsequence.
function diff(left, right) {
  const cutWords = (text) => text.split(/(\s+)/).filter((word) => word).slice(0, 3000);
  const [a, b] = [cutWords(left), cutWords(right)];
  const width = b.length + 1;
  const best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      best[i * width + j] = a[i] === b[j] ? best[(i + 1) * width + j + 1] + 1 : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
  const [one, two] = [[], []];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { one.push(a[i++]); two.push(b[j++]); }
    else if (j >= b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1])) one.push(h("del", {}, a[i++]));
    else two.push(h("ins", {}, b[j++]));
  }
  return [one, two];
}

// ---- Views

async function corpus(main) {
  const manifests = await rows("select dataset, max(version) as version, last_value(rows order by version) as rows, last_value(bytes order by version) as bytes, last_value(shards order by version) as shards from manifests group by dataset order by dataset");
  main.append(h("ul", { class: "cards" }, manifests.filter((m) => !m.dataset.startsWith("runs/")).map((m) => fact(`${m.dataset}, version ${m.version}, ${megabytes(m.bytes)}`, number(m.rows)))));
  const grid = main.appendChild(h("div", { class: "columns" }));
  const part = async (title, sql, label) => {
    const box = grid.appendChild(h("section", {}));
    box.append(bars(title, await rows(sql), label), sqlNote(sql));
  };
  await part("Documents by source", "select source || ' (' || kind || ')' as name, count(*) as n from documents group by 1 order by 2 desc, 1");
  await part("Documents by language", "select coalesce(language, 'not known') as name, count(*) as n from documents group by 1 order by 2 desc, 1 limit 20");
  await part("Documents by length", "select cast(floor(log2(greatest(octet_length(text), 1))) as int) as power, count(*) as n from documents group by 1 order by 1", (row) => `≥ ${number(2 ** row.power)} B`);
  await part("Removed, by step", "select step as name, count(*) as n from dropped group by 1 order by 2 desc, 1");
  const columns = await rows("select column_name as name from information_schema.columns where table_schema = 'public' and table_name = 'documents' and (data_type like 'Float%' or data_type like '%Int%') and column_name <> 'bytes_raw' order by 1");
  if (columns.length) {
    const box = grid.appendChild(h("section", {}, h("h2", {}, "Scores and signals")));
    const choice = h("select", { id: "signal" }, columns.map((c) => h("option", {}, c.name)));
    const plot = h("div", {});
    const draw = async () => plot.replaceChildren(...await distribution(`select cast(${name(choice.value)} as double) as v from documents`));
    choice.addEventListener("change", () => draw().catch(fail));
    box.append(h("label", { for: "signal" }, "Column "), choice, plot);
    await draw();
  }
}

async function distribution(sql, mark) {
  const values = `select v from (${sql}) where v is not null and not isnan(v)`;
  const [range] = await rows(`select min(v) as low, max(v) as high, count(*) as n from (${values})`);
  if (!range.n) return [h("p", {}, "No values.")];
  const width = (range.high - range.low) / 30 || 1;
  const counted = await rows(`select cast(least(floor((v - (${range.low})) / ${width}), 29) as int) as bin, count(*) as n from (${values}) group by 1 order by 1`);
  const points = Array.from({ length: 30 }, (_, i) => [range.low + (i + 0.5) * width, counted.find((c) => c.bin === i)?.n ?? 0]);
  return [lines("rows by value", [{ name: "rows", points }], mark), sqlNote(sql)];
}

async function documents(main, parameters) {
  if (parameters.id) return document_(main, parameters.id);
  const input = h("input", { type: "search", id: "find", value: parameters.find ?? "", placeholder: "words, a URL, or an id" });
  const where = h("select", { id: "where" }, ["documents", "dropped"].map((t) => h("option", { selected: t === parameters.in }, t)));
  main.append(h("form", { class: "row", role: "search", onsubmit: (event) => {
    event.preventDefault();
    const text = input.value.trim();
    location.hash = isId(text) ? link("documents", { id: text }) : link("documents", { find: text, in: where.value });
  } }, h("label", { for: "find" }, "Find"), input, h("label", { for: "where" }, "in"), where, h("button", {}, "Search")));
  const [text, from] = [parameters.find ?? "", parameters.in === "dropped" ? "dropped" : "documents"];
  const wanted = text ? `where strpos(lower(coalesce(text, '')), lower(${literal(text)})) > 0 or strpos(coalesce(url, ''), ${literal(text)}) > 0` : "";
  const more = from === "dropped" ? "step, reason" : "language";
  const sql = `select hex(id) as id, coalesce(url, locator) as place, source, ${more}, left(text, 300) as text from ${from} ${wanted} limit 50`;
  const answer = await ask(sql);
  main.append(table(`${answer.n_rows} ${from}${answer.n_rows === 50 ? " or more" : ""}`, [
    { title: "document", class: "cell", show: (row) => h("a", { href: link("documents", { id: row.id }) }, row.place) },
    { title: "source", show: (row) => row.source },
    ...(from === "dropped" ? [{ title: "removed by", show: (row) => `${row.step}: ${row.reason}` }] : [{ title: "language", show: (row) => row.language ?? "" }]),
    { title: "text", class: "cell", show: (row) => h("div", {}, marked(row.text ?? "", [text])) },
  ], answer.rows), sqlNote(sql));
}

async function document_(main, id) {
  if (!isId(id)) throw new Error(`${id} is no id: an id is 32 hexadecimal digits`);
  const where = `where id = id_of('${id}')`;
  const [kept] = await rows(`select * from documents ${where}`);
  const [gone] = await rows(`select * from dropped ${where}`);
  const [edits, copies] = [await rows(`select step, rule, start, "end", replacement from edits ${where} order by step, start`), await rows(`select hex(id) as id, hex(kept_id) as kept_id, method, similarity, cluster_id from duplicates where id = id_of('${id}') or kept_id = id_of('${id}')`)];
  const found = kept ?? gone;
  if (!found) throw new Error(`no document and no removed document has the id ${id}`);
  const tokens = await rows(`select n_tokens from tokens where document_id = id_of('${id}')`);
  const copy = copies.find((c) => c.id === id);
  main.append(h("h2", {}, found.url ?? found.locator), h("ul", { class: "trail", "aria-label": "Lineage" }, [
    found.url && `URL ${found.url}`, `record ${found.locator}`, `source ${found.source}`,
    gone ? `removed by ${gone.step}: ${gone.reason}` : `document ${id.slice(0, 12)}…`,
    edits.length ? `${edits.length} edits` : null, copy && `copy of ${copy.kept_id.slice(0, 12)}… (${copy.method})`,
    tokens.length ? `${number(tokens[0].n_tokens)} tokens` : kept && "not in tokens",
  ].filter(Boolean).map((step) => h("li", {}, step))));
  if (gone) main.append(h("p", {}, "Values that decided: ", h("code", {}, gone.values ?? "none")), sqlNote(`select step, rule, reason, "values" from dropped ${where}`));
  const text = (found.text ?? "").slice(0, TEXT_CHARS);
  main.append(h("h2", {}, "Text"), found.text === null ? h("p", {}, "The job did not keep the text of what it removed (`keep_text = true`).") : h("pre", { tabindex: 0, "aria-label": "Text of the document" }, marked(text, edits.map((e) => e.replacement))));
  if (edits.length) main.append(h("h2", {}, "What steps changed"), table("Edits: byte ranges of the text before the step", [
    { title: "step", show: (e) => e.step }, { title: "rule", show: (e) => e.rule }, { title: "from", n: true, show: (e) => number(e.start) }, { title: "to", n: true, show: (e) => number(e.end) }, { title: "now", class: "cell", show: (e) => h("ins", {}, e.replacement || "(nothing)") },
  ], edits));
  if (copies.length) main.append(h("h2", {}, "Copies"), table("Duplicates of this document", [
    { title: "document", show: (c) => cell(c.id === id ? c.kept_id : c.id) }, { title: "method", show: (c) => c.method }, { title: "similarity", n: true, show: (c) => number(c.similarity) },
    { title: "texts", show: (c) => h("a", { href: link("duplicates", { a: c.kept_id, b: c.id }) }, "compare") },
  ], copies));
  const signals = Object.entries(kept ?? {}).filter(([key, value]) => !["id", "text", "url", "locator", "source"].includes(key) && value !== null);
  if (signals.length) main.append(h("h2", {}, "Columns"), table("Everything known of the document", [{ title: "column", show: ([key]) => key }, { title: "value", class: "cell", show: ([, value]) => cell(value) }], signals));
  const runs = await rows("select run, max(step) as steps from metrics group by run order by run");
  if (runs.length && kept) main.append(h("h2", {}, "Training"), h("div", {}, runs.map((run) => h("button", { onclick: async (event) => {
    const button = event.target;
    button.disabled = true;
    try {
      const steps = await rows(`select step, count(*) as n from trained_on(${literal(`runs/${run.run}`)}, 1, ${run.steps}) where document_id = id_of('${id}') group by step order by step`);
      button.replaceWith(h("p", {}, steps.length ? `${run.run} saw it in ${steps.length} steps: ${steps.slice(0, 40).map((s) => s.step).join(", ")}` : `${run.run} did not see it in ${run.steps} steps`));
    } catch (error) { button.disabled = false; fail(error); }
  } }, `Which steps of ${run.run} saw it?`))));
}

async function filters(main, parameters) {
  const steps = await rows("select step, reason, count(*) as n from dropped group by 1, 2 order by 1, 3 desc");
  const [{ n: kept }] = await rows("select count(*) as n from documents");
  const order = [...new Set(steps.map((s) => s.step))].sort((a, b) => (parseInt(a) || 0) - (parseInt(b) || 0));
  const dropped = (step) => steps.filter((s) => s.step === step).reduce((sum, s) => sum + s.n, 0);
  let left = kept + steps.reduce((sum, s) => sum + s.n, 0);
  const summary = order.map((step) => { const row = { step, n_in: left, n: dropped(step) }; left -= row.n; return row; });
  main.append(table("What each step removed", [
    { title: "step", show: (s) => h("a", { href: link("filters", { step: s.step }) }, s.step) }, { title: "in", n: true, show: (s) => number(s.n_in) }, { title: "removed", n: true, show: (s) => number(s.n) },
    { title: "hit rate", n: true, show: (s) => percent(s.n, s.n_in) }, { title: "plot", show: (s) => bar(s.n, s.n_in) },
  ], summary));
  if (parameters.step) {
    main.append(h("h2", {}, parameters.step), bars(`Reasons of ${parameters.step}`, steps.filter((s) => s.step === parameters.step).map((s) => ({ name: s.reason, n: s.n }))));
    const sql = `select hex(id) as id, coalesce(url, locator) as place, reason, "values", left(text, 600) as text from dropped where step = ${literal(parameters.step)} order by hex(id) limit 20`;
    main.append(answerTable(await ask(sql), `Samples that ${parameters.step} removed`), sqlNote(sql));
  }
  await threshold(main, parameters);
}

// A signal, a threshold, and what a filter with it would do to documents that are here and to ones that were removed.
async function threshold(main, parameters) {
  const signals = await (await fetch("signals.json")).json();
  signals.unshift({ filter: "length", signal: "characters", sql: "char_length(text)", summary: "characters of the text" });
  const title = (s) => `${s.filter}: ${s.signal}`;
  const choice = h("select", { id: "measure" }, signals.map((s) => h("option", { value: s.sql, selected: s.sql === parameters.signal }, title(s))));
  const side = h("select", { id: "side" }, h("option", { value: ">=" }, "at least"), h("option", { value: "<=", selected: parameters.side === "<=" }, "at most"));
  const slider = h("input", { type: "range", id: "at", min: 0, max: 1000, value: 100, "aria-describedby": "change" });
  const change = h("div", { id: "change", role: "status" });
  main.append(h("h2", {}, "What would change"), h("form", { class: "row", onsubmit: (event) => event.preventDefault() },
    h("label", { for: "measure" }, "Keep documents whose"), choice, h("label", { for: "side" }, "is"), side), h("p", {}, h("label", { for: "at" }, "Threshold "), slider), change);
  let values = [];
  const show = () => {
    if (!values.length) return;
    const sorted = values.map((v) => v.v).sort((a, b) => a - b);
    const at = sorted[Math.min(sorted.length - 1, Math.round((slider.value / 1000) * (sorted.length - 1)))];
    slider.setAttribute("aria-valuetext", String(at));
    const keeps = (v) => (side.value === ">=" ? v >= at : v <= at);
    const [here, removed] = [values.filter((v) => v.kept), values.filter((v) => !v.kept)];
    const [loses, returns] = [here.filter((v) => !keeps(v.v)), removed.filter((v) => keeps(v.v))];
    const near = [...loses].sort((a, b) => Math.abs(a.v - at) - Math.abs(b.v - at)).slice(0, 8);
    const sql = `select hex(id) as id, url, ${choice.value} as v from documents where not (${choice.value} ${side.value} ${at}) limit 1000`;
    change.replaceChildren(h("ul", { class: "cards" }, fact("threshold", number(at)), fact(`of ${number(here.length)} documents here would go`, number(loses.length)), fact(`of ${number(removed.length)} removed ones would pass it`, number(returns.length))),
      table("Documents nearest to the threshold that would go", [{ title: "value", n: true, show: (v) => number(v.v) }, { title: "document", class: "cell", show: (v) => h("a", { href: link("documents", { id: v.id }) }, v.place) }], near),
      h("p", {}, "As a step of the job: ", h("code", {}, `where = "${choice.value.replaceAll('"', "'")} ${side.value} ${at}"`)), sqlNote(sql));
  };
  const measure = async () => {
    change.replaceChildren("measuring…");
    const sample = (from, kept) => `select hex(id) as id, coalesce(url, locator) as place, ${kept} as kept, cast(${choice.value} as double) as v from (select * from ${from} where text is not null order by id limit 2000)`;
    values = (await rows(`${sample("documents", true)} union all ${sample("dropped", false)}`)).filter((v) => v.v !== null);
    show();
    if (!values.length) change.replaceChildren("No document has this value.");
  };
  choice.addEventListener("change", () => measure().catch(fail));
  side.addEventListener("change", show);
  slider.addEventListener("input", show);
  await measure();
}

async function duplicates(main, parameters) {
  if (parameters.a && parameters.b && isId(parameters.a) && isId(parameters.b)) {
    const text = async (id) => (await rows(`select coalesce(url, locator) as place, left(text, ${TEXT_CHARS}) as text from documents where id = id_of('${id}')`))[0] ?? { place: id, text: "" };
    const [a, b] = [await text(parameters.a), await text(parameters.b)];
    const [left, right] = diff(a.text, b.text);
    main.append(h("p", {}, h("a", { href: link("duplicates", {}) }, "All clusters")), h("div", { class: "sides" },
      h("section", {}, h("h2", {}, "Kept"), h("p", {}, h("a", { href: link("documents", { id: parameters.a }) }, a.place)), h("pre", { tabindex: 0, "aria-label": "Text that was kept" }, left)),
      h("section", {}, h("h2", {}, "Copy"), h("p", {}, h("a", { href: link("documents", { id: parameters.b }) }, b.place)), h("pre", { tabindex: 0, "aria-label": "Text of the copy" }, right))));
    return;
  }
  const methods = await rows("select method as name, count(*) as n from duplicates group by 1 order by 2 desc");
  main.append(bars("Copies by method", methods));
  const sql = "select method, cluster_id, hex(kept_id) as kept_id, count(*) as copies, min(similarity) as least_similar, min(hex(id)) as first_copy from duplicates group by 1, 2, 3 order by copies desc, cluster_id limit 100";
  main.append(h("h2", {}, "Clusters"), table("The largest clusters", [
    { title: "kept", show: (c) => cell(c.kept_id) }, { title: "copies", n: true, show: (c) => number(c.copies) }, { title: "method", show: (c) => c.method }, { title: "least similar", n: true, show: (c) => number(c.least_similar) },
    { title: "texts", show: (c) => h("a", { href: link("duplicates", { a: c.kept_id, b: c.first_copy }) }, "compare") },
  ], await rows(sql)), sqlNote(sql));
}

async function sql(main, parameters) {
  const start = parameters.q ?? "select source, language, count(*) as n\nfrom documents\ngroup by source, language\norder by n desc";
  const editor = h("textarea", { id: "statement", spellcheck: "false", autocapitalize: "off", "aria-describedby": "keys" });
  editor.value = start;
  const [found, result] = [h("div", { class: "names", role: "group", "aria-label": "Completions" }), h("div", {})];
  const run = async () => {
    const text = editor.value.trim().replace(/;$/, "");
    history.replaceState(null, "", link("sql", { q: text }));
    result.replaceChildren();
    try {
      const answer = await ask(text);
      const export_ = (format) => h("a", { href: `query?${new URLSearchParams({ sql: text, format })}`, download: `answer.${format}` }, format);
      const python = `import adbc_driver_flightsql.dbapi as adbc, pandas\nwith adbc.connect("grpc://${location.host}") as connection:\n    print(pandas.read_sql(${JSON.stringify(text)}, connection))`;
      result.append(h("p", {}, "Export: ", ["csv", "ndjson", "arrow", "json"].flatMap((f, i) => [i ? ", " : "", export_(f)]), " · ", h("a", { href: link("sql", { q: text }) }, "link to this")));
      const numeric = answer.columns.filter((c) => /^(U?Int|Float)/.test(c.type)).map((c) => c.name);
      const [first] = answer.columns.map((c) => c.name);
      if (answer.n_rows > 1 && numeric.includes(first) && numeric.length > 1) result.append(lines(`by ${first}`, numeric.slice(1, 6).map((column) => ({ name: column, points: answer.rows.map((row) => [row[first], row[column]]) }))));
      else if (answer.n_rows > 1 && answer.n_rows <= 40 && numeric.length) result.append(bars(`${numeric[0]} by ${first}`, answer.rows.map((row) => ({ name: answer.columns.filter((c) => !numeric.includes(c.name)).map((c) => row[c.name]).join(", "), n: row[numeric[0]] }))));
      result.append(answerTable(answer, `${number(answer.n_rows)} rows`), h("details", {}, h("summary", {}, "In a notebook"), h("pre", { tabindex: 0, "aria-label": "Python" }, python)));
    } catch (error) { fail(error, result); }
  };
  const complete = () => {
    const word = editor.value.slice(0, editor.selectionStart).match(/[\w@]+$/)?.[0] ?? "";
    const hits = word.length < 2 ? [] : names.filter((n) => n.startsWith(word.toLowerCase()) && n !== word).slice(0, 12);
    found.replaceChildren(...hits.map((hit) => h("button", { type: "button", onclick: () => insert(hit, word) }, hit)));
    return [hits, word];
  };
  const insert = (hit, word) => {
    const at = editor.selectionStart;
    editor.setRangeText(hit, at - word.length, at, "end");
    editor.focus();
    complete();
  };
  editor.addEventListener("input", complete);
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
    if (event.key === " " && event.ctrlKey) { event.preventDefault(); const [hits, word] = complete(); if (hits.length) insert(hits[0], word); }
  });
  main.append(h("p", {}, h("label", { for: "statement" }, "Statement")), editor, found, h("p", { id: "keys" }, h("button", { onclick: run }, "Run"), " Ctrl-Enter runs, Ctrl-Space completes."), result);
  const names = (await rows("select name, min(nth) as nth from (select table_name as name, 1 as nth from information_schema.tables union all select column_name, 2 from information_schema.columns where table_schema <> 'information_schema' union all select routine_name, 3 from information_schema.routines) group by name order by nth, name")).map((row) => row.name);
  if (parameters.q) await run();
}

async function shards(main) {
  const sql = "select dataset, version, kind, rows, bytes, shards, n_in, n_kept, manifest_hash from manifests order by dataset, version desc";
  const found = await rows(sql);
  const most = Math.max(...found.map((m) => m.bytes), 1);
  main.append(table("Every version of every dataset", [
    { title: "dataset", show: (m) => m.dataset }, { title: "version", n: true, show: (m) => m.version }, { title: "rows", n: true, show: (m) => number(m.rows) }, { title: "shards", n: true, show: (m) => number(m.shards) },
    { title: "size", n: true, show: (m) => megabytes(m.bytes) }, { title: "plot", show: (m) => bar(m.bytes, most) }, { title: "in", n: true, show: (m) => number(m.n_in) }, { title: "kept", n: true, show: (m) => number(m.n_kept) },
    { title: "manifest", show: (m) => h("code", {}, m.manifest_hash.slice(0, 12)) },
  ], found), sqlNote(sql));
}

async function training(main, parameters) {
  const names = (await rows("select distinct name from metrics order by name")).map((row) => row.name);
  if (!names.length) { main.append(h("p", {}, "No run has written metrics yet.")); return; }
  const wanted = names.includes(parameters.metric) ? parameters.metric : names.find((n) => n.endsWith("train/loss")) ?? names.find((n) => n.includes("loss")) ?? names[0];
  const choice = h("select", { id: "metric", onchange: () => { location.hash = link("training", { metric: choice.value }); } }, names.map((n) => h("option", { selected: n === wanted }, n)));
  const plot = h("div", {});
  main.append(h("form", { class: "row" }, h("label", { for: "metric" }, "Metric"), choice), plot);
  const draw = async () => {
    const points = await rows(`select run, step, value from metrics where name = ${literal(wanted)} order by run, step limit 50000`);
    const series = [...new Set(points.map((p) => p.run))].map((run) => ({ name: run, points: points.filter((p) => p.run === run).map((p) => [p.step, p.value]) }));
    plot.replaceChildren(lines(wanted, series), table("Last values", [{ title: "run", show: (s) => s.name }, { title: "step", n: true, show: (s) => number(s.points.at(-1)[0]) }, { title: wanted, n: true, show: (s) => number(s.points.at(-1)[1]) }], series));
  };
  await draw();
  // A run that goes on is drawn as it goes.
  const timer = setInterval(() => (plot.isConnected ? draw().catch(fail) : clearInterval(timer)), 5000);
}

async function runs(main) {
  const sql = "select run, max(step) as steps, last_value(value order by step) filter (where name = 'train/loss') as train_loss, last_value(value order by step) filter (where name = 'validation/loss') as validation_loss, count(distinct name) as metrics from metrics group by run order by run";
  const found = await ask(sql);
  main.append(found.n_rows ? answerTable(found, "Training runs in and beside the corpus") : h("p", {}, "No run has written metrics yet."), sqlNote(sql));
}

// ---- Going from view to view

const VIEWS = { corpus: ["Corpus", corpus], documents: ["Documents", documents], filters: ["Filters", filters], duplicates: ["Duplicates", duplicates], sql: ["SQL", sql], shards: ["Shards", shards], training: ["Training", training], runs: ["Runs", runs] };

function fail(error, where) {
  if (error.name === "AbortError") return;
  const box = where instanceof Element ? where : $("main");
  box.append(h("p", { class: "error", role: "alert" }, error.message));
}

async function go() {
  stopping.abort();
  stopping = new AbortController();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const view = path in VIEWS ? path : "corpus";
  const [title, show] = VIEWS[view];
  document.title = `Gristmill: ${title}`;
  $("views").replaceChildren(...Object.entries(VIEWS).map(([key, [label]]) => h("a", { href: `#/${key}`, "aria-current": key === view && "page" }, label)));
  const main = $("main");
  const page = h("div", { "data-view": view }, h("h1", {}, title));
  main.replaceChildren(page);
  main.removeAttribute("data-ready");
  try {
    await show(page, Object.fromEntries(new URLSearchParams(query ?? "")));
  } catch (error) { fail(error, page); }
  if (page.isConnected) main.setAttribute("data-ready", view);
}

addEventListener("hashchange", () => { go(); $("main").focus({ preventScroll: true }); scrollTo(0, 0); });
// Alt and a digit open a view.
addEventListener("keydown", (event) => {
  const view = Object.keys(VIEWS)[Number(event.key) - 1];
  if (event.altKey && view) { event.preventDefault(); location.hash = `#/${view}`; }
});
go();
