// The page of the runs that data/ records, made by the commands that docs/dashboard.md shows, as a
// reader meets it. Leaves dashboard.png, which docs/ keeps a copy of.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {readdirSync} from 'node:fs';
import {after, before, test} from 'node:test';
import {assertClean, launch, open, pageFile, texts, violations, visibleRows} from './browser.mjs';

const history = (...args) => execFileSync(process.env.ATTN_COMPARE, ['history', ...args], {stdio: 'pipe'});
const below = (folder) => readdirSync(`${process.env.ATTN_SOURCE}/${folder}`, {recursive: true})
  .filter((name) => name.endsWith('.json')).sort().map((name) => `${process.env.ATTN_SOURCE}/${folder}/${name}`);

let browser;
before(async () => {
  const database = ['--db', pageFile('recorded.db')];
  const isDateless = (file) => file.endsWith('peers-2026-11-22.json');
  const files = [...below('data/bench'), ...below('data/gpu'), ...below('data/faults')];
  history('import', ...database, '--date', '2026-11-22', ...files.filter(isDateless));
  history('import', ...database, ...files.filter((file) => !isDateless(file)));
  history('dashboard', ...database, '-o', pageFile('recorded.html'));
  browser = await launch();
});
after(async () => { await browser.close(); });

for (const [width, colorScheme] of [[1280, 'light'], [400, 'dark']]) {
  test(`axe finds nothing, nothing is too wide, ${width} px, ${colorScheme}`, async () => {
    const opened = await open(browser, 'recorded.html', {width, height: 1800, colorScheme});
    const {page} = opened;
    if (width === 1280) await page.screenshot({path: pageFile('dashboard.png')});
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= width);
    assert.deepEqual(await violations(page), []);
    assertClean(opened);
    await opened.close();
  });
}

test('the recorded runs fill every section', async () => {
  const opened = await open(browser, 'recorded.html');
  const {page} = opened;
  assert.match((await texts(page, '.card')).join(' '), /\d\.\d\d×.*shapes.*Roofline.*Conformance.*Planted bugs/s);
  assert.ok(await visibleRows(page, '#gate-table') >= 20);
  assert.ok(await visibleRows(page, '#latest-table') >= 100);
  assert.ok(await page.locator('.heatmap tbody tr').filter({visible: true}).count() >= 20);
  assert.equal(await page.locator('#chart canvas').count(), 1);
  assert.match(await page.textContent('#c-summary'), /^\d+ in common/);
  assertClean(opened);
  await opened.close();
});
