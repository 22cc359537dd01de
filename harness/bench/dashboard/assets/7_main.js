(() => {
  for (const node of document.querySelectorAll('.scripted')) node.hidden = false;
  Dash.makeFilters();
  Dash.makeTrend();
  Dash.makeCompare();
  Dash.makeRaw();
  Dash.start();
})();
