// The form of filters, the switch of colours, and the tables that the page came with: rows that do
// not pass are hidden, columns sort.
(() => {
  const {id, el} = Dash;
  const distinct = (list) => [...new Set(list)].filter((v) => v !== '' && v !== undefined && v !== null);
  const byNumber = (a, b) => (Number(a) - Number(b)) || String(a).localeCompare(String(b));

  const fill = (select, options, any) => {
    select.replaceChildren(...(any ? [el('option', {value: ''}, any)] : []),
                           ...options.map(([value, text]) => el('option', {value}, text)));
  };

  const parameterSelects = [];
  const makeParameters = () => {
    const names = distinct(Dash.data.benchmarks.flatMap((b) => Object.keys(b.p)));
    for (const name of names) {
      const values = distinct(Dash.data.benchmarks.map((b) => b.p[name])).map(String).sort(byNumber);
      if (values.length < 2 || values.length > 200) continue;
      const select = el('select', {'data-parameter': name});
      fill(select, values.map((v) => [v, v]), 'any');
      select.addEventListener('change', () => Dash.set({p: {...Dash.state.p, [name]: select.value}}));
      id('filter-parameters').append(el('label', {}, name + ' ', select));
      parameterSelects.push(select);
    }
    id('more-filters').hidden = parameterSelects.length === 0;
  };

  const makeForm = () => {
    const used = distinct(Dash.series.map((s) => s.m)).sort(byNumber);
    fill(id('f-machine'), used.map((m) => [m, Dash.data.machines[m].label]));
    fill(id('f-kernel'), distinct(Dash.data.benchmarks.map((b) => b.kernel)).sort().map((v) => [v, v]), 'any');
    fill(id('f-impl'), distinct(Dash.data.benchmarks.map((b) => b.impl)).sort().map((v) => [v, v]), 'any');
    makeParameters();
    for (const name of ['machine', 'kernel', 'impl']) {
      id('f-' + name).addEventListener('change', (e) => Dash.set({[name]: e.target.value}));
    }
    let wait = 0;
    id('f-q').addEventListener('input', (e) => {
      clearTimeout(wait);
      wait = setTimeout(() => Dash.set({q: e.target.value}), 120);
    });
    id('filters').addEventListener('submit', (e) => e.preventDefault());
    id('filters').addEventListener('reset', (e) => {
      e.preventDefault();
      Dash.clearFilters();
    });
    id('theme').addEventListener('change', (e) => Dash.set({theme: e.target.value}));
    for (const radio of document.querySelectorAll('[name=metric]')) {
      radio.addEventListener('change', () => Dash.set({metric: radio.value}));
    }
  };

  const showForm = () => {
    const {state} = Dash;
    for (const name of ['machine', 'kernel', 'impl', 'q']) {
      if (id('f-' + name).value !== state[name]) id('f-' + name).value = state[name];
    }
    for (const select of parameterSelects) select.value = state.p[select.dataset.parameter] || '';
    const count = Dash.visible.filter(Boolean).length;
    const all = Dash.onMachine.filter(Boolean).length;
    id('filter-count').textContent = `${count} of ${all} series on this machine`;
    id('f-reset').disabled = count === all;
    id('theme').value = state.theme;
    if (state.theme) document.documentElement.dataset.theme = state.theme;
    else delete document.documentElement.dataset.theme;
  };

  const showRows = () => {
    for (const row of document.querySelectorAll('tr[data-s]')) row.hidden = !Dash.visible[row.dataset.s];
    for (const row of document.querySelectorAll('tr[data-m]:not([data-s])')) {
      row.hidden = row.dataset.m !== Dash.state.machine;
    }
  };

  // A map's rows and columns go when none of their cells passes; the other cells stay as they are.
  const showMaps = () => {
    const maps = [...document.querySelectorAll('.heatmap')];
    const here = maps.filter((m) => m.dataset.m === Dash.state.machine);
    const known = here.filter((m) => m.querySelector('table')).map((m) => m.dataset.metric);
    const metric = Dash.state.metric || known[0] || 'peer';
    for (const radio of document.querySelectorAll('[name=metric]')) radio.checked = radio.value === metric;
    for (const map of maps) {
      map.hidden = map.dataset.m !== Dash.state.machine || map.dataset.metric !== metric;
      if (map.hidden) continue;
      for (const row of map.querySelectorAll('tbody tr')) {
        row.hidden = ![...row.querySelectorAll('[data-s]')].some((c) => Dash.visible[c.dataset.s]);
      }
    }
  };

  // Sorting by a column: numbers by data-v, words as words, the empty ones last.
  const sortBy = (table, column, header) => {
    const ascending = header.getAttribute('aria-sort') !== 'ascending';
    for (const other of table.querySelectorAll('thead th')) other.removeAttribute('aria-sort');
    header.setAttribute('aria-sort', ascending ? 'ascending' : 'descending');
    const key = (row) => {
      const cell = row.children[column];
      return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    const sign = ascending ? 1 : -1;
    rows.sort(([a], [b]) => {
      if (a === '–' || b === '–') return (a === '–') - (b === '–');
      if (typeof a === 'number' && typeof b === 'number') return sign * (a - b);
      return sign * String(a).localeCompare(String(b), 'en', {numeric: true});
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  const makeSortable = () => {
    for (const table of document.querySelectorAll('table[data-sortable]')) {
      [...table.tHead.rows[0].cells].forEach((header, column) => {
        const button = el('button', {type: 'button'}, header.textContent);
        button.addEventListener('click', () => sortBy(table, column, header));
        header.replaceChildren(button);
      });
    }
  };

  // Names of benchmarks lead to their chart.
  const makeLinks = () => {
    for (const row of document.querySelectorAll('tr[data-s]')) {
      const header = row.querySelector('th[scope=row]');
      const shape = Dash.benchmarkOf(Dash.series[row.dataset.s]).shape;
      const button = el('button', {type: 'button', class: 'link', title: 'Show its trend'}, ...header.childNodes);
      button.addEventListener('click', () => {
        Dash.set({shape});
        Dash.goTo('trend');
      });
      header.replaceChildren(button);
    }
  };

  Dash.goTo = (section) => {
    document.getElementById(section).scrollIntoView();
    document.getElementById(section + '-h').focus({preventScroll: true});
  };
  const makeNavigation = () => {
    for (const link of document.querySelectorAll('.sections a')) {
      link.addEventListener('click', (e) => {
        e.preventDefault();  // the address keeps the choices
        Dash.goTo(link.hash.slice(1));
      });
    }
    document.querySelector('.skip').addEventListener('click', (e) => {
      e.preventDefault();
      id('main').focus();
    });
  };

  Dash.makeFilters = () => {
    makeForm();
    makeSortable();
    makeLinks();
    makeNavigation();
  };
  Dash.views.push(() => {
    showForm();
    showRows();
    showMaps();
  });
})();
