// axe-core's rules on the page, in every state that looks different.
import assert from 'node:assert/strict';
import {after, before, test} from 'node:test';
import {assertClean, launch, open, violations} from './browser.mjs';

let browser;
before(async () => { browser = await launch(); });
after(async () => { await browser.close(); });

for (const width of [1280, 400]) {
  for (const colorScheme of ['light', 'dark']) {
    test(`axe finds nothing, ${width} px, ${colorScheme}`, async () => {
      const opened = await open(browser, 'sample.html', {width, colorScheme});
      const {page} = opened;
      await page.click('#more-filters summary');
      await page.click('#t-table summary');
      const ids = await page.evaluate(() => Dash.data.runs.map((r) => r.id));
      await page.selectOption('#c-a', ids[0]);
      await page.selectOption('#c-b', ids[38]);
      assert.deepEqual(await violations(page), []);
      await page.check('[name=metric][value=roofline]');
      assert.deepEqual(await violations(page, '#map'), []);
      assertClean(opened);
      await opened.close();
    });
  }
}

test('landmarks, one heading of each section, captions', async () => {
  const opened = await open(browser, 'sample.html');
  const {page} = opened;
  for (const role of ['banner', 'navigation', 'main', 'contentinfo', 'form']) {
    assert.equal(await page.getByRole(role).count(), 1, role);
  }
  assert.equal(await page.getByRole('heading', {level: 1}).count(), 1);
  assert.equal(await page.getByRole('heading', {level: 2}).count(), 9);
  const tables = await page.locator('table').count();
  assert.equal(await page.locator('table > caption').count(), tables);
  await opened.close();
});
