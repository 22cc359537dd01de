// What the reader chose. All of it stands in the address after #, so that a link shows the same.
(() => {
  const defaults = {
    machine: String(Dash.newestMachine()), kernel: '', impl: '', q: '', metric: '', shape: '',
    figure: 't', x: 'runs', scale: 'linear', a: '', b: '', theme: '',
  };
  Dash.state = {...defaults, p: {}};

  // Choices with few values: a link with another one means the default.
  const allowed = {
    metric: ['', 'peer', 'roofline'], figure: Object.keys(Dash.metrics), x: ['runs', 'date'],
    scale: ['linear', 'log'], theme: ['', 'light', 'dark'],
    machine: Dash.data.machines.map((m, i) => String(i)),
  };

  const read = () => {
    const state = {...defaults, p: {}};
    for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
      if (key.startsWith('p.')) state.p[key.slice(2)] = value;
      else if (key in defaults) state[key] = value;
    }
    for (const [key, values] of Object.entries(allowed)) {
      if (!values.includes(state[key])) state[key] = defaults[key];
    }
    return state;
  };

  const write = () => {
    const words = new URLSearchParams();
    for (const key of Object.keys(defaults)) {
      if (Dash.state[key] !== defaults[key]) words.set(key, Dash.state[key]);
    }
    for (const [name, value] of Object.entries(Dash.state.p)) if (value) words.set('p.' + name, value);
    const hash = words.toString();
    history.replaceState(null, '', hash ? '#' + hash : location.pathname + location.search);
  };

  const show = (changed) => {
    Dash.filter();
    for (const view of Dash.views) view(changed);
  };
  Dash.set = (patch) => {
    Object.assign(Dash.state, patch);
    write();
    show(new Set(Object.keys(patch)));
  };
  Dash.clearFilters = () => Dash.set({kernel: '', impl: '', q: '', p: {}});
  Dash.start = () => {
    Dash.state = read();
    show(new Set(['all']));
    // A link to a section is no choice of the reader's.
    window.addEventListener('hashchange', () => {
      if (location.hash && !location.hash.includes('=')) return write();
      Dash.state = read();
      show(new Set(['all']));
    });
  };

  const hasParameters = (benchmark) => Object.entries(Dash.state.p).every(
      ([name, value]) => !value || String(benchmark.p[name] ?? '') === value);
  const hasWords = (benchmark) => {
    const text = `${benchmark.kernel} ${benchmark.name} ${benchmark.shape} ${benchmark.impl}`.toLowerCase();
    return Dash.state.q.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  };

  // Series that pass the filters; of the machine only, and without regard to the implementation
  // (a chart shows the peers of what was chosen).
  Dash.filter = () => {
    const {machine, kernel, impl} = Dash.state;
    const passes = Dash.data.benchmarks.map((b) => (!kernel || b.kernel === kernel) && hasParameters(b) &&
                                                    hasWords(b));
    Dash.onMachine = Dash.series.map((s) => String(s.m) === machine);
    Dash.visible = Dash.series.map((s, i) => Dash.onMachine[i] && passes[s.b] &&
                                              (!impl || Dash.benchmarkOf(s).impl === impl));
    Dash.shapes = [...new Set(Dash.series.filter((s, i) => Dash.visible[i]).map((s) => Dash.benchmarkOf(s).shape))];
  };
})();
