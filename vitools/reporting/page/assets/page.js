// What the reader can do: choose fits, a site, a pair; turn pages; sort the table.

const PER_PAGE = 12;
let first = 0;

const site = () => data.sites[Number(find("site").value)];
const widthOf = (id) => Math.max(240, Math.floor(find(id).clientWidth || 640));

// The plotting width of one panel in a grid of panels at least 15rem wide.
function panelWidth(id) {
  const columns = getComputedStyle(find(id)).gridTemplateColumns.split(" ").map(parseFloat);
  return Math.max(160, Math.floor((columns[0] || 240) - 26));
}

function drawBound() {
  find("bound-chart").replaceChildren(boundChart(widthOf("bound-chart") - 26));
}

function drawSite() {
  const pager = document.querySelector(".pager");
  if (!data.sites.length) {
    find("marginals").replaceChildren(empty("The model has no continuous quantities to show."));
    pager.hidden = true;
    return;
  }
  const { entries, total } = site();
  const page = entries.slice(first, first + PER_PAGE);
  find("page").textContent = `${first + 1}–${first + page.length} of ${entries.length}`;
  find("previous").disabled = first === 0;
  find("next").disabled = first + PER_PAGE >= entries.length;
  pager.hidden = entries.length <= PER_PAGE;
  find("omitted").textContent = total > entries.length ? `${entries.length} of its ${total} entries are in this page: those on which the fits disagree most. Constants and copies are left out.` : "";
  const width = panelWidth("marginals");
  find("marginals").replaceChildren(...page.map((entry) => marginalPanel(entry, width)));
  find("moments").replaceChildren(momentsChart(page, widthOf("moments") - 26));
  find("numbers").replaceChildren(numbersTable(page));
}

function drawPair() {
  if (!data.pairs.length) {
    find("pair-controls").hidden = true;
    find("pair-panels").replaceChildren(empty("No two entries are correlated by more than 0.3 under any fit."));
    return;
  }
  const pair = data.pairs[Number(find("pair").value)];
  const shown = visible().filter((i) => pair.draws[i] && (i !== data.yardstick || visible().length === 1));
  const width = panelWidth("pair-panels");
  find("pair-panels").replaceChildren(...shown.map((i) => pairPanel(pair, i, width)));
}

function drawKhat() {
  find("khat-chart").replaceChildren(khatChart(widthOf("khat-chart") - 26));
}

function drawCalibration() {
  if (!data.calibration.length) return;
  const width = panelWidth("calibration-panels");
  find("calibration-panels").replaceChildren(...data.calibration.map((ranks) => ranksPanel(ranks, width)));
}

function draw() {
  drawBound();
  drawSite();
  drawPair();
  drawKhat();
  drawCalibration();
}

function offerFits() {
  data.fits.forEach((fit, i) => {
    const box = html("input", { type: "checkbox" });
    box.checked = true;
    box.addEventListener("change", () => {
      if (box.checked) hidden.delete(i);
      else hidden.add(i);
      draw();
    });
    find("fits").append(html("label", {}, box, swatch(i), fit.name));
  });
  for (const place of document.querySelectorAll(".swatch")) place.append(swatch(Number(place.dataset.fit)));
}

function offerSites() {
  data.sites.forEach(({ name, shape }, i) => {
    find("site").append(html("option", { value: i }, shape.length ? `${name} [${shape.join(" × ")}]` : name));
  });
  find("site").value = String(data.first_site);
  find("site").addEventListener("change", () => {
    first = 0;
    drawSite();
  });
  find("previous").addEventListener("click", () => turn(-PER_PAGE));
  find("next").addEventListener("click", () => turn(PER_PAGE));
  data.pairs.forEach((pair, i) => {
    find("pair").append(html("option", { value: i }, `${pair.x.label} and ${pair.y.label}, r ${words(pair.r[data.yardstick], 2)} under ${data.fits[data.yardstick].name}`));
  });
  find("pair").addEventListener("change", drawPair);
}

function turn(by) {
  first = Math.max(0, first + by);
  drawSite();
}

// ---- sorting ---------------------------------------------------------------------------

// Blank cells stay last whichever way the column is sorted.
function compareCells(one, other, direction) {
  if (one === "" || other === "") return (one === "") - (other === "");
  const difference = Number(one) - Number(other);
  return direction * (Number.isNaN(difference) ? one.localeCompare(other) : difference);
}

function sortBy(head) {
  const table = head.closest("table");
  const column = [...head.parentNode.children].indexOf(head);
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = table.tBodies[0];
  const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
  body.append(...[...body.rows].sort((a, b) => compareCells(key(a), key(b), ascending ? 1 : -1)));
}

for (const head of document.querySelectorAll(".sortable thead th")) {
  head.querySelector("button").addEventListener("click", () => sortBy(head));
}
offerFits();
offerSites();
draw();
let waiting = 0;
window.addEventListener("resize", () => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(draw);
});
window.addEventListener("beforeprint", draw);
