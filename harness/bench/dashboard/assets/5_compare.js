// Two runs side by side: every series that both have, and where their environments differ.
(() => {
  const {id, el} = Dash;
  const {time, digits} = Dash.format;
  const kLeastEffect = 0.02;

  const byId = (name) => Dash.measuredRuns.find((r) => Dash.data.runs[r].id === name);

  // Without a choice: the newest run of the machine, and the one before it of the same program.
  const chosen = () => {
    const here = Dash.measuredRuns.filter((r) => String(Dash.data.runs[r].m) === Dash.state.machine);
    let b = byId(Dash.state.b);
    if (b === undefined) b = here[here.length - 1];
    let a = byId(Dash.state.a);
    if (a === undefined) {
      const before = here.filter((r) => r < b).reverse();
      a = before.find((r) => Dash.data.runs[r].env.program === Dash.data.runs[b].env.program) ?? before[0] ?? b;
    }
    return [a, b];
  };

  const pairs = (a, b) => {
    const list = [];
    const passes = (i) => Dash.visible[i] || !Dash.onMachine[i];
    Dash.series.forEach((s, i) => {
      const pa = Dash.pointOfRun(s, a);
      const pb = Dash.pointOfRun(s, b);
      if (pa >= 0 && pb >= 0 && passes(i)) list.push({s, pa, pb, ratio: s.t[pb] / s.t[pa]});
    });
    return list;
  };

  // Bands that do not touch, and at least the least effect: the reader's first look, not the gate.
  const verdict = ({s, pa, pb, ratio}) => {
    const known = s.lo && s.lo[pa] !== null && s.lo[pb] !== null;
    if (!known) return ['v-AMBIGUOUS', '? a band is not known'];
    const apart = s.lo[pb] > s.hi[pa] || s.hi[pb] < s.lo[pa];
    if (!apart) return ['v-SAME', '● within noise'];
    if (Math.abs(ratio - 1) < kLeastEffect) return ['v-SAME', '● below 2 %'];
    return ratio > 1 ? ['v-REGRESSED', '▲ slower'] : ['v-IMPROVED', '▼ faster'];
  };

  const bar = (ratio) => {
    const share = Math.min(50, Math.abs(Math.log2(ratio)) * 50);
    const side = ratio > 1 ? `left:50%` : `right:50%`;
    return el('span', {class: 'ratio', 'aria-hidden': 'true'},
              el('span', {class: ratio > 1 ? 'slower' : 'faster', style: `${side};width:${share}%`}));
  };

  const compareTable = (list, a, b) => {
    const sorted = [...list].sort((x, y) => Math.abs(Math.log(y.ratio)) - Math.abs(Math.log(x.ratio)));
    const rows = sorted.map((pair) => {
      const {s, pa, pb, ratio} = pair;
      const [css, words] = verdict(pair);
      const band = (p) => s.lo && s.lo[p] !== null ? ` (${digits(s.lo[p])} to ${digits(s.hi[p])})` : '';
      const ratioCell = Dash.cell(el('span', {}, bar(ratio), ' ' + ratio.toFixed(3)), true);
      return el('tr', {}, Dash.rowHeader(Dash.seriesName(s)), Dash.cell(time(s.t[pa]) + band(pa), true),
                Dash.cell(time(s.t[pb]) + band(pb), true), ratioCell,
                Dash.cell(el('span', {class: 'tag ' + css}, words)));
    });
    return Dash.table('Time of B over A, the largest difference first; below 1 is faster', [{name: 'Benchmark'},
      {name: 'A', number: true}, {name: 'B', number: true}, {name: 'B / A', number: true}, {name: 'Reading'}], rows);
  };

  const environment = (run) => {
    const machine = Dash.data.machines[run.m];
    return {...machine.env, ...run.env, commit: run.commit || '', subject: run.subject || '', date: Dash.format.date(run.date)};
  };
  const environmentTable = (a, b) => {
    const [one, two] = [environment(a), environment(b)];
    const names = [...new Set([...Object.keys(one), ...Object.keys(two)])];
    const rows = names.filter((n) => (one[n] || '') !== (two[n] || '')).map((name) => el('tr', {},
        Dash.rowHeader(name), Dash.cell(one[name] || ''), Dash.cell(two[name] || '')));
    const same = names.length - rows.length;
    if (!rows.length) return el('p', {}, `None: all ${same} recorded facts are the same.`);
    return Dash.table(`What differs; ${same} other recorded facts are the same`,
                      [{name: 'Fact'}, {name: 'A'}, {name: 'B'}], rows);
  };

  const summary = (list, a, b) => {
    const [one, two] = [Dash.data.runs[a], Dash.data.runs[b]];
    if (a === b) return 'A and B are the same run: choose another one.';
    const words = [];
    if (one.m !== two.m) words.push('The runs are of different machines: their times are not compared.');
    else if (!list.length) words.push('The runs have no benchmark in common that passes the filters.');
    if (list.length) {
      const read = list.map((p) => verdict(p)[0]);
      const mean = Math.exp(list.reduce((sum, p) => sum + Math.log(p.ratio), 0) / list.length);
      const count = (css) => read.filter((r) => r === css).length;
      words.push(`${list.length} in common: ${count('v-IMPROVED')} faster, ${count('v-REGRESSED')} slower, ` +
                 `${count('v-SAME')} within noise or below 2 %, ${count('v-AMBIGUOUS')} without a band; geometric mean of B / A ${mean.toFixed(3)}.`);
    }
    return words.join(' ');
  };

  const fill = (select, chosenRun) => {
    const groups = Dash.data.machines.map((m, i) => [m.label, Dash.measuredRuns.filter((r) => Dash.data.runs[r].m === i)]);
    select.replaceChildren(...groups.filter(([, runs]) => runs.length).map(([label, runs]) => el('optgroup', {label},
        ...[...runs].reverse().map((r) => el('option', {value: Dash.data.runs[r].id}, Dash.runTitle(Dash.data.runs[r]))))));
    if (chosenRun !== undefined) select.value = Dash.data.runs[chosenRun].id;
  };

  Dash.makeCompare = () => {
    fill(id('c-a'));
    fill(id('c-b'));
    id('c-a').addEventListener('change', (e) => Dash.set({a: e.target.value}));
    id('c-b').addEventListener('change', (e) => Dash.set({b: e.target.value}));
    id('c-swap').addEventListener('click', () => Dash.set({a: id('c-b').value, b: id('c-a').value}));
  };

  const used = ['all', 'machine', 'kernel', 'impl', 'q', 'p', 'a', 'b'];
  Dash.views.push((changed) => {
    if (!used.some((key) => changed.has(key)) || !Dash.measuredRuns.length) return;
    const [a, b] = chosen();
    if (b === undefined) return;
    id('c-a').value = Dash.data.runs[a].id;
    id('c-b').value = Dash.data.runs[b].id;
    const list = a === b ? [] : pairs(a, b);
    id('c-summary').textContent = summary(list, a, b);
    id('c-table').replaceChildren(...(list.length ? [compareTable(list, a, b)] : []));
    id('c-env').replaceChildren(environmentTable(Dash.data.runs[a], Dash.data.runs[b]));
  });
})();
