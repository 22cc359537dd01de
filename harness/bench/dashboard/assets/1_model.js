'use strict';
// The data of the page, how figures are written, and what each series is called.
const Dash = {views: []};

(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  Dash.data = data;
  Dash.series = data.series;

  Dash.el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === 'on') for (const [type, f] of Object.entries(value)) node.addEventListener(type, f);
      else if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  };
  Dash.id = (name) => document.getElementById(name);

  // Four significant digits without an exponent where that is short, as the tables above have.
  const digits = (value, significant = 4) => {
    if (value === null || value === undefined) return '';
    const size = Math.abs(value);
    if (size >= 1e-3 && size < 1e6) {
      const whole = Math.floor(Math.log10(size)) + 1;
      return value.toFixed(Math.max(0, significant - whole));
    }
    return String(Number(value.toPrecision(significant)));
  };
  const time = (us) => {
    if (us === null || us === undefined) return '';
    if (us >= 1e6) return digits(us / 1e6) + ' s';
    return us >= 1e3 ? digits(us / 1e3) + ' ms' : digits(us) + ' µs';
  };
  const percent = (f) => (f === null || f === undefined) ? '' :
      (100 * f).toFixed(Math.abs(f) < 0.0995 ? 1 : 0) + ' %';
  const times = (r) => (r === null || r === undefined) ? '' : r.toFixed(r < 9.995 ? 2 : 1) + '×';
  const date = (iso) => iso && iso[10] === 'T' ? iso.slice(0, 10) + ' ' + iso.slice(11, 16) : iso || '';
  Dash.format = {digits, time, percent, times, date};

  Dash.metrics = {
    t: {name: 'Time', text: time, hasBand: true},
    tflops: {name: 'TFLOP/s', text: digits},
    gbps: {name: 'GB/s', text: digits},
    roofline: {name: 'Fraction of the roofline', text: percent},
    peer: {name: 'Speed over the best peer', text: times},
    error: {name: 'Error/bound', text: (v) => digits(v, 3)},
  };

  Dash.benchmarkOf = (series) => data.benchmarks[series.b];
  Dash.isOurs = (series) => !Dash.benchmarkOf(series).peer;
  Dash.seriesName = (series) => {
    const b = Dash.benchmarkOf(series);
    return b.impl ? `${b.shape}, ${b.impl}` : b.shape;
  };
  Dash.runName = (run) => {
    const words = [date(run.date) || run.file || run.id];
    if (run.commit) words.push(run.commit.slice(0, 8));
    return words.join(', ');
  };
  Dash.runTitle = (run) => Dash.runName(run) + (run.env.program ? `, ${run.env.program}` : '') +
      (run.subject ? `: ${run.subject}` : '');

  // Where each run is in each series, made when first asked for.
  Dash.pointOfRun = (series, run) => {
    if (!series.places) series.places = new Map(series.run.map((r, i) => [r, i]));
    const place = series.places.get(run);
    return place === undefined ? -1 : place;
  };
  Dash.value = (series, key, point) => series[key] ? series[key][point] : null;

  const measured = new Set();
  for (const s of data.series) for (const r of s.run) measured.add(r);
  Dash.measuredRuns = [...measured].sort((a, b) => a - b);

  // The newest measured run's machine is the one that a reader came for.
  Dash.newestMachine = () => {
    const last = Dash.measuredRuns[Dash.measuredRuns.length - 1];
    return last === undefined ? 0 : data.runs[last].m;
  };

  Dash.table = (caption, columns, rows) => {
    const head = Dash.el('tr', {}, ...columns.map((c) => Dash.el('th',
        {scope: 'col', class: c.number ? 'num' : null, 'aria-sort': c.sorted || null},
        c.onSort ? Dash.el('button', {type: 'button', on: {click: c.onSort}}, c.name) : c.name)));
    const table = Dash.el('table', {}, Dash.el('caption', {}, Dash.el('span', {}, caption)), Dash.el('thead', {}, head),
                          Dash.el('tbody', {}, ...rows));
    return Dash.el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption}, table);
  };
  Dash.cell = (content, number) => Dash.el('td', {class: number ? 'num' : null},
                                           content === '' || content === null ? '–' : content);
  Dash.rowHeader = (content) => Dash.el('th', {scope: 'row'}, content);
})();
