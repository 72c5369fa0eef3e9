// Draws the counts of the last hour and day, as a chart and as a table.
"use strict";

const words = document.querySelector(".charts").dataset;
const SERIES = [
  ["accepted", words.accepted, [], 5],  // wide, so that it shows beside Delivered, which runs over it
  ["delivered", words.delivered, [], 2],
  ["deferred", words.deferred, [2, 3], 2],
  ["failed", words.failed, [10, 3, 2, 3], 2],
];
const UPDATE_INTERVAL_MS = { hour: 10_000, day: 60_000 };

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");
const shortTime = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
const count = new Intl.NumberFormat();

class Chart {
  constructor(figure) {
    this.span = figure.dataset.span;
    this.caption = figure.querySelector("figcaption").textContent;
    this.plot = figure.querySelector(".plot");
    this.table = figure.querySelector(".wide");
    this.data = [[], [], [], [], []];
    this.draw();
    new ResizeObserver(() => this.chart.setSize(this.size())).observe(this.plot);
    dark.addEventListener("change", () => this.draw());
  }

  size() {
    return { width: this.plot.clientWidth, height: innerWidth < 640 ? 190 : 240 };
  }

  draw() {
    this.chart?.destroy();
    const axis = {
      stroke: style("--soft"),
      grid: { stroke: style("--grid"), width: 1 },
      ticks: { stroke: style("--grid"), width: 1 },
      font: "12px system-ui, sans-serif",
    };
    this.chart = new uPlot({
      ...this.size(),
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, __, most) => [0, Math.max(4, most * 1.1)] } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map((tick) => shortTime.format(tick * 1000)), space: 70 },
        { ...axis, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? count.format(tick) : "")), size: 64 },
      ],
      series: [
        { label: words.time, value: (_, at) => (at == null ? "–" : shortTime.format(at * 1000)) },
        ...SERIES.map(([name, label, dash, width]) => ({
          label, dash, stroke: style(`--${name}`), width, points: { show: false },
          value: (_, value) => (value == null ? "–" : count.format(value)),
        })),
      ],
    }, this.data, this.plot);
    this.describe();
  }

  describe() {
    const totals = SERIES.map(([, label], place) =>
      `${label} ${count.format(this.data[place + 1].reduce((sum, each) => sum + each, 0))}`);
    const canvas = this.plot.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${this.caption}. ${totals.join(", ")}. ${words.below}`);
  }

  async refresh(app) {
    const query = new URLSearchParams({ span: this.span, app });
    try {
      const answer = await fetch(`/console/chart?${query}`);
      if (!answer.ok) return;
      const columns = await answer.json();
      this.data = [columns.time, ...SERIES.map(([name]) => columns[name])];
    } catch {
      return; // console.js shows that the service does not answer
    }
    this.chart.setData(this.data);
    this.describe();
    this.tabulate();
  }

  tabulate() {
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const label of [words.time, ...SERIES.map(([, each]) => each)]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = label;
      head.append(cell);
    }
    const body = table.createTBody();
    for (let place = this.data[0].length - 1; place >= 0; place -= 1) {
      if (this.data.slice(1).every((column) => column[place] === 0)) continue;
      const row = body.insertRow();
      row.insertCell().textContent = shortTime.format(this.data[0][place] * 1000);
      for (const column of this.data.slice(1)) row.insertCell().textContent = count.format(column[place]);
    }
    this.table.replaceChildren(table);
  }
}

const app = document.getElementById("chart-app");
for (const figure of document.querySelectorAll(".chart")) {
  const chart = new Chart(figure);
  chart.refresh(app.value);
  app.addEventListener("change", () => chart.refresh(app.value));
  setInterval(() => { if (!document.hidden) chart.refresh(app.value); }, UPDATE_INTERVAL_MS[chart.span]);
}
