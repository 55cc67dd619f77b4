"use strict";
(() => {
// Strings may come from strangers: they become text by make(), and pass escaped() where Plotly would read tags.
const DATA = JSON.parse(document.getElementById("data").textContent);
const FIELDS = Object.entries(DATA.rows);
const ROWS = DATA.rows.data.map((_, i) => Object.fromEntries(FIELDS.map(([key, values]) => [key, values[i]])));
const ENTRIES = DATA.entries;
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x"];
const EFFECTS = {better: "▲", worse: "▼", equal: "=", undecided: "○"};
const AT_ONCE = 500; // rows of the table

const find = (selector, parent = document) => parent.querySelector(selector);
const distinct = (values) => [...new Set(values)];
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const isNarrow = () => innerWidth < 640;
const shortened = (text, letters) => text.length > letters ? `${text.slice(0, letters - 1)}…` : text;
const label = (text, wide, narrow) => escaped(shortened(text, isNarrow() ? narrow : wide)); // in a chart
const fixed = (value, digits = 3) =>
  value === null || value === undefined ? "–" : (Number(value.toFixed(digits)) || 0).toFixed(digits).replace("-", "−");
const signed = (value) => value > 0 ? `+${fixed(value)}` : fixed(value);
const probability = (p) => p === null ? "–" : p < 1e-3 ? p.toExponential(1).replace("-", "−") : p.toFixed(3);
const interval = (row) => row.low === null ? "" : ` [${fixed(row.low)}, ${fixed(row.high)}]`;
const named = (stratum) => stratum === "all" ? "all images" : stratum;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A labelled drop-down; options are [value, text] or values. It is left out if there is nothing to choose. */
function choice(parent, label, options, changed, always = false) {
  const pairs = options.map((option) => Array.isArray(option) ? option : [option, option]);
  const select = make("select", {onchange: changed}, ...pairs.map(([value, text]) => make("option", {value}, text)));
  select.name = label;
  parent.append(make("label", {hidden: !always && pairs.length < 2}, label, select));
  return select;
}

// ---------------------------------------------------------------- names

const several = (values) => distinct(values).length > 1;
const severalData = several(ENTRIES.map((entry) => entry.data));
const severalStates = several(ENTRIES.map((entry) => entry.state).filter((state) => state !== "original"));
const network = (item) => severalData ? `${item.data} / ${item.model}` : item.model;
const networkOptions = (items) => distinct(items.map(network));
const details = (item) => [severalStates && item.state !== "original" ? item.state : "", item.variant].filter(Boolean).join(", ");
const fullName = (item) => details(item) ? `${item.title} (${details(item)})` : item.title;
const inOrder = (items) => [...items].sort((a, b) => DATA.methods.indexOf(a.method) - DATA.methods.indexOf(b.method));
const methodOptions = (items) => [...new Map(inOrder(items).map((item) => [item.method, item.title]))];

// ---------------------------------------------------------------- table

const COLUMNS = [
  {key: "data"}, {key: "model"}, {key: "title", label: "method"}, {key: "state"}, {key: "variant"},
  {key: "metric"}, {key: "stratum"},
  {key: "images", label: "n", text: (row) => row.images},
  {key: "undefined", text: (row) => row.undefined},
  {key: "original", text: (row) => fixed(row.original)},
  {key: "canonized", text: (row) => fixed(row.canonized)},
  {key: "difference", label: "difference [95 %]", text: (row) => signed(row.difference) + interval(row)},
  {key: "p_holm", label: "p (Holm)", text: (row) => probability(row.p_holm)},
  {key: "cohens_d", label: "Cohen's d", text: (row) => fixed(row.cohens_d, 2)},
  {key: "probability_better", label: "P(better)", text: (row) => fixed(row.probability_better, 2)},
  {key: "effect"},
];
const OPTIONAL = ["data", "state", "variant"]; // columns that are hidden if they say nothing

function table() {
  const columns = COLUMNS.filter(({key}) => !OPTIONAL.includes(key) || several(ROWS.map((row) => row[key])));
  const filters = find("#filters"), body = find("#table tbody"), more = find("#more");
  const texts = new Map(ROWS.map((row) => [row, columns.filter((c) => !c.text).map((c) => row[c.key]).join(" ").toLowerCase()]));
  const elements = new Map();
  let sorting = null, limit = AT_ONCE;

  const draw = () => {
    const found = sorted(ROWS.filter(isChosen), sorting);
    const shown = found.slice(0, limit);
    body.replaceChildren(...shown.map(element));
    find("#shown").textContent = `${shown.length} of ${ROWS.length} rows shown`;
    more.textContent = `Show all ${found.length} that match`;
    more.hidden = shown.length === found.length;
  };
  const narrowed = () => { limit = AT_ONCE; draw(); };
  const search = make("input", {type: "search", name: "text", placeholder: "any text", oninput: narrowed});
  filters.append(make("label", {}, "text", search));
  const selects = ["model", "metric", "stratum", "effect"].map((key) => {
    const values = distinct(ROWS.map((row) => row[key]));
    const options = values.map((value) => [`=${value}`, key === "stratum" ? named(value) : value]);
    return [key, choice(filters, key, [["", "any"], ...options], narrowed, true)];
  });
  Object.fromEntries(selects).stratum.value = "=all";

  function isChosen(row) {
    return search.value.toLowerCase().split(/\s+/).every((word) => texts.get(row).includes(word))
      && selects.every(([key, select]) => !select.value || select.value === `=${row[key]}`);
  }
  function element(row) {
    if (!elements.has(row)) {
      elements.set(row, make("tr", {}, ...columns.map((column) => cell(row, column))));
    }
    return elements.get(row);
  }
  function sortBy(column) {
    const descending = sorting?.column === column && !sorting.descending;
    sorting = {column, descending};
    columns.forEach((other, i) => head.cells[i].setAttribute("aria-sort", other !== column ? "none" : descending ? "descending" : "ascending"));
    draw();
  }
  const head = make("tr", {}, ...columns.map((column) => {
    const button = make("button", {type: "button", onclick: () => sortBy(column)}, column.label ?? column.key);
    const header = make("th", {scope: "col", className: column.text ? "number" : ""}, button);
    header.setAttribute("aria-sort", "none");
    return header;
  }));
  find("#table thead").append(head);
  more.onclick = () => { limit = Infinity; draw(); };
  draw();
}

function cell(row, {key, text}) {
  if (text) return make("td", {className: "number"}, String(text(row)));
  if (key === "effect") return make("td", {className: row.effect}, `${EFFECTS[row.effect] ?? "–"} ${row.effect}`);
  return make("td", {className: key}, row[key]);
}

/** Numbers as numbers, text as text; what is missing comes last either way. */
function sorted(rows, sorting) {
  if (!sorting) return rows;
  const {column: {key, text}, descending} = sorting;
  const {compare} = new Intl.Collator("en", {numeric: true});
  const sign = descending ? -1 : 1;
  return rows.sort((a, b) => {
    const [x, y] = [a[key], b[key]];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (text ? x - y : compare(x, y));
  });
}

// ---------------------------------------------------------------- charts

/** Of the i-th of several things: its colour and its symbol, which differ together up to 49 of them. */
const look = (i) => ({
  color: DATA.colours[i % DATA.colours.length],
  symbol: SYMBOLS[(i + Math.floor(i / SYMBOLS.length)) % SYMBOLS.length],
});
const FAINT = "rgba(128,128,128,.3)", CLEAR = "rgba(128,128,128,.9)";
const axis = (title, more = {}) =>
  ({title: {text: title}, gridcolor: FAINT, linecolor: FAINT, zerolinecolor: CLEAR, automargin: true, ...more});

function plot(figure, traces, layout) {
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {size: 12}, height: 420,
    margin: {l: 55, r: 15, t: 40, b: 50}, hovermode: "closest", hoverlabel: {align: "left"}, showlegend: true,
    legend: {orientation: "h", x: 0, y: 1, yanchor: "bottom"}, dragmode: false,
  };
  Plotly.react(find(".plot", figure), traces, {...base, ...layout}, {
    responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  });
  find(".note", figure).textContent = traces.length ? "" : "Nothing to draw for this choice.";
}

/** Runs `draw` now and whenever a selector changes; a chart without data says so. */
function chart(id, hasData, build) {
  const figure = document.getElementById(id);
  if (!hasData) {
    find(".note", figure).textContent = "The study has no data for this chart.";
    return;
  }
  let draw = () => {};
  draw = build(figure, find(".controls", figure), () => draw());
  draw();
}

function forest(figure, controls, changed) {
  const metric = choice(controls, "metric", distinct(ROWS.map((row) => row.metric)), changed, true);
  const stratum = choice(controls, "stratum", distinct(ROWS.map((row) => row.stratum)).map((name) => [name, named(name)]), changed, true);
  const networks = networkOptions(ROWS);
  return () => {
    const rows = ROWS.filter((row) => row.metric === metric.value && row.stratum === stratum.value && row.difference !== null);
    const ticks = new Map(inOrder(rows).map((row) => [fullName(row), [row.title, details(row)].filter(Boolean)]));
    const names = [...ticks.keys()];
    const shift = (i) => (i - (networks.length - 1) / 2) * 0.7 / networks.length;
    const traces = networks.map((name, i) => {
      const own = rows.filter((row) => network(row) === name);
      return {
        name: label(name, 80, 34), mode: "markers", x: own.map((row) => row.difference),
        y: own.map((row) => names.indexOf(fullName(row)) + shift(i)),
        error_x: {
          array: own.map((row) => (row.high ?? row.difference) - row.difference),
          arrayminus: own.map((row) => row.difference - (row.low ?? row.difference)),
          thickness: 1.5, width: 3,
        },
        marker: {size: 8, ...look(i)},
        text: own.map((row) => escaped(`${fullName(row)}: ${signed(row.difference)}${interval(row)}, ${row.effect}`)),
        hoverinfo: "text",
      };
    }).filter((trace) => trace.x.length);
    const most = Math.max(...[...ticks.values()].map((lines) => lines.length));
    const ticktext = [...ticks.values()].map((lines) => lines.map((line) => label(line, 32, 16)).join("<br>"));
    const tickvals = names.map((_, i) => i);
    plot(figure, traces, {
      height: 120 + names.length * Math.max(15 * most + 9, 13 * networks.length),
      xaxis: axis(`difference in ${escaped(metric.value)}`),
      yaxis: axis("", {tickvals, ticktext, range: [names.length - 0.4, -0.6], zeroline: false}),
    });
  };
}

/** Selects the model and the method that canonization changes most. */
function selectLargest(model, method) {
  const size = (row) => row.higher_is_better === null ? -1 : Math.abs(row.difference ?? 0);
  const largest = ROWS.reduce((a, b) => size(b) > size(a) ? b : a, ROWS[0]);
  const select = (element, value) => { if ([...element.options].some((option) => option.value === value)) element.value = value; };
  if (!largest) return;
  select(model, network(largest));
  select(method, largest.method);
}

function curves(figure, controls, changed) {
  const entries = ENTRIES.filter((entry) => Object.keys(entry.curves).length);
  const kind = choice(controls, "curve", distinct(entries.flatMap((entry) => Object.keys(entry.curves))), changed);
  const model = choice(controls, "model", networkOptions(entries), changed, true);
  const method = choice(controls, "method", methodOptions(entries), changed, true);
  const line = (name, x, y, color, dash, symbol, size) => ({
    name: label(name, 80, 34), x, y, mode: "lines+markers", line: {color, dash, width: 2}, marker: {color, symbol, size},
  });
  selectLargest(model, method);
  return () => {
    const own = entries.filter((entry) => network(entry) === model.value && entry.method === method.value && entry.curves[kind.value]);
    const colours = [DATA.canonized, ...DATA.colours.filter((c) => c !== DATA.canonized && c !== DATA.original)];
    const traces = new Map(); // several pairs may share their original
    own.forEach((entry, i) => {
      const {axis: x, original, canonized} = entry.curves[kind.value];
      const where = entry.variant ? ` (${entry.variant})` : "";
      if (original) traces.set(`original${where}`, line(`original${where}`, x, original, DATA.original, "dash", "square-open", 10));
      const [name, colour] = [`${entry.state}${where}`, colours[i % colours.length]];
      if (canonized) traces.set(name, line(name, x, canonized, colour, "solid", SYMBOLS[i % SYMBOLS.length], 6));
    });
    plot(figure, [...traces.values()], {
      xaxis: axis("share of the image replaced"),
      yaxis: axis("mean probability of the class", {rangemode: "tozero"}),
    });
  };
}

function scatter(figure, controls, changed) {
  const entries = ENTRIES.filter((entry) => entry.images);
  const model = choice(controls, "model", networkOptions(entries), changed, true);
  const method = choice(controls, "method", methodOptions(entries), changed, true);
  const metric = choice(controls, "metric", distinct(entries.flatMap((entry) => Object.keys(entry.images.difference))), changed, true);
  selectLargest(model, method);
  return () => {
    const own = entries.filter((entry) => network(entry) === model.value && entry.method === method.value && entry.images.difference[metric.value]);
    const traces = own.map((entry, i) => {
      const images = DATA.image_sets[entry.images.set], y = entry.images.difference[metric.value];
      return {
        name: label(details(entry) || entry.title, 80, 34), mode: "markers", x: images.box, y,
        marker: {size: 6, opacity: 0.65, ...look(i)},
        text: images.id.map((id, k) => `sample ${id}: ${signed(y[k])}, box ${fixed(images.box[k])}`), hoverinfo: "text",
      };
    });
    plot(figure, traces, {
      xaxis: axis("box's share of the image", {rangemode: "tozero"}),
      yaxis: axis(`difference in ${escaped(metric.value)}`),
    });
    const cut = own.map((entry) => DATA.image_sets[entry.images.set]).find((images) => images.of > images.id.length);
    if (cut) find(".note", figure).textContent = `${cut.id.length} of ${cut.of} images are drawn.`;
  };
}

// ---------------------------------------------------------------- maps

function browser() {
  const panel = find("#browser"), controls = find(".controls", panel);
  if (!DATA.samples.length) {
    panel.replaceChildren(make("p", {}, "No maps were kept: save_maps=0."));
    return;
  }
  const told = (sample) => [
    severalData && sample.data, `sample ${sample.id}`, sample.label !== null && `class ${sample.label}`,
  ].filter(Boolean).join(", ");
  const step = (by) => { select.value = (Number(select.value) + by + DATA.samples.length) % DATA.samples.length; draw(); };
  const draw = () => {
    const place = select.value, sample = DATA.samples[place];
    find("#sample").replaceChildren(tile(sample.image, told(sample), sample));
    const own = ENTRIES.filter((entry) => entry.maps[place]);
    find("#pairs").replaceChildren(...distinct(own.map(network)).flatMap((name) => [
      make("h3", {}, name), ...own.filter((entry) => network(entry) === name).map((entry) => pairOfMaps(entry, entry.maps[place])),
    ]));
  };
  controls.append(make("button", {type: "button", onclick: () => step(-1)}, "← Previous"));
  const select = choice(controls, "sample", DATA.samples.map((sample, i) => [i, told(sample)]), draw, true);
  controls.append(make("button", {type: "button", onclick: () => step(1)}, "Next →"));
  panel.onkeydown = (event) => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
  };
  draw();
}

function pairOfMaps(entry, maps) {
  const tiles = ["original", "canonized"].filter((state) => state in maps)
    .map((state) => tile(DATA.pictures[maps[state]], state === "original" ? state : entry.state));
  const distance = maps.distance === undefined ? [] : [make("p", {}, `cosine distance ${fixed(maps.distance)}`)];
  return make("div", {className: "pair"}, make("h4", {}, fullName(entry)), make("div", {className: "tiles"}, ...tiles), ...distance);
}

function tile(png, caption, sample = null) {
  const picture = make("div", {className: "picture"}, make("img", {src: `data:image/png;base64,${png}`, alt: caption}));
  if (sample) picture.append(outline(sample));
  return make("figure", {className: "tile"}, picture, make("figcaption", {}, caption));
}

function outline(sample) {
  const [svg, path] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
  svg.setAttribute("viewBox", `0 0 ${sample.size.join(" ")}`);
  path.setAttribute("d", sample.outline);
  svg.append(path);
  return svg;
}

// ---------------------------------------------------------------- print: what is folded is printed, too

let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  folded.forEach((element) => { element.open = true; });
});
addEventListener("afterprint", () => folded.forEach((element) => { element.open = false; }));

if (ROWS.length) table();
chart("forest", ROWS.length, forest);
chart("curves", ENTRIES.some((entry) => Object.keys(entry.curves).length), curves);
chart("scatter", ENTRIES.some((entry) => entry.images), scatter);
browser();
})();
