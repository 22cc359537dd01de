// One shape over the runs of a machine: a line for each implementation, its band, changes, and the
// same as a table.
(() => {
  const {id, el} = Dash;
  const kMostRows = 300;
  const dashes = [[], [6, 4], [2, 3], [10, 4, 2, 4], [14, 5], [1, 5]];
  let chart = null;
  let shown = null;  // {lines, runs, index}

  const colour = (i) => getComputedStyle(document.documentElement).getPropertyValue('--c' + i % 6).trim();
  const inkOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Without a choice: the shape with the most runs.
  const shapeOf = () => {
    if (Dash.shapes.includes(Dash.state.shape)) return Dash.state.shape;
    const longest = Dash.series.filter((s, i) => Dash.visible[i])
        .reduce((best, s) => !best || s.run.length > best.run.length ? s : best, null);
    return longest ? Dash.benchmarkOf(longest).shape : undefined;
  };

  // Every implementation of the shape on this machine, ours first, and the runs that any has.
  const gather = (shape, key) => {
    const lines = Dash.series.filter((s, i) => Dash.onMachine[i] && s[key] && Dash.benchmarkOf(s).shape === shape);
    const has = (run) => Dash.state.x !== 'date' || Dash.data.runs[run].date;
    const runs = [...new Set(lines.flatMap((s) => s.run))].filter(has).sort((a, b) => a - b);
    const timers = new Set(lines.map((s) => Dash.benchmarkOf(s).timer));
    const programs = new Set(lines.map((s) => Dash.benchmarkOf(s).program));
    const name = (s) => {
      const b = Dash.benchmarkOf(s);
      const more = [programs.size > 1 ? b.program : '', timers.size > 1 ? b.timer : ''].filter(Boolean);
      return (b.impl || b.program) + (more.length ? ` (${more.join(', ')})` : '');
    };
    return {lines, runs, names: lines.map(name), key, index: runs.length - 1};
  };

  const column = (series, runs, key) => runs.map((run) => {
    const point = Dash.pointOfRun(series, run);
    return point < 0 ? null : Dash.value(series, key, point);
  });

  const changesOf = (lines) => Dash.data.changes.filter((c) => lines.includes(Dash.series[c.s]));

  // Dashed upright lines where a line of the chart has a change.
  const drawChanges = (view) => (u) => {
    const {ctx} = u;
    ctx.save();
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const change of changesOf(view.lines)) {
      const place = view.runs.indexOf(change.run);
      if (place < 0) continue;
      const x = Math.round(u.valToPos(view.xs[place], 'x', true));
      ctx.strokeStyle = inkOf(change.after > change.before ? '--bad' : '--good');
      ctx.beginPath();
      ctx.moveTo(x, u.bbox.top);
      ctx.lineTo(x, u.bbox.top + u.bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };

  const axisText = (view) => (u, splits) => splits.map((v) => {
    if (!Number.isInteger(v) || !view.runs[v]) return v === 0 && view.runs.length ? labelOf(view.runs[0]) : '';
    return labelOf(view.runs[v]);
  });
  const labelOf = (run) => {
    const r = Dash.data.runs[run];
    return r.commit ? r.commit.slice(0, 7) : Dash.format.date(r.date).slice(0, 10);
  };

  const options = (view, width) => {
    const metric = Dash.metrics[view.key];
    const isDate = Dash.state.x === 'date';
    const series = [{}];
    const bands = [];
    view.lines.forEach((line, i) => {
      const ours = Dash.isOurs(line);
      series.push({label: view.names[i], stroke: colour(i), width: ours ? 2.5 : 1.5, dash: dashes[i % 6], spanGaps: true,
                   points: {show: view.runs.length < 60, size: ours ? 6 : 5, fill: colour(i)}});
    });
    if (metric.hasBand) {
      view.lines.forEach((line, i) => {
        if (!line.lo) return;
        const at = series.length;
        const plain = {stroke: 'transparent', width: 0, spanGaps: true, points: {show: false}};
        series.push({...plain, label: 'high'}, {...plain, label: 'low'});
        bands.push({series: [at, at + 1], fill: colour(i) + '33'});
      });
    }
    const ink = inkOf('--soft');
    const grid = {stroke: inkOf('--rule'), width: 1};
    return {
      width, height: width < 500 ? 260 : 360, series, bands, legend: {show: false},
      scales: {x: {time: isDate, range: (u, min, max) => view.runs.length === 1 ? [min - 1, max + 1] : [min, max]},
               y: {distr: Dash.state.scale === 'log' ? 3 : 1, range: Dash.state.scale === 'log' ? null :
                 (u, min, max) => { const pad = Math.max((max - min) * 0.1, max * 0.02); return [Math.max(0, min - pad), max + pad]; }}},
      axes: [{stroke: ink, grid, ticks: grid, space: 80, incrs: isDate ? undefined : [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000],
              values: isDate ? undefined : axisText(view)},
             {stroke: ink, grid, ticks: grid, size: 78, values: (u, v) => v.map((y) => y === null ? '' : metric.text(y))}],
      cursor: {drag: {x: true, y: false}, points: {size: 8}},
      hooks: {draw: [drawChanges(view)], setCursor: [(u) => { if (u.cursor.idx !== null && u.cursor.idx !== undefined) readOut(u.cursor.idx); }]},
    };
  };

  const draw = (view) => {
    const box = id('chart');
    if (chart) chart.destroy();
    chart = null;
    box.replaceChildren();
    if (typeof uPlot === 'undefined') {
      box.append(el('p', {class: 'note'}, 'This page was made without the chart library; the table below has the figures.'));
      id('t-table').open = true;
      return;
    }
    if (!view.runs.length) {
      box.append(el('p', {class: 'note'}, 'No implementation of this shape has this figure.'));
      return;
    }
    view.xs = view.runs.map((run, i) => Dash.state.x === 'date' ? Date.parse(Dash.data.runs[run].date) / 1000 : i);
    const columns = [view.xs, ...view.lines.map((s) => column(s, view.runs, view.key))];
    if (Dash.metrics[view.key].hasBand) {
      for (const s of view.lines) if (s.lo) columns.push(column(s, view.runs, 'hi'), column(s, view.runs, 'lo'));
    }
    chart = new uPlot(options(view, Math.max(240, box.clientWidth - 10)), columns, box);
    for (const canvas of box.querySelectorAll('canvas')) canvas.setAttribute('aria-hidden', 'true');
    Dash.chart = chart;
  };

  const readOut = (index) => {
    shown.index = index;
    const run = Dash.data.runs[shown.runs[index]];
    const metric = Dash.metrics[shown.key];
    const figures = shown.lines.map((s, i) => {
      const point = Dash.pointOfRun(s, shown.runs[index]);
      if (point < 0) return null;
      const band = metric.hasBand && s.lo && s.lo[point] !== null ?
          ` (${metric.text(s.lo[point])} to ${metric.text(s.hi[point])})` : '';
      return `${shown.names[i]} ${metric.text(Dash.value(s, shown.key, point))}${band}`;
    });
    id('t-read').textContent = `Run ${index + 1} of ${shown.runs.length}, ${Dash.runTitle(run)}. ` + figures.filter(Boolean).join('; ');
  };

  const legend = (view) => {
    id('t-legend').replaceChildren(...view.lines.map((line, i) => {
      const item = el('li', {}, view.names[i]);
      item.insertAdjacentHTML('afterbegin', `<svg width="30" height="10" aria-hidden="true"><path d="M0 5H30" fill="none" ` +
        `stroke="var(--c${i % 6})" stroke-width="${Dash.isOurs(line) ? 3 : 2}" stroke-dasharray="${dashes[i % 6].join(' ')}"/></svg>`);
      return item;
    }));
  };

  const fallback = (view) => {
    const metric = Dash.metrics[view.key];
    const newest = [...view.runs].reverse().slice(0, kMostRows);
    const columns = [{name: 'Run'}, ...view.names.map((name) => ({name, number: true}))];
    const rows = newest.map((run) => el('tr', {}, Dash.rowHeader(Dash.runName(Dash.data.runs[run])),
        ...view.lines.map((s) => {
          const point = Dash.pointOfRun(s, run);
          return Dash.cell(point < 0 ? '' : metric.text(Dash.value(s, view.key, point)), true);
        })));
    const more = view.runs.length > kMostRows ? `; the newest ${kMostRows} of ${view.runs.length} runs` : '';
    const box = Dash.table(`${metric.name}, ${view.shape}${more}`, columns, rows);
    id('t-table').replaceChildren(id('t-table').querySelector('summary'), box);
  };

  const showChoices = (shape) => {
    const select = id('t-shape');
    const groups = new Map();
    for (const name of Dash.shapes) {
      const kernel = Dash.data.benchmarks.find((b) => b.shape === name).kernel || 'others';
      if (!groups.has(kernel)) groups.set(kernel, []);
      groups.get(kernel).push(el('option', {value: name}, name));
    }
    select.replaceChildren(...[...groups].map(([label, list]) => el('optgroup', {label}, ...list)));
    select.value = shape || '';
    id('t-metric').value = Dash.state.figure;
    id('t-x').value = Dash.state.x;
    id('t-scale').value = Dash.state.scale;
    const place = Dash.shapes.indexOf(shape);
    id('t-prev').disabled = place <= 0;
    id('t-next').disabled = place < 0 || place + 1 >= Dash.shapes.length;
  };

  const step = (by) => Dash.set({shape: Dash.shapes[Dash.shapes.indexOf(shapeOf()) + by]});

  const onKey = (e) => {
    const steps = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity};
    if (!shown || !shown.runs.length) return;
    if (e.key === 'Enter') return pick(shown.index);
    if (!(e.key in steps)) return;
    e.preventDefault();
    const index = Math.min(shown.runs.length - 1, Math.max(0, shown.index + steps[e.key]));
    readOut(index);
    if (chart) {
      const y = chart.data[1][index];
      chart.setCursor({left: chart.valToPos(chart.data[0][index], 'x'), top: y === null ? 0 : chart.valToPos(y, 'y')}, false);
    }
  };

  // The run under the cursor becomes B, the one before it of the same program A.
  const pick = (index) => {
    const run = shown.runs[index];
    const before = shown.runs.slice(0, index).reverse().find((r) => Dash.data.runs[r].env.program === Dash.data.runs[run].env.program);
    Dash.set({b: Dash.data.runs[run].id, a: Dash.data.runs[before ?? run].id});
    Dash.goTo('compare');
  };

  Dash.makeTrend = () => {
    for (const [name, key] of [['t-shape', 'shape'], ['t-metric', 'figure'], ['t-x', 'x'], ['t-scale', 'scale']]) {
      id(name).addEventListener('change', (e) => Dash.set({[key]: e.target.value}));
    }
    id('t-prev').addEventListener('click', () => step(-1));
    id('t-next').addEventListener('click', () => step(1));
    id('chart').addEventListener('keydown', onKey);
    id('chart').addEventListener('dblclick', () => { if (shown) pick(shown.index); });
    let width = 0;
    new ResizeObserver(() => {
      const now = id('chart').clientWidth;
      if (chart && now !== width) chart.setSize({width: Math.max(240, now - 10), height: chart.height});
      width = now;
    }).observe(id('chart'));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { if (shown) draw(shown); });
  };

  const used = ['all', 'machine', 'kernel', 'impl', 'q', 'p', 'shape', 'figure', 'x', 'scale', 'theme'];
  Dash.views.push((changed) => {
    if (!used.some((key) => changed.has(key))) return;
    const shape = shapeOf();
    showChoices(shape);
    shown = gather(shape, Dash.state.figure);
    shown.shape = shape;
    draw(shown);
    legend(shown);
    fallback(shown);
    if (shown.runs.length) readOut(shown.runs.length - 1);
    else id('t-read').textContent = '';
  });
})();
