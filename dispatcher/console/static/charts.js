// Draws the counts of the last hour, day, week and month, as charts and as tables. What failed has a
// strip of its own: beside a million accepted it would not be seen.
"use strict";

const words = document.querySelector(".charts").dataset;
const SERIES = [
  ["accepted", words.accepted, [], 5],  // wide, so that it shows beside Delivered, which runs over it
  ["delivered", words.delivered, [], 2],
  ["deferred", words.deferred, [2, 3], 2],
  ["failed", words.failed, [10, 3, 2, 3], 2],
];
const SHOWN = SERIES.slice(0, 3);
const FAILED = SERIES.slice(3);
const UPDATE_INTERVAL_MS = { hour: 10_000, day: 60_000, week: 300_000, month: 300_000 };
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");
const clockTime = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
const dayTime = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
const dayOnly = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric" });
const count = new Intl.NumberFormat();
const short = new Intl.NumberFormat(locale, { notation: "compact" });

class Chart {
  constructor(figure) {
    this.span = figure.dataset.span;
    this.caption = figure.querySelector("figcaption").textContent;
    figure.querySelector("figcaption").append(` (${zone})`);
    this.long = this.span === "week" || this.span === "month";
    this.plot = figure.querySelector(".plot");
    this.strip = figure.querySelector(".strip");
    this.table = figure.querySelector(".wide");
    this.data = [[], [], [], [], []];
    this.draw();
    new ResizeObserver(() => {
      this.chart.setSize(this.size());
      this.failures.setSize(this.stripSize());
    }).observe(this.plot);
    dark.addEventListener("change", () => this.draw());
  }

  size() {
    return { width: this.plot.clientWidth, height: innerWidth < 640 ? 180 : 200 };
  }

  stripSize() {
    return { width: this.plot.clientWidth, height: 64 };
  }

  time(at) {
    return (this.long ? dayTime : clockTime).format(at * 1000);
  }

  draw() {
    this.chart?.destroy();
    this.failures?.destroy();
    const axis = {
      stroke: style("--soft"),
      grid: { stroke: style("--grid"), width: 1 },
      ticks: { stroke: style("--grid"), width: 1 },
      font: "12px system-ui, sans-serif",
    };
    const ticked = this.long ? dayOnly : clockTime;
    const values = { ...axis, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? short.format(tick) : "")), size: 56 };
    const options = (series, size, times) => ({
      ...size,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, __, most) => [0, Math.max(4, most * 1.1)] } },
      axes: [{ ...axis, ...times, values: (_, ticks) => ticks.map((tick) => ticked.format(tick * 1000)), space: 70 }, values],
      series: [
        { label: words.time, value: (_, at) => (at == null ? "–" : this.time(at)) },
        ...series.map(([name, label, dash, width]) => ({
          label, dash, stroke: style(`--${name}`), width, points: { show: false },
          fill: name === "failed" ? style("--failed") : undefined,
          value: (_, value) => (value == null ? "–" : count.format(value)),
        })),
      ],
    });
    this.chart = new uPlot(options(SHOWN, this.size(), {}), this.data.slice(0, 4), this.plot);
    this.failures = new uPlot(options(FAILED, this.stripSize(), { show: false }), [this.data[0], this.data[4]], this.strip);
    this.describe();
  }

  describe() {
    const totals = SERIES.map(([, label], place) =>
      `${label} ${count.format(this.data[place + 1].reduce((sum, each) => sum + each, 0))}`);
    for (const [plot, shown] of [[this.plot, totals.slice(0, 3)], [this.strip, totals.slice(3)]]) {
      // The legend names the sums; its first entry is the time.
      [...plot.querySelectorAll(".u-legend .u-label")].slice(1).forEach((label, place) => { label.textContent = shown[place]; });
      const canvas = plot.querySelector("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${this.caption}. ${shown.join(", ")}. ${words.below}`);
    }
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
    this.chart.setData(this.data.slice(0, 4));
    this.failures.setData([this.data[0], this.data[4]]);
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
      row.insertCell().textContent = this.time(this.data[0][place]);
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
