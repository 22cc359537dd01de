// What a reader does with the page: filters, sorts, follows a trend by keyboard, compares two runs,
// downloads, changes colours, and keeps it all in a link. At the width of a desk and of a telephone.
import assert from 'node:assert/strict';
import {readFile, writeFile} from 'node:fs/promises';
import {after, before, test} from 'node:test';
import {assertClean, launch, open, pageFile, texts, visibleRows} from './browser.mjs';

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser.close(); });

const hashOf = (page) => page.evaluate(() => location.hash);

for (const width of [1280, 400]) {
  test(`filters hide what does not pass, ${width} px`, async () => {
    const opened = await open(browser, 'sample.html', {width});
    const {page} = opened;
    assert.equal(await visibleRows(page, '#latest-table'), 24, 'the machine of the newest run');
    await page.selectOption('#f-kernel', 'decode');
    assert.equal(await visibleRows(page, '#latest-table'), 12);
    assert.equal(await visibleRows(page, '#changes-table'), 4);
    assert.equal(await visibleRows(page, '#gate-table'), 4);
    assert.match(await page.textContent('#filter-count'), /12 of 24/);
    await page.selectOption('#f-impl', 'cuda');
    assert.equal(await visibleRows(page, '#latest-table'), 4);
    await page.fill('#f-q', 'ctx1024 d64');
    await page.waitForFunction(() => document.getElementById('filter-count').textContent.startsWith('0 of'));
    await page.fill('#f-q', 'CTX1024 d128');
    await page.waitForFunction(() => document.getElementById('filter-count').textContent.startsWith('2 of'));
    assert.match(await hashOf(page), /kernel=decode&impl=cuda&q=CTX1024/);
    await page.click('#f-reset');
    assert.equal(await visibleRows(page, '#latest-table'), 24);
    assert.equal(await hashOf(page), '');
    await page.click('#more-filters summary');
    await page.selectOption('[data-parameter=head_dim]', '64');
    assert.equal(await visibleRows(page, '#latest-table'), 9);
    assert.match(await page.textContent('#r-count'), /^297 measurements/);
    await page.selectOption('#f-machine', '1');
    const times = await texts(page, '#latest-table tbody td:nth-child(4)');
    assert.equal(times.length, 9);
    assert.ok(times.every((t) => / (ms|s)$/.test(t)), 'the slow machine');
    assertClean(opened);
    await opened.close();
  });

  test(`nothing is wider than the page, ${width} px`, async () => {
    const opened = await open(browser, 'sample.html', {width});
    const wide = await opened.page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `${wide} px of ${width}`);
    await opened.close();
  });

  test(`comparing two runs, ${width} px`, async () => {
    const opened = await open(browser, 'sample.html', {width});
    const {page} = opened;
    const ids = await page.evaluate(() => Dash.data.runs.map((r) => r.id));
    await page.selectOption('#c-a', ids[0]);
    await page.selectOption('#c-b', ids[38]);
    // From run 0 to 38 decode of ours became 8 % slower, and nothing else changed.
    assert.match(await page.textContent('#c-summary'), /24 in common: 0 faster, 4 slower, 20 within noise or below 2 %, 0 without/);
    const first = await texts(page, '#c-table tbody tr:nth-child(1) > *');
    assert.match(first[0], /^decode .*, cuda$/);
    assert.ok(Number(first[3]) > 1.05 && Number(first[3]) < 1.12, first[3]);
    assert.match(first[4], /slower/);
    await page.click('#c-swap');
    assert.match(await page.textContent('#c-summary'), /4 faster, 0 slower/);
    const facts = await texts(page, '#c-env tbody th');
    assert.deepEqual(facts, ['driver', 'commit', 'subject', 'date']);
    await page.selectOption('#c-a', ids[4]);
    assert.match(await page.textContent('#c-summary'), /different machines/);
    assert.equal(await page.locator('#c-table table').count(), 0);
    await page.selectOption('#c-a', ids[0]);
    await page.selectOption('#c-b', ids[0]);
    assert.match(await page.textContent('#c-summary'), /the same run/);
    assertClean(opened);
    await opened.close();
  });
}

test('a link keeps every choice', async () => {
  const opened = await open(browser, 'sample.html');
  const {page, url} = opened;
  const ids = await page.evaluate(() => Dash.data.runs.map((r) => r.id));
  await page.selectOption('#f-kernel', 'prefill');
  await page.selectOption('#t-metric', 'tflops');
  await page.selectOption('#t-x', 'date');
  await page.selectOption('#t-scale', 'log');
  await page.click('#t-next');
  await page.selectOption('#c-a', ids[1]);
  await page.selectOption('#c-b', ids[2]);
  await page.check('[name=metric][value=roofline]');
  await page.selectOption('#theme', 'dark');
  await page.click('#more-filters summary');
  await page.selectOption('[data-parameter=mask]', 'full');
  const look = (p) => p.evaluate(() => ({
    fields: [...document.querySelectorAll('select')].map((s) => s.id + '=' + s.value),
    metric: document.querySelector('[name=metric]:checked').value, theme: document.documentElement.dataset.theme,
    rows: [...document.querySelectorAll('#latest-table tbody tr')].map((r) => r.hidden),
    summary: document.getElementById('c-summary').textContent,
  }));
  const wanted = await look(page);
  const hash = await hashOf(page);
  assertClean(opened);
  await opened.close();
  const again = await open(browser, 'sample.html', {hash});
  assert.deepEqual(await look(again.page), wanted);
  // Back to the bare address by hand: everything as at first.
  await again.page.evaluate(() => { location.hash = 'machine=1'; });
  await again.page.waitForFunction(() => document.getElementById('f-machine').value === '1');
  assert.equal(await again.page.inputValue('#f-kernel'), '');
  assert.equal(again.page.url(), url + '#machine=1');
  assertClean(again);
  await again.close();
});

test('a damaged link shows the page as at first', async () => {
  const opened = await open(browser, 'sample.html', {hash: '#machine=99&figure=none&shape=%3Cb%3E&a=x&p.head_dim=&z=1&metric=no'});
  assert.equal(await visibleRows(opened.page, '#latest-table'), 24);
  assert.equal(await opened.page.locator('#chart canvas').count(), 1);
  assert.equal(await opened.page.locator('.heatmap').filter({visible: true}).count(), 1);
  assertClean(opened);
  await opened.close();
});

test('columns sort and say so', async () => {
  const opened = await open(browser, 'sample.html');
  const {page} = opened;
  for (const [table, column] of [['#latest-table', 4], ['#r-table', 7]]) {
    const header = page.locator(`${table} thead th:nth-child(${column})`);
    const values = async () => {
      const all = await texts(page, `${table} tbody tr > :nth-child(${column})`);
      return all.map((t) => parseFloat(t) * (t.endsWith('ms') ? 1e3 : t.endsWith('µs') ? 1 : 1e6));
    };
    await header.locator('button').click();
    assert.equal(await header.getAttribute('aria-sort'), 'ascending');
    const up = await values();
    assert.deepEqual(up, [...up].sort((a, b) => a - b));
    await page.locator(`${table} thead th:nth-child(${column}) button`).click();
    assert.equal(await header.getAttribute('aria-sort'), 'descending');
    const down = await values();
    assert.deepEqual(down, [...down].sort((a, b) => b - a));
    await page.locator(`${table} thead th:nth-child(1) button`).click();
    assert.equal(await page.locator(`${table} [aria-sort]`).count(), 1, 'only the column that was last sorted by');
  }
  assertClean(opened);
  await opened.close();
});

for (const width of [1280, 400]) {
  test(`the keyboard reaches and does everything, ${width} px`, async () => {
    const opened = await open(browser, 'sample.html', {width});
    const {page} = opened;
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
    // Every control can be focused by Tab, in the order of the page.
    const missed = await page.evaluate(() => [...document.querySelectorAll('button, select, input, a[href], summary, .scroll, .chart')]
      .filter((e) => e.checkVisibility() && !e.disabled && e.tabIndex < 0).map((e) => e.outerHTML.slice(0, 80)));
    assert.deepEqual(missed, []);
    await page.focus('#chart');
    const read = () => page.textContent('#t-read');
    assert.match(await read(), /^Run 33 of 33, .*cuda .*\(.* to .*\); cudnn .*; flash /);
    await page.keyboard.press('ArrowLeft');
    assert.match(await read(), /^Run 32 of 33/);
    await page.keyboard.press('Home');
    assert.match(await read(), /^Run 1 of 33/);
    await page.keyboard.press('PageDown');
    assert.match(await read(), /^Run 11 of 33/);
    await page.keyboard.press('End');
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'compare-h');
    const chosen = await page.evaluate(() => [Dash.state.a, Dash.state.b].map((id) => Dash.data.runs.findIndex((r) => r.id === id)));
    assert.deepEqual(chosen, [38, 39]);
    // A benchmark's name leads to its chart.
    await page.locator('#latest-table tbody tr:nth-child(5) th button').focus();
    await page.keyboard.press('Enter');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'trend-h');
    assert.match(await page.inputValue('#t-shape'), /^decode B1 ctx1024/);
    // A visible mark of focus.
    await page.focus('#f-kernel');
    await page.keyboard.press('Tab');
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'none');
    assertClean(opened);
    await opened.close();
  });
}

test('the chart has every line, its band, and a table of the same figures', async () => {
  const opened = await open(browser, 'sample.html');
  const {page} = opened;
  const shape = await page.evaluate(() => ({series: Dash.chart.series.length, bands: Dash.chart.bands.length,
                                            points: Dash.chart.data[0].length}));
  assert.deepEqual(shape, {series: 1 + 3 + 6, bands: 3, points: 33});
  assert.deepEqual(await texts(page, '#t-legend li'), ['cuda', 'cudnn', 'flash']);
  await page.click('#t-table summary');
  const first = await texts(page, '#t-table tbody tr:nth-child(1) td');
  const latest = await texts(page, '#latest-table tbody tr:nth-child(-n+3) td:nth-child(4)');
  assert.deepEqual(first, latest);
  // Ink was put on the canvas.
  const drawn = await page.evaluate(() => {
    const canvas = document.querySelector('#chart canvas');
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return pixels.filter((v, i) => i % 4 === 3 && v > 0).length;
  });
  assert.ok(drawn > 2000, `${drawn} pixels`);
  await page.selectOption('#t-x', 'date');
  const dates = await page.evaluate(() => Dash.chart.data[0]);
  assert.equal(dates.length, 32, 'the run without a date has no place among dates');
  assert.equal(new Date(dates[31] * 1000).toISOString(), '2020-02-12T10:39:00.000Z');
  await page.selectOption('#t-metric', 'peer');
  assert.equal(await page.evaluate(() => Dash.chart.bands.length), 0);
  assertClean(opened);
  await opened.close();
});

test('maps show one figure at a time', async () => {
  const opened = await open(browser, 'sample.html');
  const {page} = opened;
  const captions = () => texts(page, '.heatmap caption');
  assert.match((await captions()).join(), /^Speed over the fastest peer.*H200/);
  assert.equal((await captions()).length, 1);
  await page.check('[name=metric][value=roofline]');
  assert.match((await captions()).join(), /^Fraction of the roofline.*H200/);
  await page.selectOption('#f-kernel', 'decode');
  assert.equal(await page.locator('.heatmap tbody tr').filter({visible: true}).count(), 4);
  assertClean(opened);
  await opened.close();
});

test('the CSV holds every row that passes', async () => {
  const opened = await open(browser, 'sample.html');
  const {page} = opened;
  await page.fill('#f-q', '<i>');
  await page.waitForFunction(() => document.getElementById('r-count').textContent.startsWith('99 '));
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#r-csv')]);
  assert.equal(download.suggestedFilename(), 'measurements.csv');
  const lines = (await readFile(await download.path(), 'utf8')).trimEnd().split('\r\n');
  assert.equal(lines.length, 1 + 99);
  const names = lines[0].split(',');
  assert.deepEqual(names.slice(0, 4), ['date', 'commit', 'kernel', 'shape']);
  const cells = lines[1].match(/("([^"]|"")*"|[^,]*)(,|$)/g);
  assert.match(cells[3], /^"decode .* <i>&"""/);
  assert.ok(Number(lines[1].split(',')[names.indexOf('median_us')]) > 100);
  await page.click('#f-reset');
  assert.match(await page.textContent('#r-page'), /1 to 100 of 792/);
  await page.click('#r-next');
  assert.match(await page.textContent('#r-page'), /101 to 200 of 792/);
  assertClean(opened);
  await opened.close();
});

for (const width of [1280, 400]) {
  test(`dark and light, by the system and by the switch, ${width} px`, async () => {
    const paper = (page) => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const light = await open(browser, 'sample.html', {width, colorScheme: 'light'});
    const dark = await open(browser, 'sample.html', {width, colorScheme: 'dark'});
    const [white, black] = [await paper(light.page), await paper(dark.page)];
    assert.notEqual(white, black);
    await light.page.selectOption('#theme', 'dark');
    assert.equal(await paper(light.page), black);
    await dark.page.selectOption('#theme', 'light');
    assert.equal(await paper(dark.page), white);
    assertClean(light);
    assertClean(dark);
    await light.close();
    await dark.close();
  });
}

test('without a script there are the tables', async () => {
  const opened = await open(browser, 'sample.html', {javaScriptEnabled: false});
  const {page} = opened;
  assert.equal(await visibleRows(page, '#latest-table'), 48);
  assert.equal(await visibleRows(page, '#changes-table'), 4);
  assert.equal(await visibleRows(page, '#machines-table'), 2);
  assert.ok(await page.locator('.heatmap').filter({visible: true}).count() >= 3);
  assert.ok(await page.locator('noscript').filter({visible: true}).count() >= 3);
  for (const part of ['#filters', '#chart', '#c-a', '#r-csv', '#theme']) {
    assert.equal(await page.isVisible(part), false, part);
  }
  assertClean(opened);
  await opened.close();
});

test('text of the data stays text', async () => {
  const opened = await open(browser, 'sample.html');
  const {page} = opened;
  const id = await page.evaluate(() => Dash.data.runs[2].id);
  await page.selectOption('#c-a', id);
  await page.focus('#chart');
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  assert.match(await page.textContent('#t-read'), /<img src=x>/);
  assert.equal(await page.evaluate(() => window.hostile), undefined);
  assert.equal(await page.locator('img, main i').count(), 0);
  assertClean(opened);
  await opened.close();
});

test('without the chart library everything else works', async () => {
  const html = await readFile(pageFile('sample.html'), 'utf8');
  const scripts = html.split('<script>');
  assert.equal(scripts.length, 3);
  scripts[1] = scripts[1].replace(/^[^]*?<\/script>/, '</script>');
  await writeFile(pageFile('plain.html'), scripts.join('<script>'));
  const opened = await open(browser, 'plain.html');
  const {page} = opened;
  assert.equal(await page.locator('canvas').count(), 0);
  assert.match(await page.textContent('#chart'), /without the chart library/);
  assert.equal(await visibleRows(page, '#t-table'), 33);
  await page.focus('#chart');
  await page.keyboard.press('ArrowLeft');
  assert.match(await page.textContent('#t-read'), /^Run 32 of 33/);
  await page.selectOption('#f-kernel', 'decode');
  assert.equal(await visibleRows(page, '#latest-table'), 12);
  assertClean(opened);
  await opened.close();
});

test('an empty database', async () => {
  const opened = await open(browser, 'empty.html');
  assert.match(await opened.page.textContent('.headline'), /Nothing measured yet/);
  assertClean(opened);
  await opened.close();
});
