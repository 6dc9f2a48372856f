// What every chart is made of: elements, scales, axes, a fit's style. Colours are CSS variables,
// so that a chart follows the theme without being drawn again.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const visible = () => data.fits.map((_, i) => i).filter((i) => !hidden.has(i));
const find = (id) => document.getElementById(id);

function html(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function canvas(width, height, label) {
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  root.setAttribute("aria-label", label);
  return root;
}

// A fit's colour says the same as its marker and its dashes: no chart rests on colour alone.
const DASHES = ["", "7 3", "2 2.5", "9 3 2 3", "5 2", "1 3", "12 3", "4 2 1 2"];
const colour = (i) => (i === data.reference ? "var(--reference)" : `var(--fit${data.fits[i].slot % 8})`);
const dashes = (i) => (i === data.reference ? "" : DASHES[data.fits[i].slot % 8]);

const SHAPES = [
  (r) => `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0Z`,
  (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
  (r) => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0Z`,
  (r) => `M0 ${-1.2 * r}L${1.2 * r} ${r}H${-1.2 * r}Z`,
  (r) => `M0 ${1.2 * r}L${1.2 * r} ${-r}H${-1.2 * r}Z`,
  (r) => `M${-r / 2.5} ${-r}h${r / 1.25}v${r * 0.6}h${r * 0.6}v${r * 0.8}h${-r * 0.6}v${r * 0.6}h${-r / 1.25}v${-r * 0.6}h${-r * 0.6}v${-r * 0.8}h${r * 0.6}Z`,
  (r) => `M${-r} ${-r}L${r} ${r}M${-r} ${r}L${r} ${-r}`,
  (r) => `M0 ${-r}V${r}M${-r} 0H${r}M${-r * 0.7} ${-r * 0.7}L${r * 0.7} ${r * 0.7}M${-r * 0.7} ${r * 0.7}L${r * 0.7} ${-r * 0.7}`,
];

function marker(i, x, y, r = 4) {
  const slot = i === data.reference ? 0 : data.fits[i].slot % 8;
  const open = slot > 5;
  return svg("path", {
    d: SHAPES[slot](r),
    transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
    style: `fill:${open ? "none" : colour(i)};stroke:${open ? colour(i) : "var(--surface)"};stroke-width:${open ? 1.8 : 0.8}`,
  });
}

function swatch(i) {
  const root = svg("svg", { viewBox: "0 0 30 14", width: 30, height: 14, "aria-hidden": "true" });
  if (i === data.reference) {
    root.append(svg("path", { d: "M1 12C9 12 10 2 15 2S21 12 29 12Z", style: "fill:var(--shade);stroke:var(--reference)" }));
  } else {
    root.append(line("M0 7H30", i), marker(i, 15, 7));
  }
  return root;
}

function line(d, i, width = 1.8) {
  return svg("path", { d, style: `fill:none;stroke:${colour(i)};stroke-width:${width};stroke-dasharray:${dashes(i) || "none"}` });
}

// ---- numbers ---------------------------------------------------------------------------

const MINUS = "\u2212";

function words(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return "?";
  const size = Math.abs(value);
  const text = size !== 0 && (size >= 1e6 || size < 1e-4) ? value.toExponential(digits - 1) : String(Number(value.toPrecision(digits)));
  return text.replaceAll("-", MINUS);
}

// The steps are 1, 2, 5 times a power of ten.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return found.map((v) => [v, digits > 5 ? words(v) : v.toFixed(digits).replace("-0", "0" === v.toFixed(0) ? "0" : "-0").replaceAll("-", MINUS)]);
}

function decades(low, high) {
  const found = [];
  for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k++) {
    for (const m of [1, 3]) {
      const v = m * 10 ** k;
      if (v >= low && v <= high) found.push([v, words(v, 2)]);
    }
  }
  return found;
}

// A long name loses its middle in a chart; the chart's own words have it whole.
const short = (text, most = 26) => (text.length <= most ? text : `${text.slice(0, most / 2)}…${text.slice(-(most / 2 - 1))}`);

const scale = (low, high, from, to) => (v) => from + ((v - low) / (high - low || 1)) * (to - from);

// ---- axes ------------------------------------------------------------------------------

// box: { left, right, top, bottom } of the plotting area.
function bottomAxis(root, box, x, marks, title) {
  root.append(svg("path", { class: "axis", d: `M${box.left} ${box.bottom}H${box.right}` }));
  let end = -Infinity;
  for (const [value, text] of marks) {
    const at = x(value);
    root.append(svg("path", { class: "axis", d: `M${at} ${box.bottom}v4` }));
    const half = 3.2 * text.length;
    if (at - half < end + 8) continue; // no room for this mark's number
    end = at + half;
    root.append(svg("text", { x: at, y: box.bottom + 16, "text-anchor": "middle" }, text));
  }
  if (title) root.append(svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, title));
}

function leftAxis(root, box, y, marks, title) {
  for (const [value, text] of marks) {
    const at = y(value);
    root.append(svg("path", { class: "rule", d: `M${box.left} ${at}H${box.right}` }));
    root.append(svg("text", { x: box.left - 8, y: at + 4, "text-anchor": "end" }, text));
  }
  if (title) root.append(svg("text", { x: 0, y: box.top - 10 }, title));
}

const empty = (text) => html("p", { class: "empty" }, text);
