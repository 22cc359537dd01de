// Every measurement that passes the filters, a page at a time, and all of them as CSV.
(() => {
  const {id, el} = Dash;
  const {time, digits, percent, times, date} = Dash.format;
  const kPageRows = 100;
  let rows = [];  // [series, point]
  let first = 0;
  let order = {column: 0, ascending: false};

  const run = ([s, p]) => Dash.data.runs[s.run[p]];
  const of = (key) => ([s, p]) => Dash.value(s, key, p);
  const columns = [
    {name: 'Date', csv: 'date', value: (r) => run(r).date || '', text: date},
    {name: 'Commit', csv: 'commit', value: (r) => run(r).commit || '', text: (v) => v.slice(0, 8)},
    {name: 'Kernel', csv: 'kernel', value: ([s]) => Dash.benchmarkOf(s).kernel},
    {name: 'Shape', csv: 'shape', value: ([s]) => Dash.benchmarkOf(s).shape, header: true},
    {name: 'Implementation', csv: 'implementation', value: ([s]) => Dash.benchmarkOf(s).impl},
    {name: 'Timer', csv: 'timer', value: ([s]) => Dash.benchmarkOf(s).timer},
    {name: 'Median', csv: 'median_us', value: of('t'), text: time, number: true},
    {name: 'Low', csv: 'low_us', value: of('lo'), text: time, number: true},
    {name: 'High', csv: 'high_us', value: of('hi'), text: time, number: true},
    {name: 'n', csv: 'repetitions', value: of('n'), text: (v) => v === null ? '' : String(v), number: true},
    {name: 'TFLOP/s', csv: 'tflops', value: of('tflops'), text: digits, number: true},
    {name: 'GB/s', csv: 'gbps', value: of('gbps'), text: digits, number: true},
    {name: 'Roofline', csv: 'roofline', value: of('roofline'), text: percent, number: true},
    {name: 'Best peer', csv: 'over_best_peer', value: of('peer'), text: times, number: true},
    {name: 'Error/bound', csv: 'error_bound', value: of('error'), text: (v) => digits(v, 3), number: true},
  ];
  const csvOnly = [
    {csv: 'run', value: (r) => run(r).id},
    {csv: 'machine', value: (r) => Dash.data.machines[run(r).m].label},
    {csv: 'file', value: (r) => run(r).file || ''},
  ];

  const sortRows = () => {
    const {column, ascending} = order;
    const sign = ascending ? 1 : -1;
    const {value, number} = columns[column];
    const keyed = rows.map((row) => [value(row), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      if (number) return sign * (a - b);
      return a < b ? -sign : a > b ? sign : 0;
    });
    rows = keyed.map(([, row]) => row);
  };

  const show = () => {
    const page = rows.slice(first, first + kPageRows);
    const head = columns.map((c, i) => ({
      name: c.name, number: c.number,
      sorted: i === order.column ? (order.ascending ? 'ascending' : 'descending') : null,
      onSort: () => {
        order = {column: i, ascending: i === order.column ? !order.ascending : true};
        first = 0;
        sortRows();
        show();
        id('r-table').querySelectorAll('thead button')[i].focus();
      },
    }));
    const body = page.map((row) => el('tr', {}, ...columns.map((c) => {
      const value = c.value(row);
      const text = c.text ? c.text(value) : value;
      return c.header ? Dash.rowHeader(text) : Dash.cell(text ?? '', c.number);
    })));
    id('r-table').replaceChildren(Dash.table('All measurements', head, body));
    const last = Math.min(first + kPageRows, rows.length);
    id('r-page').textContent = rows.length ? `${first + 1} to ${last} of ${rows.length}` : 'none';
    id('r-count').textContent = `${rows.length} measurements pass the filters`;
    id('r-prev').disabled = first === 0;
    id('r-next').disabled = last >= rows.length;
    id('r-csv').disabled = rows.length === 0;
  };

  const quote = (value) => {
    const text = value === null || value === undefined ? '' : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const download = () => {
    const all = [...columns, ...csvOnly];
    const lines = [all.map((c) => c.csv).join(',')];
    for (const row of rows) lines.push(all.map((c) => quote(c.value(row))).join(','));
    const link = el('a', {download: 'measurements.csv'});
    link.href = URL.createObjectURL(new Blob([lines.join('\r\n') + '\r\n'], {type: 'text/csv'}));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  Dash.makeRaw = () => {
    id('r-prev').addEventListener('click', () => { first = Math.max(0, first - kPageRows); show(); });
    id('r-next').addEventListener('click', () => { first += kPageRows; show(); });
    id('r-csv').addEventListener('click', download);
  };
  const used = ['all', 'machine', 'kernel', 'impl', 'q', 'p'];
  Dash.views.push((changed) => {
    if (!used.some((key) => changed.has(key))) return;
    rows = [];
    Dash.series.forEach((s, i) => {
      if (Dash.visible[i]) for (let p = 0; p < s.run.length; ++p) rows.push([s, p]);
    });
    first = 0;
    sortRows();
    show();
  });
})();
