// The charts themselves. Each takes the width it may use and returns an element.

function boundChart(width) {
  const shown = visible();
  const { low, high, curves } = data.bound;
  const finals = shown.filter((i) => data.fits[i].bound !== null);
  if (low === null || !finals.length) return empty("None of the fits shown has a bound.");
  const height = Math.max(260, Math.min(380, width * 0.45));
  const box = { left: 62, right: width - 14, top: 26, bottom: height - 42 };
  const seconds = (i) => Math.max(data.fits[i].seconds, 1e-3);
  const times = finals.map(seconds);
  for (const i of finals) if (curves[i]) times.push(curves[i].seconds[0]);
  const x = ((s) => (v) => s(Math.log10(v)))(
    scale(Math.log10(Math.min(...times)) - 0.08, Math.log10(Math.max(...times)) + 0.12, box.left, box.right));
  const y = scale(low, high, box.bottom, box.top);
  const label = "Bound against seconds. " + finals.map((i) => `${data.fits[i].name}: ${words(data.fits[i].bound[0], 7)} after ${words(data.fits[i].seconds, 2)} s`).join("; ");
  const root = canvas(width, height, label);
  leftAxis(root, box, y, ticks(low, high, 5), "bound on log p(x), nats");
  bottomAxis(root, box, x, decades(Math.min(...times) * 0.83, Math.max(...times) * 1.3), "seconds");
  const clip = svg("clipPath", { id: "bound-clip" }, svg("rect", { x: box.left, y: box.top - 6, width: box.right - box.left, height: box.bottom - box.top + 6 }));
  const inside = svg("g", { "clip-path": "url(#bound-clip)" });
  root.append(svg("defs", {}, clip), inside);
  if (data.evidence !== null) {
    inside.append(svg("path", { d: `M${box.left} ${y(data.evidence)}H${box.right}`, style: "stroke:var(--text);stroke-dasharray:5 4;fill:none" }));
    root.append(svg("text", { x: box.right, y: y(data.evidence) - 5, "text-anchor": "end", class: "name" }, "log evidence"));
  }
  for (const i of finals) {
    const [value, error] = data.fits[i].bound;
    const curve = curves[i];
    if (curve) {
      inside.append(line(curve.seconds.map((s, k) => `${k ? "L" : "M"}${x(s).toFixed(1)} ${y(curve.elbo[k]).toFixed(1)}`).join(""), i));
      const last = curve.seconds.length - 1;
      inside.append(svg("path", { d: `M${x(curve.seconds[last])} ${y(curve.elbo[last])}L${x(seconds(i))} ${y(value)}`, style: `stroke:${colour(i)};stroke-width:1.2;stroke-dasharray:1.5 3;fill:none` }));
    }
    if (error) inside.append(svg("path", { d: `M${x(seconds(i))} ${y(value - 2 * error)}V${y(value + 2 * error)}`, style: `stroke:${colour(i)};stroke-width:1.6` }));
    inside.append(marker(i, x(seconds(i)), y(value), 5));
  }
  return root;
}

function marginalPanel(entry, width) {
  const shown = visible().filter((i) => entry.d[i]);
  const figures = visible().filter((i) => entry.m[i]).map((i) => `${data.fits[i].name} ${words(entry.m[i][0])} ± ${words(entry.m[i][1], 2)}`);
  const panel = html("div", { class: "panel" }, html("h4", {}, entry.label));
  if (!shown.length) {
    panel.append(empty("No fit shown has a density here."));
    return panel;
  }
  const height = 128;
  const box = { left: 4, right: width - 4, top: 4, bottom: height - 22 };
  const low = Math.min(...shown.map((i) => entry.d[i].low));
  const high = Math.max(...shown.map((i) => entry.d[i].high));
  const peaks = shown.map((i) => entry.d[i].peak).sort((a, b) => a - b);
  const top = Math.min(peaks[peaks.length - 1], 4 * peaks[(peaks.length - 1) >> 1]); // a needle may leave at the top
  const x = scale(low, high, box.left, box.right);
  const y = scale(0, top * 1.05, box.bottom, box.top);
  const root = canvas(width, height, `Marginal of ${entry.label}, mean ± sd: ${figures.join("; ")}`);
  const order = shown.filter((i) => i === data.reference).concat(shown.filter((i) => i !== data.reference));
  for (const i of order) {
    const { low: from, high: to, peak, y: heights } = entry.d[i];
    const at = scale(0, heights.length - 1, x(from), x(to));
    const points = heights.map((h, k) => `${at(k).toFixed(1)} ${Math.max(0, y((h / 999) * peak)).toFixed(1)}`).join("L");
    if (i === data.reference) {
      root.append(svg("path", { d: `M${x(from)} ${box.bottom}L${points}L${x(to)} ${box.bottom}Z`, style: "fill:var(--shade);fill-opacity:.75;stroke:var(--reference);stroke-width:1" }));
    } else {
      root.append(line(`M${points}`, i, 1.7));
    }
  }
  bottomAxis(root, box, x, ticks(low, high, width > 260 ? 5 : 4), "");
  panel.append(root);
  return panel;
}

function momentsChart(entries, width) {
  const base = data.yardstick;
  const shown = visible().filter((i) => i !== base);
  const rows = entries.filter((entry) => entry.m[base] && entry.m[base][1] > 0);
  if (!rows.length || !shown.length) return empty("Nothing to compare: show another fit, or choose another site.");
  const place = (entry, i) => {
    const [mean, sd] = entry.m[base];
    return entry.m[i] && [(entry.m[i][0] - mean) / sd, entry.m[i][1] / sd];
  };
  const reach = rows.flatMap((entry) => shown.map((i) => place(entry, i)).filter(Boolean).map(([m, s]) => Math.abs(m) + s));
  const limit = Math.min(8, Math.max(2, ...reach) * 1.05);
  const narrow = width < 480;
  const step = Math.max(30, 9 * shown.length + 8);
  const left = narrow ? 8 : Math.min(width * 0.3, 12 + 7 * Math.max(...rows.map((entry) => short(entry.label).length)));
  const lead = narrow ? 16 : 0;
  const height = rows.length * (step + lead) + 50;
  const box = { left, right: width - 10, top: 6, bottom: height - 42 };
  const x = scale(-limit, limit, box.left, box.right);
  const name = data.fits[base].name;
  const label = `Mean ± sd of each fit in units of ${name}. ` + rows.map((entry) => `${entry.label}: ` + shown.map((i) => [i, place(entry, i)]).filter(([, p]) => p).map(([i, [m, s]]) => `${data.fits[i].name} ${words(m, 2)} ± ${words(s, 2)}`).join(", ")).join("; ");
  const root = canvas(width, height, label);
  root.append(svg("rect", { class: "band", x: x(-1), y: box.top, width: x(1) - x(-1), height: box.bottom - box.top }));
  root.append(svg("path", { class: "axis", d: `M${x(0)} ${box.top}V${box.bottom}` }));
  rows.forEach((entry, row) => {
    const top = box.top + row * (step + lead) + lead;
    if (row) root.append(svg("path", { class: "rule", d: `M${narrow ? 0 : box.left} ${top - lead}H${box.right}` }));
    root.append(svg("text", narrow ? { x: 4, y: top - 1, class: "name" } : { x: box.left - 10, y: top + step / 2 + 4, "text-anchor": "end", class: "name" }, short(entry.label)));
    shown.forEach((i, k) => {
      const found = place(entry, i);
      if (!found) return;
      const at = top + step / 2 + (k - (shown.length - 1) / 2) * 9;
      const clamp = (v) => Math.max(-limit, Math.min(limit, v));
      const [mean, sd] = found;
      root.append(svg("path", { d: `M${x(clamp(mean - sd))} ${at}H${x(clamp(mean + sd))}`, style: `stroke:${colour(i)};stroke-width:1.6` }));
      if (Math.abs(mean) <= limit) root.append(marker(i, x(mean), at, 3.6));
      else root.append(svg("text", { x: x(clamp(mean)), y: at + 4, "text-anchor": mean > 0 ? "end" : "start", style: `fill:${colour(i)}` }, mean > 0 ? "▸" : "◂"));
    });
  });
  bottomAxis(root, box, x, ticks(-limit, limit, narrow ? 4 : 8), `(mean ± sd ${MINUS} mean of ${short(name)}) / sd of ${short(name)}`);
  return root;
}

function numbersTable(entries) {
  const shown = visible();
  const head = html("tr", {}, html("th", { scope: "col" }, "Entry"), ...shown.map((i) => html("th", { scope: "col", class: "number" }, data.fits[i].name)));
  const rows = entries.map((entry) => html("tr", {}, html("th", { scope: "row" }, entry.label), ...shown.map((i) => html("td", { class: "number" }, entry.m[i] ? `${words(entry.m[i][0], 4)} ± ${words(entry.m[i][1], 2)}` : ""))));
  return html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows));
}

function pairPanel(pair, i, width) {
  const base = data.yardstick;
  const height = Math.min(width, 260);
  const box = { left: 40, right: width - 6, top: 20, bottom: height - 38 };
  const x = scale(pair.x.low, pair.x.high, box.left, box.right);
  const y = scale(pair.y.low, pair.y.high, box.bottom, box.top);
  const name = data.fits[i].name;
  const label = `${pair.x.label} against ${pair.y.label} under ${name}: correlation ${words(pair.r[i], 2)}; under ${data.fits[base].name} ${words(pair.r[base], 2)}`;
  const root = canvas(width, height, label);
  leftAxis(root, box, y, ticks(pair.y.low, pair.y.high, 4), short(pair.y.label));
  bottomAxis(root, box, x, ticks(pair.x.low, pair.x.high, 3), short(pair.x.label));
  const dots = (k, style, radius) => {
    const [xs, ys] = pair.draws[k];
    const d = xs.map((v, n) => {
      const cx = box.left + (v / 999) * (box.right - box.left);
      const cy = box.bottom - (ys[n] / 999) * (box.bottom - box.top);
      return `M${(cx - radius).toFixed(1)} ${cy.toFixed(1)}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`;
    }).join("");
    root.append(svg("path", { d, style }));
  };
  if (base !== i && pair.draws[base]) dots(base, "fill:var(--reference);fill-opacity:.45", 1.6);
  dots(i, `fill:${colour(i)};fill-opacity:.6`, 1.8);
  const title = html("h3", {}, swatch(i), html("span", {}, name), html("small", {}, `r ${words(pair.r[i], 2)}`));
  return html("div", { class: "panel" }, title, root);
}

function khatChart(width) {
  const shown = visible().filter((i) => data.fits[i].khat !== null);
  if (!shown.length) return empty("None of the fits shown has a density, which k̂ needs.");
  const step = 30;
  const narrow = width < 480;
  const left = narrow ? 8 : Math.min(width * 0.35, 12 + 7.4 * Math.max(...shown.map((i) => short(data.fits[i].name).length)));
  const lead = narrow ? 14 : 0;
  const height = 30 + shown.length * (step + lead) + 44;
  const box = { left, right: width - 12, top: 30, bottom: height - 40 };
  const cap = 1.5;
  const low = Math.min(0, ...shown.map((i) => data.fits[i].khat[0] - 2 * data.fits[i].khat[1]));
  const high = Math.min(cap, Math.max(1, ...shown.map((i) => data.fits[i].khat[0] + 2 * data.fits[i].khat[1])));
  const x = scale(Math.max(-0.5, low), high, box.left, box.right);
  const threshold = data.threshold;
  const label = `Pareto k̂, threshold ${words(threshold, 2)}. ` + shown.map((i) => `${data.fits[i].name}: ${data.fits[i].khat[0] === null ? "infinite" : words(data.fits[i].khat[0], 2)}`).join("; ");
  const root = canvas(width, height, label);
  const zones = [[Math.max(-0.5, low), 0.5, "trust", "good"], [0.5, threshold, "care", "usable"], [threshold, high, "reject", "too heavy"]];
  for (const [from, to, kind, text] of zones) {
    root.append(svg("rect", { x: x(from), y: box.top, width: x(to) - x(from), height: box.bottom - box.top, style: `fill:var(--${kind}-bg)` }));
    root.append(svg("text", { x: (x(from) + x(to)) / 2, y: box.top - 9, "text-anchor": "middle", style: `fill:var(--${kind});font-weight:600` }, text));
  }
  shown.forEach((i, row) => {
    const [value, error] = data.fits[i].khat;
    const at = box.top + row * (step + lead) + lead + step / 2;
    const clamp = (v) => Math.max(-0.5, Math.min(high, v));
    root.append(svg("text", narrow ? { x: x(Math.max(-0.5, low)) + 5, y: at - 9, class: "name" } : { x: box.left - 10, y: at + 4, "text-anchor": "end", class: "name" }, short(data.fits[i].name)));
    if (error) root.append(svg("path", { d: `M${x(clamp(value - 2 * error))} ${at}H${x(clamp(value + 2 * error))}`, style: `stroke:${colour(i)};stroke-width:1.8` }));
    const limit = data.fits[i].khat_limit;
    if (limit !== null) root.append(svg("path", { d: `M${x(clamp(limit))} ${at - 8}V${at + 8}`, style: "stroke:currentColor;stroke-width:1" }));
    if (value <= high) root.append(marker(i, x(clamp(value)), at, 4.5));
    else root.append(svg("text", { x: x(high) - 4, y: at + 4, "text-anchor": "end", class: "name" }, `${words(value, 2)} ▸`));
  });
  bottomAxis(root, box, x, ticks(Math.max(-0.5, low), high, 6), "k̂ ± 2 standard errors");
  return root;
}

function ranksPanel(ranks, width) {
  const { fit, quantity, counts, low, high, p } = ranks;
  const height = 130;
  const box = { left: 30, right: width - 4, top: 8, bottom: height - 24 };
  const y = scale(0, 1.08 * Math.max(high, ...counts), box.bottom, box.top);
  const bar = (box.right - box.left) / counts.length;
  const outside = counts.filter((n) => n < low || n > high).length;
  const root = canvas(width, height, `Ranks of ${quantity} under ${fit}: ${outside} of ${counts.length} bars outside the band of ${low} to ${high}; p ${words(p, 2)}`);
  root.append(svg("rect", { class: "band", x: box.left, y: y(high), width: box.right - box.left, height: y(low) - y(high) }));
  counts.forEach((n, k) => root.append(svg("rect", { x: box.left + k * bar + 0.5, y: y(n), width: Math.max(1, bar - 1), height: box.bottom - y(n), style: "fill:var(--fit0);fill-opacity:.75" })));
  leftAxis(root, box, y, ticks(0, 1.08 * Math.max(high, ...counts), 3), "");
  bottomAxis(root, box, scale(0, 1, box.left, box.right), [[0, "0"], [0.5, "rank"], [1, "1"]], "");
  return html("div", { class: "panel" }, html("h3", {}, html("span", {}, `${fit}: ${quantity}`), html("small", {}, `p ${words(p, 2)}`)), root);
}
