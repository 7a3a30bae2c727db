'use strict';
// Draws each description that page.cpp left beside a canvas. The colours are those of the page, light or dark; a drawn
// canvas says how many marks it has.
const kColours = [
  '#1f77d0', '#e07b19', '#2b9e5a', '#c8362f', '#8a63c9', '#8c6a4f', '#d65fa8', '#7b8794', '#a8a51e',
  '#17a2b8'
];
const kForms = ['triangle', 'rectRot', 'star', 'rect'];
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = (value) => value === null ? 'none' :
    typeof value === 'number'           ? String(Number(value.toPrecision(4))) :
                                          value;

// From blue over green to yellow; `place` is 0 to 1.
function shade(place) {
  const stops = [[59, 76, 192], [42, 150, 160], [90, 190, 90], [240, 205, 40]];
  const at = Math.min(Math.max(place, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const mix = stops[i].map((c, k) => Math.round(c + (stops[i + 1][k] - c) * (at - i)));
  return `rgb(${mix})`;
}

// Values to places of 0 to 1, least to greatest.
function places(values) {
  const finite = values.filter((v) => v !== null);
  const low = Math.min(...finite), range = Math.max(...finite) - low || 1;
  return values.map((v) => v === null ? 0 : (v - low) / range);
}

function axis(of, extra = {}) {
  return Object.assign(
      {
        type: of.log ? 'logarithmic' : 'linear',
        title: {display: true, text: of.label, color: style('--faint')},
        ticks: {
          color: style('--faint'),
          callback: (v) => of.log && Math.log10(v) % 1 !== 0 ? '' : short(v)
        },
        grid: {color: style('--rule'), borderColor: style('--rule')},
      },
      extra);
}

// Around values that are all equal, which the library would draw on an axis from -1 to 1 about them.
function around(values) {
  const finite = values.filter((v) => v !== null), first = finite[0];
  if (!finite.length || first === 0 || finite.some((v) => v !== first)) return {};
  return {suggestedMin: first - Math.abs(first) / 2, suggestedMax: first + Math.abs(first) / 2};
}

function options(scales, legend, label) {
  return {
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    scales,
    plugins: {
      legend: {display: legend, labels: {color: style('--ink'), boxWidth: 14}},
      tooltip: {callbacks: {label}},
    },
  };
}

function chart(spec) {
  const kept = (p) => p[0] !== null && (!spec.x.log || p[0] > 0);
  const datasets = spec.series.map((series, i) => {
    const colour = kColours[i % kColours.length];
    const order = series.points.map((_, k) => k).filter((k) => kept(series.points[k]));
    const shades = series.colour.length ? places(series.colour).map(shade) : [];
    const happened = series.mark === 'events';
    const fills = shades.length ? order.map((k) => shades[k]) : colour;
    return {
      label: series.name,
      data: order.map((k) => ({
                        x: series.points[k][0],
                        y: spec.y.log && !(series.points[k][1] > 0) ? null : series.points[k][1]
                      })),
      showLine: series.mark !== 'points' && !happened,
      order: happened ? 0 : 1,
      pointStyle: happened ? kForms[i % kForms.length] : 'circle',
      pointRotation: happened && i % 2 ? 180 : 0,
      stepped: series.mark === 'steps' ? 'before' : false,
      fill: series.fill ? 'origin' : false,
      backgroundColor: series.fill ? colour + '40' : fills,
      borderColor: colour,
      borderWidth: 1.6,
      pointBackgroundColor: fills,
      pointBorderWidth: 0,
      spanGaps: false,
      pointRadius: happened        ? 7 :
          series.mark === 'points' ? 2.2 :
          order.length > 60        ? 0 :
                                     2,
      pointHitRadius: 6,
    };
  });
  const values = datasets.flatMap((one) => one.data.map((point) => point.y));
  return {
    type: 'scatter',
    data: {datasets},
    options: options(
        {
          x: axis(spec.x),
          y: axis(spec.y,
                  spec.series.some((series) => series.fill) ? {beginAtZero: true} : around(values))
        },
        datasets.length > 1,
        (item) => `${item.dataset.label}: ${short(item.parsed.x)}, ${short(item.parsed.y)}`)
  };
}

function bars(spec) {
  const datasets = [];
  // The one interval, its value and what is beside it share a line, so that they can be compared.
  const grouped = spec.series.filter((series) => series.low.length).length !== 1;
  spec.series.forEach((series, i) => {
    const colour = kColours[i % kColours.length];
    if (series.low.length) {
      datasets.push({
        type: 'bar',
        label: series.name,
        grouped,
        backgroundColor: colour + '55',
        borderColor: colour,
        borderWidth: 1,
        data: series.low.map(
            (low, k) => low === null || series.high[k] === null ? null : [low, series.high[k]]),
        told: series.values.map(
            (v, k) => series.low[k] === null ?
                short(v) :
                `${short(v)} (${short(series.low[k])} to ${short(series.high[k])})`)
      });
      datasets.push({
        type: 'scatter',
        label: series.name + ', value',
        backgroundColor: colour,
        pointRadius: 4,
        data: series.values.map(
            (v, k) => spec.lying ? {x: v, y: spec.names[k]} : {x: spec.names[k], y: v}),
        told: series.values.map(short),
        hiddenInLegend: true
      });
    } else {
      datasets.push({
        type: 'bar',
        label: series.name,
        grouped,
        backgroundColor: grouped ? colour : colour + '66',
        data: series.values,
        told: series.values.map(short)
      });
    }
  });
  const names = axis({label: spec.names_label, log: false}, {
    type: 'category',
    labels: spec.names,
    offset: true,
    ticks: {color: style('--faint'), autoSkip: true}
  });
  const values = axis(spec.values);
  const config = {
    type: 'bar',
    data: {labels: spec.names, datasets},
    options: options(
        spec.lying ? {y: names, x: values} : {x: names, y: values}, spec.series.length > 1,
        (item) => `${item.dataset.label}: ${item.dataset.told[item.dataIndex]}`)
  };
  config.options.indexAxis = spec.lying ? 'y' : 'x';
  config.options.plugins.legend.labels.filter = (entry, data) =>
      !data.datasets[entry.datasetIndex].hiddenInLegend;
  return config;
}

function parallel(spec) {
  const colours = places(spec.lines.map((line) => line.places[spec.colour_axis])).map(shade);
  const ends = (a) => {
    const order = spec.lines.filter((line) => line.places[a] !== null)
                      .sort((p, q) => p.places[a] - q.places[a]);
    return order.length ? `${order[0].texts[a]} to ${order[order.length - 1].texts[a]}` : '';
  };
  return {
    type: 'line',
    data: {
      labels: spec.axes.map((name, a) => [name, ends(a)]),
      datasets: spec.lines.map((line, l) => ({
                                 label: line.name,
                                 data: line.places,
                                 texts: line.texts,
                                 borderColor: colours[l],
                                 backgroundColor: colours[l],
                                 borderWidth: 1.4,
                                 pointRadius: 3,
                                 spanGaps: true
                               }))
    },
    options: options(
        {
          x: {ticks: {color: style('--faint')}, grid: {color: style('--rule')}},
          y: {display: false, min: -.05, max: 1.05}
        },
        false, (item) => `${item.dataset.label}: ${item.dataset.texts[item.dataIndex]}`)
  };
}

const kKinds = {
  chart,
  bars,
  parallel
};
const drawn = new Map();
function draw() {
  for (const element of document.querySelectorAll('script[data-picture]')) {
    const canvas = document.getElementById(element.dataset.picture);
    drawn.get(canvas)?.destroy();
    const spec = JSON.parse(element.textContent);
    const config = kKinds[spec.kind](spec);
    drawn.set(canvas, new Chart(canvas, config));
    canvas.dataset.marks = config.data.datasets.reduce((sum, d) => sum + d.data.length, 0);
  }
}
draw();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
addEventListener('beforeprint', () => drawn.forEach((one) => one.resize(680, 300)));
addEventListener('afterprint', () => drawn.forEach((one) => one.resize()));
