// Chromium for the tests of the page: opens a page from its file and keeps what it must not do.
import assert from 'node:assert/strict';
import {createRequire} from 'node:module';
import {pathToFileURL} from 'node:url';

const require = createRequire(import.meta.url);
const {chromium} = require(`${process.env.NPM_FOLDER}/playwright-core`);

const axePath = `${process.env.NPM_FOLDER}/axe-core/axe.min.js`;
export const pageFile = (name) => `${process.env.PAGES}/${name}`;

export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
           '--disable-component-update', '--disable-sync'],
  });
}

// The page, with faults(): console errors, exceptions, and requests for anything but the file.
export async function open(browser, name, {hash = '', width = 1280, height = 900, ...options} = {}) {
  const context = await browser.newContext({viewport: {width, height}, ...options});
  const page = await context.newPage();
  const faults = [];
  const url = pathToFileURL(pageFile(name)).href;
  page.on('console', (m) => { if (m.type() === 'error' || m.type() === 'warning') faults.push(m.text()); });
  page.on('pageerror', (e) => faults.push(e.message));
  page.on('request', (r) => {
    const isOwn = r.url().split('#')[0] === url || r.url().startsWith('data:') || r.url().startsWith('blob:');
    if (!isOwn) faults.push('asked for ' + r.url());
  });
  await page.goto(url + hash);
  return {page, faults, url, close: () => context.close()};
}

export function assertClean(opened) {
  assert.deepEqual(opened.faults, [], 'console errors or requests');
}

// Rows of a table that are shown.
export const visibleRows = (page, table) =>
  page.locator(`${table} tbody tr`).filter({visible: true}).count();

export const texts = (page, selector) => page.locator(selector).filter({visible: true}).allTextContents();

// What axe-core finds, a line for each rule.
export async function violations(page, part = 'html') {
  await page.addScriptTag({path: axePath});
  return page.evaluate(async (part) => {
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    const found = await axe.run(part, {runOnly: {type: 'tag', values: tags}});
    return found.violations.map((v) => `${v.id}: ${v.nodes.length} x ${v.nodes[0].html.slice(0, 120)} ${v.nodes[0].failureSummary}`);
  }, part);
}
