// A small chart of bars, with the numbers behind it as a table.

import { h, svg } from '../lib/dom.js';
import { formatOf, number } from '../lib/format.js';
import texts from '../texts.js';

const WIDTH = 480;
const HEIGHT = 96;

/**
 * @param {object} parts
 * @param {string} parts.title
 * @param {import('../lib/overview.js').Bar[]} parts.bars
 * @param {{kind: string, label: string, tone: string, isWhole?: boolean}[]} parts.kinds the parts of
 *   a bar, from below; the number of one that is the whole is that of the bar
 * @param {{kind: string, label: string}[]} [parts.more] numbers that stand in the table alone
 * @param {(value: number) => string} [parts.show] a value in words
 * @param {string} [parts.sum] what all bars come to, where it is no sum
 * @param {string} [parts.said] the same as it is read out
 */
export function chart({ title, bars, kinds, more = [], show = number, sum, said = sum }) {
  const shown = (/** @type {number | null | undefined} */ value) => (value === null || value === undefined ? '–' : show(value));
  const columns = [
    ...kinds.map(({ kind, label, isWhole }) => ({ label, of: (/** @type {import('../lib/overview.js').Bar} */ bar) => shown(isWhole ? bar.total : bar.counts[kind]) })),
    ...more.map(({ kind, label }) => ({ label, of: (/** @type {import('../lib/overview.js').Bar} */ bar) => number(bar.counts[kind] ?? 0) })),
  ];
  const most = Math.max(1, ...bars.map((bar) => bar.total));
  const step = WIDTH / bars.length;
  const clock = formatOf(Intl.DateTimeFormat, undefined, { hour: '2-digit', minute: '2-digit' });
  const total = show(bars.reduce((all, bar) => all + bar.total, 0));
  const isSum = sum === undefined;
  const highest = show(Math.max(0, ...bars.map((bar) => bar.total)));
  const label = isSum ? texts.overview.chartOf(title, total, highest) : texts.overview.chartOfLevels(title, said ?? sum, highest);
  return h(
    'figure.sheet.chart',
    null,
    h('figcaption', null, h('h3', null, title), h('span.quiet', null, isSum ? texts.overview.total(total) : sum)),
    svg(
      'svg',
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label, preserveAspectRatio: 'none' },
      bars.map((bar, at) => {
        let below = 0;
        return svg(
          'g',
          null,
          svg('title', null, `${clock.format(bar.from)}: ${shown(kinds.some(({ kind }) => bar.counts[kind] !== null) ? bar.total : null)}`),
          svg('rect.back', { x: at * step + 1, y: 0, width: step - 2, height: HEIGHT }),
          kinds.map(({ kind, tone }) => {
            const height = ((bar.counts[kind] ?? 0) / most) * HEIGHT;
            below += height;
            return height > 0 && svg(`rect.bar-${tone}`, { x: at * step + 1, y: HEIGHT - below, width: step - 2, height });
          }),
        );
      }),
    ),
    h('div.axis', { 'aria-hidden': 'true' }, h('span', null, clock.format(bars[0]?.from)), h('span', null, texts.overview.now)),
    h(
      'details',
      null,
      h('summary', null, texts.overview.numbers),
      h(
        'table',
        null,
        h('thead', null, h('tr', null, h('th', { scope: 'col' }, texts.overview.from), columns.map(({ label }) => h('th', { scope: 'col' }, label)))),
        h('tbody', null, bars.map((bar) => h('tr', null, h('td', { 'data-label': texts.overview.from }, clock.format(bar.from)), columns.map(({ label, of }) => h('td', { 'data-label': label }, of(bar)))))),
      ),
    ),
  );
}
